// Processes that stand still: one that should not is replaced, all of them together are not.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { isAlive } from '../helpers/processes.ts';
import { withServer } from '../helpers/server.ts';

const APP = 'pathology.faults:application';
const skip = !NUNICORN_RUNS;
/** Longer than the time after which the master gives up a front, and than the --timeout of the test. */
const PAUSE_MS = 12_000;

it('a front whose event loop stands still is killed and replaced, its workers live on', { skip }, async () => {
  await withServer({ app: APP, workers: 2 }, async (server) => {
    const workers = server.workers();
    const [front] = server.fronts();
    assert.ok(front !== undefined);
    process.kill(front, 'SIGSTOP');
    await server.waitForLog(new RegExp(`Front 1 \\(pid:${front}\\) has not answered for 10 s: killed`), { ms: 40_000 });
    await until(() => !isAlive(front), 'the front to end');
    assert.equal((await server.get('/')).status, 200);
    assert.deepEqual(server.workers(), workers);
  });
});

it('a machine that was suspended: nothing is killed, and what ran goes on', { skip }, async () => {
  const args = ['--timeout', '5'];
  await withServer({ app: APP, workers: 2, threads: 2, args }, async (server) => {
    const held = await server.connect();
    await held.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('a.started');
    const idle = await server.connect();
    await idle.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
    assert.equal((await idle.response()).status, 200);
    const pids = server.processes().map(({ pid }) => pid);
    const before = [server.workers(), server.fronts()];
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    await delay(PAUSE_MS); // the pause itself is what is tested
    for (const pid of pids) process.kill(pid, 'SIGCONT');
    for (let request = 0; request < 5; request++) assert.equal((await server.get('/')).status, 200);
    server.mark('a.open');
    const response = await held.response();
    assert.deepEqual([response.status, response.text()], [200, 'held']);
    assert.deepEqual([server.workers(), server.fronts()], before);
    assert.doesNotMatch(server.log, /TIMEOUT|CRITICAL|ERROR/);
    held.close();
    idle.close();
  });
});

it('a worker that stands still while its front dies twice serves the third', { skip }, async () => {
  // So long that the front asks for an answer that may be held.
  const app = `import time
def application(environ, start_response):
    time.sleep(0.3)
    start_response("200 OK", [])
    return [b"ok"]
`;
  const options = { app: 'slow:application', chdir: '{home}', files: { 'slow.py': app } };
  await withServer({ ...options, workers: 1, threads: 12 }, async (server) => {
    const [worker] = server.workers();
    assert.ok(worker !== undefined);
    process.kill(worker, 'SIGSTOP');
    for (let death = 1; death <= 2; death++) {
      const [front] = server.fronts();
      assert.ok(front !== undefined);
      process.kill(front, 'SIGKILL');
      await until(() => !isAlive(front), 'the front to end');
      await server.seenByFront(); // the next one has connected to the worker by then
    }
    process.kill(worker, 'SIGCONT');
    for (let round = 1; round <= 3; round++) {
      const answers = await Promise.all(Array.from({ length: 12 }, () => server.get('/')));
      for (const { status } of answers) assert.equal(status, 200);
    }
  });
});
