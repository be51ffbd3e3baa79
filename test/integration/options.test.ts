// The options of a command line as a user types them, by what the application and the kernel see of each.
import { strict as assert } from 'node:assert';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { Connection, get } from '../helpers/http.ts';
import { KINDS, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { FIXTURES, PYTHON, VENV, VENV_BIN } from '../helpers/paths.ts';
import { freePort } from '../helpers/ports.ts';
import { finishing, type Kind, parseBind, Server, withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;
const APP = 'facts_app';

/** What test/fixtures/facts_app.py tells. */
interface Facts {
  readonly cwd: string;
  readonly path: readonly string[];
  readonly python: string;
  readonly user: number;
  readonly group: number;
  readonly env: Readonly<Record<string, string>>;
  readonly main_thread: boolean;
  readonly mode?: number;
}

async function facts(server: Server, path = '/'): Promise<Facts> {
  return JSON.parse((await server.get(path)).text()) as Facts;
}

/** Real, effective, saved and file system's: of the user or of the group that a process runs as. */
function ids(pid: number, what: 'Uid' | 'Gid'): readonly number[] {
  const [, line = ''] = new RegExp(`^${what}:(.*)$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return line.trim().split('\t').map(Number);
}

for (const kind of ['nunicorn', 'gunicorn'] satisfies Kind[]) {
  describe(kind, { skip: !KINDS.includes(kind) }, () => {
    it('MODULE alone means its "application"; :PORT is every IPv4 address of the machine', async () => {
      const port = await freePort('0.0.0.0');
      await withServer({ kind, app: APP, bind: [`:${port}`] }, async (server) => {
        for (const host of ['127.0.0.1', '127.0.0.2']) assert.equal((await get({ host, port })).status, 200, host);
        assert.ok(server.log.includes(`Listening at: http://0.0.0.0:${port} (`), server.log);
      });
    });

    it('-b and -e several times, -t, -k', async () => {
      const second = `127.0.0.1:${await freePort()}`;
      const args = ['-b', second, '-e', 'ONE=1', '-e', 'TWO=a=b', '-t', '9', '-k', 'sync'];
      await withServer({ kind, app: APP, args }, async (server) => {
        const { env, main_thread } = await facts(server);
        assert.deepEqual([env.ONE, env.TWO, main_thread], ['1', 'a=b', true]);
        assert.equal((await get(parseBind(second))).status, 200);
      });
    });

    it('--chdir is where modules are looked for and where relative paths start; --pythonpath', async () => {
      const files = {
        'project/shop.py': 'import beside\nfrom facts_app import application\n',
        'project/beside.py': '',
      };
      const bind = [`127.0.0.1:${await freePort()}`, 'unix:app.sock'];
      const args = ['--pythonpath', '{home}/nowhere,../lib', '--pid', 'server.pid'];
      const options = { kind, app: 'shop', bind, chdir: 'project', files, links: { lib: FIXTURES }, args };
      await withServer(options, async (server) => {
        const project = join(server.home, 'project');
        const { cwd, path } = await facts(server);
        assert.equal(cwd, project);
        assert.deepEqual(path.slice(0, 4), [
          join(server.home, 'lib'),
          join(server.home, 'nowhere'),
          project,
          server.home,
        ]);
        assert.ok(statSync(join(project, 'app.sock')).isSocket());
        assert.equal(readFileSync(join(project, 'server.pid'), 'utf8'), `${server.pid}\n`);
        await server.stop();
        for (const name of ['app.sock', 'server.pid']) assert.equal(existsSync(join(project, name)), false, name);
      });
    });

    it('what the application makes has the umask of the start, whatever --umask says', async () => {
      for (const args of [[], ['-m', '0o077'], ['--preload']]) {
        await withServer({ kind, app: APP, args }, async (server) => {
          assert.equal((await facts(server, '/made')).mode, 0o666 & ~process.umask());
        });
      }
    });

    it('--user and --group: who runs the application, whose the socket and the logs are', {
      skip: process.getuid?.() !== 0,
    }, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'nt-user-'));
      try {
        chmodSync(folder, 0o755);
        const [socket, access, errors] = ['app.sock', 'access.log', 'error.log'].map((name) => join(folder, name));
        assert(socket !== undefined && access !== undefined && errors !== undefined);
        const args = ['-u', 'daemon', '-g', 'daemon', '--access-logfile', access, '--error-logfile', errors];
        // The test's own folder is root's alone.
        args.push('--worker-tmp-dir', '/dev/shm', ...(kind === 'nunicorn' ? ['--spool-dir', '/dev/shm'] : []));
        const server = await Server.spawn({ kind, app: APP, bind: [`unix:${socket}`], args });
        await finishing(server, async () => {
          await until(async () => (await server.get('/').catch(() => null))?.status === 200, 'an answer', 30_000);
          const { user, group } = await facts(server);
          assert.ok(user > 0 && group > 0);
          for (const { pid, title } of server.processes()) {
            const expected = pid === server.pid ? [0, 0] : [user, group];
            assert.deepEqual([ids(pid, 'Uid')[1], ids(pid, 'Gid')[1]], expected, title);
            // Not one of the four may lead back.
            assert.equal(new Set([...ids(pid, 'Uid'), ...ids(pid, 'Gid')]).size, 1, title);
          }
          for (const path of [socket, access, errors]) {
            const { uid, gid } = statSync(path);
            assert.deepEqual([uid, gid], [user, group], path);
          }
        });
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  });
}

