// Memory limits: a worker that leaks is replaced before it hurts, one that explodes is killed.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const APP = 'pathology.faults:application';
const skip = !NUNICORN_RUNS;
const LEAK = '/leak?1000000';

for (const args of [[], ['--preload']]) {
  it(`a worker that leaks 1 MB a request is replaced and no request is lost ${args.join(' ')}`, { skip }, async () => {
    const limits = ['--memory-limit', '150', '--min-worker-lifetime', '0'];
    await withServer({ app: APP, workers: 2, threads: 2, args: [...limits, ...args] }, async (server) => {
      const before = server.workers();
      // 1 MB a request, not faster than a hundred a second: a limit that is looked at each second bounds no flood.
      const load = new Load({ address: server.address, clients: 1, keepAlive: true, path: `${LEAK}&10` });
      await server.waitForLog(
        /uses \d+ MB, [\d.]+ MB more per 1,000 requests over its last \d+ \(\d+ answered\), over --memory-limit 150 MB/,
        { ms: 60_000 },
      );
      await server.waitForLog(/is replaced: it uses more than --memory-limit/, { ms: 60_000 });
      await until(() => before.some((pid) => !server.workers().includes(pid)), 'a worker to go', 30_000);
      const outcomes = await load.stop();
      assert.deepEqual([...outcomes.keys()], ['200'], load.describe());
    });
  });
}

it('a worker over --memory-limit-hard is killed, its request gets 502, the other one serves', { skip }, async () => {
  await withServer({ app: APP, args: ['--memory-limit-hard', '200'] }, async (server) => {
    const [worker] = server.workers();
    assert.equal((await server.get('/leak?300000000&60000', '', 30_000)).status, 502);
    await server.waitForLog(new RegExp(`\\(pid:${worker}\\) uses \\d+ MB.* over --memory-limit-hard 200 MB: killed`));
    assert.equal((await server.get('/', '', 30_000)).status, 200);
  });
});
