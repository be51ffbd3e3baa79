// HUP reads the settings anew: what changes in them takes effect, and no request notices.
import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { get } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { freePort, isListening } from '../helpers/ports.ts';
import { descriptorCount, isAlive } from '../helpers/processes.ts';
import { Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const skip = !NUNICORN_RUNS;
const BOOT_MS = 30_000;
let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'reload-'));
  deploy('one');
});
afterEach(() => rmSync(folder, { recursive: true }));

/** The application answers its version, its worker's pid and whether it has threads. */
function deploy(version: string, head = ''): void {
  writeFileSync(
    join(folder, 'app.py'),
    `import os, time
${head}
def application(environ, start_response):
    environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/slow":
        time.sleep(30)
    start_response("200 OK", [])
    return [b"${version} %d %d" % (os.getpid(), environ["wsgi.multithread"])]
`,
  );
}

function configure(...lines: string[]): string[] {
  writeFileSync(join(folder, 'conf.py'), `${lines.join('\n')}\n`);
  return ['-c', join(folder, 'conf.py')];
}

async function reloaded(server: Server): Promise<void> {
  const from = server.log.length;
  server.kill('SIGHUP');
  await server.waitForLog(/Reloaded: all workers are ready/, { from, ms: BOOT_MS });
}

/** The pids of the workers that answer: few requests may not reach all of them. */
async function answering(server: Server): Promise<Set<number>> {
  const answers = await Promise.all(Array.from({ length: 40 }, () => server.get('/')));
  return new Set(answers.map((answer) => Number(answer.text().split(' ')[1])));
}

async function assertWorkers(server: Server, pids: readonly number[]): Promise<void> {
  for (const pid of await answering(server)) assert.ok(pids.includes(pid), `${pid} is none of ${pids.join(', ')}`);
  for (const pid of pids) assert.ok(isAlive(pid), `${pid} is gone`);
}

it('HUP changes workers, threads, time limits, logs and fronts under load, and no request fails', {
  skip,
}, async () => {
  const args = configure('workers = 2', 'timeout = 60');
  await withServer({ app: 'app', chdir: folder, args }, async (server) => {
    const load = new Load({
      address: server.address,
      clients: 8,
      method: 'POST',
      body: Buffer.alloc(16_384, 'x'),
      keepAlive: true,
    });
    await load.more(100);
    const access = join(folder, 'access.log');
    configure('workers = 3', 'threads = 2', 'timeout = 1', 'fronts = 2', `accesslog = "${access}"`);
    await reloaded(server);
    await load.more(100);
    assert.equal((await server.get('/')).text().split(' ')[2], '1', 'threads');
    assert.equal((await server.get('/slow')).status, 504);
    assert.match(readFileSync(access, 'utf8'), /"POST \/ HTTP\/1.1" 200/);
    assert.equal(server.fronts().length, 2);

    const errors = join(folder, 'error.log');
    configure('workers = 1', 'fronts = 1', `errorlog = "${errors}"`, 'loglevel = "debug"', 'proc_name = "renamed"');
    server.kill('SIGHUP');
    await until(() => readFileSync(errors, { encoding: 'utf8', flag: 'a+' }).includes('Reloaded'), 'the end', BOOT_MS);
    await load.more(100);
    const outcomes = await load.stop();
    assert.deepEqual([...outcomes.keys()], ['200'], load.describe());
    await until(() => server.fronts().length === 1, 'the second front to go');
    assert.equal((await answering(server)).size, 1);
    assert.ok(server.processes().some(({ title }) => title.includes('nunicorn: master [renamed]')));
  });
});

it('a connection that is kept alive over a HUP ends with its next answer', { skip }, async () => {
  const args = configure('keepalive = 60');
  await withServer({ app: 'app', chdir: folder, args }, async (server) => {
    const connection = await server.connect();
    await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
    assert.equal((await connection.response()).header('connection')?.toLowerCase(), 'keep-alive');
    configure('keepalive = 60', 'limit_request_fields = 10');
    await reloaded(server);
    await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
    const answer = await connection.response();
    assert.deepEqual([answer.status, answer.header('connection')?.toLowerCase()], [200, 'close']);
    assert.equal(await connection.end(), 'fin');
    connection.close();
    assert.equal((await server.get('/', 'X: y\r\n'.repeat(10))).status, 431);
  });
});

