// HUP with --preload: the mold with the old code stays until the workers of the new one serve.
import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { isAlive } from '../helpers/processes.ts';
import { type Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const skip = !NUNICORN_RUNS;
const BOOT_MS = 30_000;
const OPTIONS = { app: 'app', workers: 2, threads: 2, args: ['--preload'] } as const;
let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'preload-'));
  deploy('old');
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Writes the application; its answer is `version` and the pids of its worker and of the worker's parent. */
function deploy(version: string, head = ''): void {
  writeFileSync(
    join(folder, 'app.py'),
    `import os, time
HOME = os.environ["HOME"]
${head}
def application(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [b"${version} %d %d" % (os.getpid(), os.getppid())]
`,
  );
}

/** Code that waits at its import for the file `go`. */
const WAITS = `open(os.path.join(HOME, "importing"), "w")
while not os.path.exists(os.path.join(HOME, "go")): time.sleep(0.01)`;

interface Answer {
  readonly version: string;
  readonly pid: number;
  readonly parent: number;
}

async function ask(server: Server): Promise<Answer> {
  const [version = '', pid, parent] = (await server.get('/')).text().split(' ');
  return { version, pid: Number(pid), parent: Number(parent) };
}

/** Kills all workers; gives an answer of one of those that follow. */
async function killAll(server: Server): Promise<Answer> {
  const before = server.workers();
  for (const pid of before) process.kill(pid, 'SIGKILL');
  const answer = await ask(server);
  assert.ok(!before.includes(answer.pid));
  await until(() => server.workers().length === before.length, 'as many workers as before');
  return answer;
}

async function reloaded(server: Server): Promise<void> {
  const from = server.log.length;
  server.kill('SIGHUP');
  await server.waitForLog(/Reloaded: all workers are ready/, { from, ms: BOOT_MS });
}

/** The new code answers. A request that was on its way at the reload may still have met a worker of the old code. */
async function serves(server: Server, version: string): Promise<void> {
  await until(async () => (await ask(server)).version === version, `the code '${version}' to answer`);
}

it('while the new mold boots, the old one serves and forks', { skip }, async () => {
  await withServer({ ...OPTIONS, chdir: folder }, async (server) => {
    const [old] = server.molds();
    const load = new Load({ address: server.address, clients: 4, keepAlive: true });
    await load.more(50);
    const before = server.workers();
    deploy('new', WAITS);
    server.kill('SIGHUP');
    await server.marked('importing', BOOT_MS);
    assert.deepEqual(server.workers(), before);
    assert.equal(server.molds().length, 2);
    await load.more(50);
    assert.deepEqual([...(await load.stop()).keys()], ['200'], load.describe());
    const young = await killAll(server);
    assert.deepEqual([young.version, young.parent], ['old', old]);
    server.mark('go');
    await server.waitForLog(/Reloaded: all workers are ready/, { ms: BOOT_MS });
    await until(() => server.molds().length === 1 && old !== undefined && !isAlive(old), 'the old mold to end');
    const { version, parent } = await ask(server);
    assert.deepEqual([version, parent], ['new', server.molds()[0]]);
    await server.noZombies();
  });
});

it('a mold ends when the last request of its workers has', { skip }, async () => {
  const app = 'pathology.faults:application';
  await withServer({ app, workers: 1, threads: 1, args: ['--preload'] }, async (server) => {
    const [old] = server.molds();
    const held = await server.connect();
    await held.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('a.started');
    await reloaded(server);
    assert.ok(old && isAlive(old));
    server.mark('a.open');
    assert.equal((await held.response()).text(), 'held');
    held.close();
    await until(() => !isAlive(old), 'the old mold to end');
  });
});

for (const [what, head] of [
  ['does not import', 'raise RuntimeError("a bad deployment")'],
  ['imports, but does not boot in a worker', 'os.register_at_fork(after_in_child=lambda: os._exit(3))'],
  ['hangs at import', 'time.sleep(3600)'],
] as const) {
  it(`after a HUP with code that ${what}, the old mold stays and forks`, { skip }, async () => {
    const args = ['--preload', '--boot-timeout', '3'];
    await withServer({ ...OPTIONS, args, chdir: folder }, async (server) => {
      const [old] = server.molds();
      const before = server.workers();
      deploy('bad', head);
      server.kill('SIGHUP');
      await server.waitForLog(/did not boot: the workers? stays?/, { ms: BOOT_MS });
      await until(() => server.molds().length === 1, 'the new mold to end');
      assert.deepEqual([server.molds(), server.workers()], [[old], before]);
      const { version, parent } = await killAll(server);
      assert.deepEqual([version, parent], ['old', old]);
      deploy('mended');
      await reloaded(server);
      await serves(server, 'mended');
      await until(() => server.molds().length === 1 && !server.molds().includes(old ?? 0), 'the old mold to end');
    });
  });
}

