// What is written to the log files, and that all of it gets there.
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { exchange } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { finishing, Server, withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;

it('every answer has its line in the access log when the server is gone', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'logs-'));
  const path = join(folder, 'access.log');
  try {
    await withServer({ app: 'pathology.faults:application', args: ['--access-logfile', path] }, async (server) => {
      const before = 100;
      for (let at = 0; at < before; at++) await server.get(`/?${at}`);
      await server.get('/nothing-here', 'Referer: http://there/"\\\r\nUser-Agent: a b\r\n');
      server.kill('SIGTERM');
      assert.deepEqual(await server.exit(), { code: 0, signal: null });
      const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
      for (let at = 0; at < before; at++) {
        const own = lines.filter((line) => line.includes(`"GET /?${at} HTTP/1.1" 200 `));
        assert.equal(own.length, 1, `line of request ${at}`);
      }
      assert.match(
        lines.at(-1) ?? '',
        /^127\.0\.0\.1 - - \[\d\d\/\w{3}\/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET \/nothing-here HTTP\/1\.1" \d{3} \d+ "http:\/\/there\/\\"\\\\" "a b"$/,
      );
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('an access log that nobody reads holds up no request, and what is lost is told', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'logs-'));
  const fifo = join(folder, 'fifo');
  assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
  // Opened for both, it has a reader, which never reads.
  const pipe = openSync(fifo, constants.O_RDWR);
  try {
    await withServer({ app: 'wsgi_matrix:application', args: ['--access-logfile', fifo] }, async (server) => {
      // More than the pipe and the memory of the log take.
      const headers = `Referer: http://${'r'.repeat(8000)}\r\nUser-Agent: ${'u'.repeat(8000)}\r\n`;
      const connection = await server.connect();
      for (let request = 0; request < 400; request++) {
        await connection.send(`GET / HTTP/1.1\r\nHost: test\r\n${headers}\r\n`);
        assert.equal((await connection.response()).status, 200);
      }
      connection.close();
      server.kill('SIGTERM');
      assert.deepEqual(await server.exit(40_000), { code: 0, signal: null });
      assert.match(server.log, /\[WARNING\] \d+ lines of the access log were dropped: nobody took them/);
    });
  } finally {
    closeSync(pipe);
    rmSync(folder, { recursive: true });
  }
});

const APP = { app: 'hooks.app:application' };

it('--access-logformat json and --log-format json: one JSON object a line, of every process', { skip }, async () => {
  const args = ['--access-logfile', '-', '--access-logformat', 'json', '--log-format', 'json', '--log-split'];
  const server = await Server.spawn({ ...APP, threads: 2, args });
  await finishing(server, async () => {
    await until(async () => (await server.get('/').catch(() => null))?.status === 200, 'the first answer', 30_000);
    await server.get('/a%20b?c="d"', 'User-Agent: "x\\"\r\nAuthorization: Basic Ym9iOnB3\r\n');
    await server.get('/raise');
    server.kill('SIGTERM');
    await server.exit();
    const [out, err] = [server.stdout, server.log].map((text) =>
      text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, unknown>),
    );
    const request = out?.find(({ path }) => path === '/a b');
    const { time, duration_ms, pid, thread, ...rest } = request ?? {};
    assert.match(String(time), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    assert.equal(typeof duration_ms, 'number');
    assert.ok(thread === 1 || thread === 2);
    assert.deepEqual(rest, {
      level: 'info',
      remote_address: '127.0.0.1',
      user: 'bob',
      method: 'GET',
      path: '/a b',
      query: 'c="d"',
      protocol: 'HTTP/1.1',
      host: 'test',
      status: 200,
      bytes: 5,
      user_agent: '"x\\"',
      worker: 1,
    });
    const booted = out?.find(({ message }) => message === `Booting worker with pid: ${pid}`);
    assert.equal(booted?.pid, pid);
    assert.equal(booted?.level, 'info');
    assert.ok(out?.some(({ message, pid: master }) => message === 'Shutting down: Master' && master === server.pid));
    assert.equal(err?.length, 1);
    assert.match(String(err?.[0]?.message), /^Error handling request/);
    assert.match(String(err?.[0]?.exception), /ValueError: the app fails$/);
  });
});

it('variables of the environ that the format names are those that the app has set', { skip }, async () => {
  const format = '%(U)s [%({app.user}e)s] [%({REQUEST_METHOD}e)s] [%({nothing}e)s]';
  await withServer(
    { app: 'hooks.app:naming_a_user', threads: 2, args: ['--access-logfile', '-', '--access-logformat', format] },
    async (server) => {
      for (const path of ['/list', '/stream', '/raise']) await server.get(path);
      server.kill('SIGTERM');
      await server.exit();
      for (const path of ['/list', '/stream', '/raise']) {
        assert.ok(server.stdout.includes(`${path} [bob\\" of ${path}] [GET] [-]\n`), server.stdout);
      }
    },
  );
});

/** Runs a server of two workers with both logs in a folder that everybody can read and only the test's user can write. */
async function withLogs(
  args: readonly string[],
  run: (server: Server, access: string, error: string) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync('/dev/shm/logs-');
  const [access, error] = [join(folder, 'access.log'), join(folder, 'error.log')];
  chmodSync(folder, 0o755);
  try {
    const files = ['--access-logfile', access, '--error-logfile', error];
    // It imports nothing: --user may not be allowed to read the folder of a Python that root has installed for itself.
    const app = 'hooks.app:application';
    await finishing(await Server.spawn({ app, workers: 2, args: [...files, ...args] }), async (server) => {
      const started = (): boolean => existsSync(error) && readFileSync(error, 'utf8').includes('Started: all workers');
      await until(started, () => `the workers\n${server.output}`, 30_000);
      await run(server, access, error);
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

it('USR1: a log that cannot be opened anew goes on in the old file, and every process says so', { skip }, async () => {
  await withLogs([], async (server, access, error) => {
    const before = server.workers();
    for (const path of [access, error]) {
      renameSync(path, `${path}.1`);
      mkdirSync(path);
    }
    server.kill('SIGUSR1');
    const said = async (pattern: RegExp, times: number): Promise<void> => {
      await until(() => (readFileSync(`${error}.1`, 'utf8').match(pattern) ?? []).length === times, String(pattern));
    };
    // Master and front; workers and mold.
    await said(/the error log '.*' cannot be opened \(EISDIR: it is a folder\)/g, 2);
    await said(/The log .* cannot be opened anew \(Is a directory\): the old file stays in use/g, 3);
    await said(/the access log '.*' cannot be opened \(EISDIR: it is a folder\)/g, 1);
    await server.get('/?rotated');
    await until(() => readFileSync(`${access}.1`, 'utf8').includes('?rotated'), 'the line');
    assert.deepEqual(server.workers(), before);
    assert.equal(server.log, '');
  });
});

it('what a client sends cannot command the terminal that shows the error log, nor begin a line of it', {
  skip,
}, async () => {
  await withServer({ app: 'wsgi_matrix:application' }, async (server) => {
    const coding = 'Transfer-Encoding: a\x85[CRITICAL]\x9b2J';
    const response = await exchange(server.address, `POST / HTTP/1.1\r\nHost: test\r\n${coding}\r\n\r\n`);
    assert.equal(response.status, 501);
    await server.waitForLog(/Unsupported transfer coding: a\\x85\[CRITICAL\]\\x9b2J$/m);
  });
});

/** On every Linux. */
const DAEMON_UID = 1;
const needsRoot = skip || process.getuid?.() !== 0;

it('USR1: rotated logs in a folder of root are made over to --user', { skip: needsRoot }, async () => {
  // The server's own folder is root's alone.
  const user = ['--user', 'daemon', '--group', 'daemon', '--worker-tmp-dir', '/dev/shm', '--spool-dir', '/dev/shm'];
  await withLogs(user, async (server, access, error) => {
    const before = server.workers();
    for (const path of [access, error]) renameSync(path, `${path}.1`);
    writeFileSync(error, '', { mode: 0o640 }); // logrotate's `create`
    server.kill('SIGUSR1');
    const hasLine = async (): Promise<boolean> => {
      await server.get('/?rotated');
      return existsSync(access) && readFileSync(access, 'utf8').includes('?rotated');
    };
    await until(hasLine, 'a line in the new access log');
    const { uid } = statSync(`${access}.1`);
    assert.notEqual(uid, 0);
    for (const path of [access, error]) assert.equal(statSync(path).uid, uid);
    assert.equal(readFileSync(error, 'utf8'), '');
    assert.deepEqual(server.workers(), before);
  });
});

it('USR1: a link in place of a log gives --user no file of root', { skip: needsRoot }, async () => {
  const user = ['--user', 'daemon', '--group', 'daemon', '--worker-tmp-dir', '/dev/shm', '--spool-dir', '/dev/shm'];
  await withLogs(user, async (server, access, error) => {
    const secret = join(access, '../secret');
    writeFileSync(secret, 'secret', { mode: 0o600 });
    rmSync(access);
    symlinkSync(secret, access);
    server.kill('SIGUSR1');
    await until(() => readFileSync(error, 'utf8').includes("the access log '"), 'the front to say that it cannot');
    assert.equal(statSync(secret).uid, 0);
    assert.equal(readFileSync(secret, 'utf8'), 'secret');
  });
});

for (const workers of [1, 2]) {
  it(`USR1: a link of --user in place of the error log has ${workers} written to no file of root`, {
    skip: needsRoot,
  }, async () => {
    const user = ['--user', 'daemon', '--group', 'daemon', '--worker-tmp-dir', '/dev/shm', '--spool-dir', '/dev/shm'];
    await withLogs([...user, '--workers', String(workers)], async (server, access, error) => {
      const secret = join(access, '../secret');
      writeFileSync(secret, 'secret', { mode: 0o600 });
      renameSync(error, `${error}.1`);
      symlinkSync(secret, error);
      lchownSync(error, DAEMON_UID, DAEMON_UID);
      server.kill('SIGUSR1');
      const said = (): string => readFileSync(`${error}.1`, 'utf8');
      await until(() => said().includes("the error log '"), 'the master to say that it cannot');
      server.kill('SIGTTIN');
      await until(() => said().includes('signal: ttin'), 'a line of the master');
      await until(() => /Booting worker|did not boot/.test(said().split('signal: ttin')[1] ?? ''), 'one of a worker');
      assert.equal(readFileSync(secret, 'utf8'), 'secret');
    });
  });
}

it('a link of another user in place of a log ends the start, and leads to no file of root', {
  skip: needsRoot,
}, async () => {
  const folder = mkdtempSync('/dev/shm/logs-');
  try {
    const [secret, link] = [join(folder, 'secret'), join(folder, 'error.log')];
    writeFileSync(secret, 'secret', { mode: 0o600 });
    symlinkSync(secret, link);
    lchownSync(link, DAEMON_UID, DAEMON_UID);
    const args = ['--user', 'daemon', '--group', 'daemon', '--error-logfile', link];
    const server = await Server.spawn({ app: 'wsgi_matrix:application', args });
    try {
      assert.deepEqual(await server.exit(30_000), { code: 1, signal: null }, server.output);
      assert.match(server.output, /the log '.*error.log' cannot be opened, .* \(it is a link that is not of the user/);
      await server.nothingLeft();
    } finally {
      server.destroy();
    }
    assert.equal(statSync(secret).uid, 0);
    assert.equal(readFileSync(secret, 'utf8'), 'secret');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('a log that cannot be made over to --user ends the start in one line', { skip: needsRoot }, async () => {
  const args = ['--user', 'daemon', '--group', 'daemon', '--access-logfile', '/nowhere/access.log'];
  const server = await Server.spawn({ app: 'wsgi_matrix:application', args });
  try {
    assert.deepEqual(await server.exit(30_000), { code: 1, signal: null }, server.output);
    assert.match(
      server.log,
      /the log '\/nowhere\/access.log' cannot be opened, .* \(ENOENT: there is no folder \/nowhere\)/,
    );
    await server.nothingLeft();
  } finally {
    server.destroy();
  }
});

it('a front that --user may not run says who needs what', { skip: needsRoot }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'logs-'));
  const node = join(folder, 'node');
  copyFileSync(process.execPath, node);
  chmodSync(node, 0o700);
  const args = ['--user', 'daemon', '--group', 'daemon', '--worker-tmp-dir', '/dev/shm', '--spool-dir', '/dev/shm'];
  // In place of the Node that the test runs on.
  const by = ['sh', '-c', 'shift; exec "$0" "$@"', node];
  const server = await Server.spawn({ app: 'wsgi_matrix:application', args, by });
  try {
    assert.equal((await server.exit(30_000)).code, 1, server.output);
    assert.match(server.log, /a front could not be started\. User \d+ has to be able to run \S+\/node and to read \//);
  } finally {
    server.destroy();
    rmSync(folder, { recursive: true });
  }
});
