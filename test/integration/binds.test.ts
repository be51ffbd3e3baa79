// Where the server listens: Unix sockets, several addresses, IPv6.
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { get } from '../helpers/http.ts';
import { KINDS, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { freePort, hasIPv6 } from '../helpers/ports.ts';
import { type Kind, parseBind, Server, type ServerOptions, withServer } from '../helpers/server.ts';

const APP = 'wsgi_matrix:application';

async function inFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'nt-bind-'));
  try {
    chmodSync(folder, 0o755);
    await test(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

for (const kind of ['nunicorn', 'gunicorn'] satisfies Kind[]) {
  describe(kind, { skip: !KINDS.includes(kind) }, () => {
    it('a Unix socket: 0777, no REMOTE_PORT, the scheme of the proxy trusted, removed at the end', async () => {
      await inFolder(async (folder) => {
        const path = join(folder, 'app.sock');
        await withServer({ kind, app: APP, bind: [`unix:${path}`] }, async (server) => {
          assert.equal(statSync(path).mode & 0o777, 0o777);
          assert.ok(server.log.includes(`Listening at: unix:${path} (${server.pid})`), server.log);
          const env = JSON.parse((await server.get('/environ', 'X-Forwarded-Proto: https\r\n')).text());
          assert.equal(env.REMOTE_ADDR, '');
          assert.ok(!('REMOTE_PORT' in env));
          assert.equal(env.SERVER_NAME, 'test');
          assert.equal(env['wsgi.url_scheme'], 'https');
        });
      });
    });

    it('--umask decides the mode of the Unix socket', async () => {
      await inFolder(async (folder) => {
        const path = join(folder, 'app.sock');
        const options = { kind, app: APP, bind: [`unix:${path}`], args: ['--umask', '0o027'] };
        await withServer(options, async () => {
          assert.equal(statSync(path).mode & 0o777, 0o750);
        });
      });
    });

    it('a stale socket file is replaced', async () => {
      await inFolder(async (folder) => {
        const path = join(folder, 'app.sock');
        const first = await Server.start({ kind, app: APP, bind: [`unix:${path}`] });
        try {
          for (const { pid } of first.processes()) process.kill(pid, 'SIGKILL');
          await first.exit();
        } finally {
          first.destroy();
        }
        assert.ok(statSync(path).isSocket());
        await withServer({ kind, app: APP, bind: [`unix:${path}`] }, async (server) => {
          assert.equal((await server.get('/')).text(), 'ok');
        });
      });
    });

    it('several addresses at once', async () => {
      await inFolder(async (folder) => {
        const bind = [
          `127.0.0.1:${await freePort()}`,
          `unix:${join(folder, 'app.sock')}`,
          `127.0.0.1:${await freePort()}`,
        ];
        await withServer({ kind, app: APP, bind }, async () => {
          for (const one of bind) assert.equal((await get(parseBind(one))).text(), 'ok', one);
        });
      });
    });

    it('[::1]', async (t) => {
      if (!(await hasIPv6())) return t.skip('no IPv6 here');
      const port = await freePort('::1');
      await withServer({ kind, app: APP, bind: [`[::1]:${port}`] }, async (server) => {
        assert.ok(server.log.includes(`Listening at: http://[::1]:${port} (`), server.log);
        const env = JSON.parse((await server.get('/environ')).text());
        assert.equal(env.REMOTE_ADDR, '::1');
        assert.equal(env.SERVER_NAME, '::1');
      });
    });
  });
}

it('a Unix socket on which somebody listens is not taken away', { skip: !NUNICORN_RUNS }, async () => {
  await inFolder(async (folder) => {
    const path = join(folder, 'app.sock');
    const other = createServer((socket) => socket.on('error', () => {}).destroy()).listen(path);
    const server = await Server.spawn({ app: APP, bind: [`unix:${path}`] });
    try {
      assert.deepEqual(await server.exit(30_000), { code: 1, signal: null }, server.output);
      assert.match(server.log, /in use/i);
      assert.ok(statSync(path).isSocket(), 'the socket of the other one was removed');
    } finally {
      other.close();
      server.destroy();
    }
  });
});

it('a file that is no socket is not removed', { skip: !NUNICORN_RUNS }, async () => {
  await inFolder(async (folder) => {
    const path = join(folder, 'precious');
    writeFileSync(path, 'data');
    const server = await Server.spawn({ app: APP, bind: [`unix:${path}`] });
    try {
      assert.deepEqual(await server.exit(30_000), { code: 1, signal: null }, server.output);
      assert.ok(statSync(path).isFile());
    } finally {
      server.destroy();
    }
  });
});

it('the second of two addresses is in use: exit 1, the first is let go', { skip: !NUNICORN_RUNS }, async () => {
  const [free, taken] = [await freePort(), await freePort()];
  const other = createServer().listen(taken, '127.0.0.1');
  const server = await Server.spawn({ app: APP, bind: [`127.0.0.1:${free}`, `127.0.0.1:${taken}`] });
  try {
    assert.deepEqual(await server.exit(30_000), { code: 1, signal: null }, server.output);
    other.close();
    await server.nothingLeft();
  } finally {
    other.close();
    server.destroy();
  }
});

/** The one line that a start ends with, with exit code 1. */
async function refusal(options: Omit<ServerOptions, 'app'>): Promise<string> {
  const server = await Server.spawn({ app: APP, ...options });
  try {
    assert.deepEqual(await server.exit(30_000), { code: 1, signal: null }, server.output);
    server.noDefects();
    return server.log.trimEnd().split('\n').at(-1) ?? '';
  } finally {
    server.destroy();
  }
}

it('a port without its colon', { skip: !NUNICORN_RUNS }, async () => {
  assert.match(
    await refusal({ bind: ['8080'] }),
    /'8080' is no address of this machine .*; a port alone is written :8080/,
  );
});

it('a Unix socket below a file, in a folder that is not there, or with a path that is cut', {
  skip: !NUNICORN_RUNS,
}, async () => {
  assert.match(
    await refusal({ bind: ['unix:{home}/not there/app.sock'] }),
    /Can't listen at .*: there is no folder .*\/not there; under systemd RuntimeDirectory=NAME makes \/run\/NAME/,
  );
  assert.match(
    await refusal({ args: ['--admin-bind', 'unix:/nowhere/admin.sock'] }),
    /Can't listen at unix:\/nowhere\/admin.sock \(--admin-bind\): there is no folder \/nowhere; under systemd/,
  );
  assert.match(
    await refusal({ bind: [`unix:relative-${'x'.repeat(95)}`] }),
    /'.*\/relative-x*' is too long for a Unix socket: the system takes 10\d bytes/,
  );
  assert.match(
    await refusal({ args: ['--control-socket', `/tmp/${'x'.repeat(107)}`] }),
    /--control-socket .*: '\/tmp\/x*' is too long for a Unix socket/,
  );
  for (const options of [{ bind: ['unix:/dev/null/app.sock'] }, { args: ['--control-socket', '/dev/null/ctl.sock'] }])
    assert.match(await refusal(options), /\/dev\/null\/\w+.sock: part of the path is a file and no folder \(E/);
});

/** One that every user may run. */
const PYTHON = '/usr/bin/python3';
const needsRoot = !NUNICORN_RUNS || process.getuid?.() !== 0 || !existsSync(PYTHON);

it('what only root may is refused in one line to other users', { skip: needsRoot }, async () => {
  const by = ['setpriv', '--reuid=daemon', '--regid=daemon', '--clear-groups'];
  // Where the server is started is root's alone.
  assert.match(await refusal({ by }), /the folder of this start cannot be used \(EACCES: .*\): change into/);
  by.unshift('env', '--chdir=/');
  const env = { TMPDIR: '/dev/shm', HOME: '/' };
  const args = ['--worker-tmp-dir', '/dev/shm', '--spool-dir', '/dev/shm', '--python', PYTHON];
  await inFolder(async (folder) => {
    const path = join(folder, 'app.sock');
    const foreign = new RegExp(`Can't listen at unix:${path}: this user may not make or remove files in ${folder}`);
    assert.match(await refusal({ by, env, args, bind: [`unix:${path}`] }), foreign);
    const control = new RegExp(`--control-socket ${path}: this user may not make or remove files in ${folder}`);
    assert.match(await refusal({ by, env, args: [...args, '--control-socket', path] }), control);
    // A socket file that another user's server has left behind.
    assert.equal(spawnSync(PYTHON, ['-c', MAKE_SOCKET, path]).status, 0);
    assert.match(await refusal({ by, env, args, bind: [`unix:${path}`] }), foreign);
  });
  await inFolder(async (folder) => {
    chmodSync(folder, 0o700);
    assert.match(
      await refusal({ by, env, args: [...args, '--chdir', folder] }),
      /--chdir: .*: a folder that this user may enter/,
    );
  });
  for (const other of [
    ['--user', 'root'],
    ['--group', 'root'],
  ])
    assert.match(await refusal({ by, env, args: [...args, ...other] }), /--user and --group need a start as root/);
});

const MAKE_SOCKET = 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])';