it('a HUP does not wait for a mold that hangs at import', { skip }, async () => {
  await withServer({ ...OPTIONS, chdir: folder }, async (server) => {
    deploy('hanging', WAITS);
    server.kill('SIGHUP');
    await server.marked('importing', BOOT_MS);
    deploy('mended');
    await reloaded(server);
    await serves(server, 'mended');
    await until(() => server.molds().length === 1, 'one mold');
  });
});

it('TERM ends a server whose new mold hangs at import', { skip }, async () => {
  await withServer({ ...OPTIONS, chdir: folder }, async (server) => {
    deploy('hanging', WAITS);
    server.kill('SIGHUP');
    await server.marked('importing', BOOT_MS);
    server.kill('SIGTERM');
    assert.deepEqual(await server.exit(), { code: 0, signal: null });
  });
});

it('HUP switches --preload on and off', { skip }, async () => {
  const conf = join(folder, 'conf.py');
  const configure = (preload: string): void => writeFileSync(conf, `preload_app = ${preload}\n`);
  configure('False');
  await withServer({ app: 'app', chdir: folder, args: ['-c', conf] }, async (server) => {
    for (const [preload, count] of [
      ['True', 1],
      ['False', 0],
    ] as const) {
      configure(preload);
      await reloaded(server);
      await until(
        () => server.molds().length === count,
        () => `${count} molds`,
      );
      await until(() => server.workers().length === 1, 'the worker');
      const { parent } = await ask(server);
      assert.equal(parent, count === 1 ? server.molds()[0] : server.pid);
    }
  });
});

it('several workers are forked by a mold that imports nothing, a single one is spawned', { skip }, async () => {
  const conf = join(folder, 'conf.py');
  const configure = (workers: number): void => writeFileSync(conf, `workers = ${workers}\n`);
  configure(2);
  deploy('old', 'open(os.path.join(HOME, "imported-by-%d" % os.getpid()), "w")');
  await withServer({ app: 'app', chdir: folder, args: ['-c', conf] }, async (server) => {
    await until(() => server.workers().length === 2, 'two workers');
    const [first] = server.molds();
    assert.equal((await ask(server)).parent, first);
    for (const pid of server.workers()) assert.ok(server.hasMark(`imported-by-${pid}`), `worker ${pid}`);
    assert.ok(!server.hasMark(`imported-by-${first}`), 'the mold');
    configure(1);
    await reloaded(server);
    await until(() => server.molds().length === 0, 'the mold to end');
    await until(() => server.workers().length === 1, 'the worker');
    assert.equal((await ask(server)).parent, server.pid);
    configure(3);
    deploy('new');
    await reloaded(server);
    await until(() => server.workers().length === 3, 'three workers');
    const [second] = server.molds();
    const { version, parent } = await ask(server);
    assert.deepEqual([version, parent], ['new', second]);
    assert.notEqual(second, first);
  });
});

it('signals for the server that its apps send to their parents reach the master', { skip }, async () => {
  await withServer({ app: 'app', chdir: folder, workers: 2 }, async (server) => {
    const before = server.workers();
    process.kill((await ask(server)).parent, 'SIGHUP');
    await server.waitForLog(/Reloaded: all workers are ready/, { ms: BOOT_MS });
    await until(() => server.workers().length === 2, 'two workers');
    assert.ok(!server.workers().some((pid) => before.includes(pid)), 'the workers are new');
    const [worker] = server.workers();
    assert.ok(worker);
    process.kill(worker, 'SIGHUP'); // of a worker it is the end, as with gunicorn, and of nobody else
    await server.waitForLog(new RegExp(`Worker \\(pid:${worker}\\) was sent SIGHUP!`));
    await until(() => server.workers().length === 2 && !server.workers().includes(worker), 'its replacement');
    process.kill((await ask(server)).parent, 'SIGTERM');
    assert.deepEqual(await server.exit(), { code: 0, signal: null });
    assert.equal(server.log.match(/Handling signal: hup/g)?.length, 1);
  });
});