it('HUP opens new addresses and closes those that are gone', { skip }, async () => {
  const [first, second] = [await freePort(), await freePort()];
  const path = join(folder, 'app.sock');
  const args = configure(`bind = ["127.0.0.1:${first}", "unix:${path}"]`);
  const kept = { host: '127.0.0.1', port: first };
  const added = { host: '127.0.0.1', port: second };
  const server = await Server.spawn({ app: 'app', chdir: folder, args, bind: [] });
  try {
    await server.waitForLog(/Listening at/, { ms: BOOT_MS });
    await until(async () => (await get({ path }, '/').catch(() => null))?.status === 200, 'the first answer', BOOT_MS);
    configure(`bind = ["127.0.0.1:${first}", "127.0.0.1:${second}"]`);
    await reloaded(server);
    for (const address of [kept, added]) assert.equal((await get(address, '/')).status, 200);
    assert.equal(await isListening({ path }), false);
    configure(`bind = ["127.0.0.1:${first}", "unix:/nowhere/app.sock"]`);
    server.kill('SIGHUP');
    await server.waitForLog(/all stays as it was: Can't listen at unix:\/nowhere\/app.sock/, { ms: BOOT_MS });
    for (const address of [kept, added]) assert.equal((await get(address, '/')).status, 200);
    configure(`bind = ["127.0.0.1:${second}"]`);
    await server.answersListeningQueue(server.fronts(), 'SIGHUP', kept);
    assert.equal((await get(added, '/')).status, 200);
    await until(async () => !(await isListening(kept)), 'the first address to be closed');
    await server.stop();
  } finally {
    server.destroy();
  }
});

it('HUP with settings that are wrong changes nothing and says what is wrong', { skip }, async () => {
  const args = configure('workers = 2');
  await withServer({ app: 'app', chdir: folder, args }, async (server) => {
    await server.waitForLog(/Started: all workers are ready/, { ms: BOOT_MS });
    const before = server.workers();
    for (const [lines, reason] of [
      ['timeout = "soon"', /invalid value for timeout: 'soon'/],
      ['this is no Python', /SyntaxError/],
      ['accesslog = "-"\naccess_log_format = "%(h"\nkeepalive = 5', /invalid access log format '%\(h': .*conf\.py:2\)/],
      ['accesslog = "/nowhere/access.log"', /a log cannot be opened: .*\/nowhere\/access.log/],
    ] as const) {
      const from = server.log.length;
      configure(lines);
      server.kill('SIGHUP');
      await server.waitForLog(/could not be read anew, all stays as it was/, { from, ms: BOOT_MS });
      assert.match(server.log.slice(from), reason);
    }
    await assertWorkers(server, before);
    configure('workers = 1');
    await reloaded(server);
    await until(() => server.workers().length === 1, 'the second worker to go');
  });
});

it('HUP with code that hangs at import: service and signals go on, and the next HUP mends it', { skip }, async () => {
  await withServer({ app: 'app', chdir: folder, workers: 2, threads: 2 }, async (server) => {
    await server.waitForLog(/Started: all workers are ready/, { ms: BOOT_MS });
    const before = server.workers();
    deploy('hanging', 'open(os.path.join(os.environ["HOME"], "hangs"), "w")\nwhile True: time.sleep(1)');
    server.kill('SIGHUP');
    await server.marked('hangs');
    await assertWorkers(server, before);
    server.kill('SIGUSR1');
    await server.waitForLog(/Handling signal: usr1/);
    deploy('mended');
    await reloaded(server);
    assert.match((await server.get('/')).text(), /^mended/);
  });
});

it('HUP says which settings need a restart', { skip }, async () => {
  const args = configure('spool_dir = "/tmp"');
  await withServer({ app: 'app', chdir: folder, args }, async (server) => {
    configure(`spool_dir = "${folder}"`);
    await reloaded(server);
    assert.match(server.log, /Needs a restart, and stays as it was until then: spool_dir/);
  });
});

it('HUP with a pid file that cannot be written changes nothing, and the next HUP mends it', { skip }, async () => {
  const [first, second] = [await freePort(), await freePort()];
  const added = { host: '127.0.0.1', port: second };
  const both = `bind = ["127.0.0.1:${first}", "127.0.0.1:${second}"]`;
  const args = configure(`bind = "127.0.0.1:${first}"`, `pidfile = "${folder}/pid"`);
  const server = await Server.spawn({ app: 'app', chdir: folder, args, bind: [] });
  try {
    await server.waitForLog(/Started: all workers are ready/, { ms: BOOT_MS });
    const open = descriptorCount(server.pid);
    configure(both, `pidfile = "${folder}/missing/pid"`);
    server.kill('SIGHUP');
    await server.waitForLog(/all stays as it was: the pid file .* cannot be written/, { ms: BOOT_MS });
    await until(() => descriptorCount(server.pid) === open, 'the new address to be closed');
    assert.equal(readFileSync(join(folder, 'pid'), 'utf8'), `${server.pid}\n`);
    configure(both, `pidfile = "${folder}/other"`);
    await reloaded(server);
    assert.equal((await get(added, '/')).status, 200);
    assert.equal(readFileSync(join(folder, 'other'), 'utf8'), `${server.pid}\n`);
    await server.stop();
  } finally {
    server.destroy();
  }
});
