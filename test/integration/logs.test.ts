// What is written to the log files, and that all of it gets there.
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { until } from '../helpers/deadline.ts';
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
