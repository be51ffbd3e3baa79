// Workers that do not become ready: killed at --boot-timeout, and the log says where they hang.
import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const skip = !NUNICORN_RUNS;
const LONG_MS = 40_000;
let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'boot-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Writes an app whose import first runs `head`, and whose answer is `version`. */
function deploy(version: string, head = ''): void {
  writeFileSync(
    join(folder, 'app.py'),
    `import ctypes, os, sys, time
${head}
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"${version}"]
`,
  );
}

for (const [name, app] of [
  ['hangs', 'pathology.boot_hangs:application'],
  ['hangs with the GIL held', 'pathology.boot_hangs_gil:application'],
] as const) {
  for (const args of [[], ['--preload']]) {
    it(`an app whose import ${name}: exit 3 with its stack ${args.join(' ')}`, { skip }, async () => {
      const server = await Server.spawn({ app, args: ['--boot-timeout', '6', ...args] });
      try {
        assert.deepEqual(await server.exit(LONG_MS), { code: 3, signal: null }, server.output);
        assert.match(server.log, /did not (boot|import the app) within 6 s \(--boot-timeout\)/);
        assert.match(server.log, /boot_hangs\w*\.py", line \d+ in <module>/);
        await server.nothingLeft();
      } finally {
        server.destroy();
      }
    });
  }
}

it('HUP with code that hangs at import: the old code serves on, and the next HUP does not wait', { skip }, async () => {
  deploy('good');
  await withServer({ app: 'app', chdir: folder, workers: 2, args: ['--boot-timeout', '3'] }, async (server) => {
    const before = server.workers();
    deploy('hanging', 'print("hanging now", file=sys.stderr, flush=True)\ntime.sleep(3600)');
    server.kill('SIGHUP');
    await server.waitForLog(
      /did not boot within 3 s \(--boot-timeout\): it hangs while importing the app \(spawned, connected after [\d.]+ s\)\n/,
      { ms: LONG_MS },
    );
    await server.waitForLog(/app\.py", line 3 in <module>/);
    await server.waitForLog(/did not boot: the worker stays/);
    assert.deepEqual(server.workers(), before);
    assert.equal((await server.get('/')).text(), 'good');
    // Another one that hangs, and a HUP with mended code while it does.
    const from = server.log.length;
    server.kill('SIGHUP');
    await server.waitForLog(/hanging now/, { from });
    deploy('mended');
    server.kill('SIGHUP');
    await until(async () => (await server.get('/')).text() === 'mended', 'an answer of the mended version', LONG_MS);
    await until(() => server.workers().every((pid) => !before.includes(pid)), 'both workers replaced', LONG_MS);
  });
});

it('a worker that does not come back is tried again after ever longer times, and the others serve', {
  skip,
}, async () => {
  deploy('good', `if os.path.exists(os.path.join(${JSON.stringify(folder)}, "broken")): os._exit(7)`);
  await withServer({ app: 'app', chdir: folder, workers: 2, threads: 2 }, async (server) => {
    const load = new Load({ address: server.address, clients: 4, keepAlive: true });
    await load.more(20);
    writeFileSync(join(folder, 'broken'), '');
    const [victim, other] = server.workers();
    assert.ok(victim !== undefined && other !== undefined);
    process.kill(victim, 'SIGKILL');
    for (const delay of ['0.25', '0.5', '1'])
      await server.waitForLog(new RegExp(`Worker \\d is started again in ${delay} s`), { ms: LONG_MS });
    await load.more(200);
    assert.deepEqual(server.workers(), [other]);
    rmSync(join(folder, 'broken'));
    await until(() => server.workers().length === 2, 'the worker to be back', LONG_MS);
    const outcomes = await load.stop();
    for (const outcome of outcomes.keys()) assert.match(outcome, /^(200|502)$/, load.describe());
    assert.ok(load.count('502') <= 2, load.describe());
  });
});

it('a worker that dies while the app is imported: the log says how far it came', { skip }, async () => {
  deploy('good');
  await withServer({ app: 'app', chdir: folder }, async (server) => {
    deploy('dying', 'os._exit(7)');
    server.kill('SIGHUP');
    await server.waitForLog(/Worker 1 \(pid:\d+\) did not boot: it exited with code 7 while importing the app/);
    assert.equal((await server.get('/')).text(), 'good');
  });
});