it('-w, --threads, -n, --preload: the processes and their titles', { skip }, async () => {
  const args = ['-w', '2', '--threads', '3', '-n', 'shop', '--preload'];
  await withServer({ app: APP, args }, async (server) => {
    await server.waitForLog(/Started: all workers are ready/);
    const titles = server.processes().map(({ title }) => title);
    assert.deepEqual(titles.sort(), [
      'nunicorn: front 1 [shop]',
      'nunicorn: master [shop]',
      'nunicorn: mold [shop]',
      'nunicorn: worker 1 [shop]',
      'nunicorn: worker 2 [shop]',
    ]);
    assert.match(server.log, /Using worker: gthread\n/);
    assert.match(server.log, / with 2 workers x 3 threads /);
    assert.equal((await facts(server)).main_thread, false);
  });
});

it('--backlog: how many connections wait in the kernel', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nt-backlog-'));
  const path = join(folder, 'app.sock');
  const waiting: Socket[] = [];
  /** Resolves with why the kernel did not take the connection, or with null. */
  const refusal = (): Promise<string | null> =>
    new Promise((resolve) => {
      const socket = connect(path, () => {
        waiting.push(socket);
        resolve(null);
      });
      socket.on('error', ({ code }: NodeJS.ErrnoException) => resolve(code ?? 'no code'));
    });
  try {
    await withServer({ app: APP, bind: [`unix:${path}`], args: ['--backlog', '3'] }, async (server) => {
      const [front] = server.fronts();
      assert(front !== undefined);
      process.kill(front, 'SIGSTOP');
      try {
        let reason: string | null = null;
        while (reason === null && waiting.length < 10) reason = await refusal();
        // Linux takes one more than the backlog.
        assert.deepEqual([reason, waiting.length], ['EAGAIN', 4]);
      } finally {
        process.kill(front, 'SIGCONT');
      }
      // The kernel goes on refusing until the front has accepted those that wait.
      await until(async () => (await get({ path }).catch(() => null))?.status === 200, 'an answer');
      for (const socket of waiting) socket.destroy();
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it('the Python: --python, else $VIRTUAL_ENV, else ./.venv, else python3', { skip }, async () => {
  const links = { '.venv': VENV, active: VENV, 'named/python': PYTHON };
  const everywhere = { VIRTUAL_ENV: '{home}/active' };
  for (const [expected, options] of [
    ['{home}/named/python', { links, env: everywhere, args: ['--python', 'named/python'] }],
    ['{home}/active/bin/python', { links, env: everywhere }],
    ['{home}/.venv/bin/python', { links, env: { VIRTUAL_ENV: '' } }],
    [join(VENV_BIN, 'python3'), { env: { VIRTUAL_ENV: '' } }],
  ] as const) {
    await withServer({ app: APP, ...options }, async (server) => {
      const path = expected.replace('{home}', server.home);
      assert.equal((await facts(server)).python, path);
      assert.ok(server.log.includes(`(${path})`), server.log);
    });
  }
});

it('a client that does not read has --response-timeout', { skip }, async () => {
  const args = ['--response-timeout', '1'];
  await withServer({ app: 'wsgi_matrix:application', threads: 2, args }, async (server) => {
    const connection = await Connection.open(server.address);
    connection.socket.pause();
    await connection.send('GET /close/endless-fast HTTP/1.1\r\nHost: test\r\n\r\n');
    await until(
      async () => (await server.get('/count/endless-fast')).text() === '1',
      'the end of the stream, whose client is still there',
    );
    assert.equal(connection.ended, undefined);
    connection.close();
  });
});
