// A server in a control group whose memory is nearly used up, as in a container: the worker that has most is replaced.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { newMemoryGroup } from '../helpers/cgroup.ts';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { finishing, Server } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const APP = 'pathology.faults:application';
const LIMIT_MB = 400;

it('the fattest worker is replaced before the kernel kills one, and no request is lost', {
  skip: !NUNICORN_RUNS,
}, async (test) => {
  const group = newMemoryGroup(LIMIT_MB * 1024 * 1024);
  if (typeof group === 'string') {
    test.skip(group);
    return;
  }
  try {
    const server = await group.within(() => Server.start({ app: APP, workers: 2, threads: 2 }));
    await finishing(server, async () => {
      const before = server.workers();
      const fat = Number((await server.get('/pid')).text());
      assert.equal((await server.get('/leak?100000000')).status, 200);
      // 1 MB a request, ten a second: slower than the memory is looked at.
      const load = new Load({ address: server.address, clients: 1, keepAlive: true, path: '/leak?1000000&100' });
      const [, used, number] = await server.waitForLog(
        new RegExp(
          `(\\d+) MB of the ${LIMIT_MB} MB that the server's cgroup may have are used. ` +
            'Worker (\\d) \\(pid:\\d+\\) has most: \\d+ MB',
        ),
        { ms: 120_000 },
      );
      assert.ok(Number(used) > 0.9 * LIMIT_MB, `${used} MB`);
      await server.waitForLog(
        new RegExp(
          `Worker ${number} \\(pid:${fat}\\) is replaced: the memory of the server's cgroup is nearly used up`,
        ),
      );
      await until(() => !server.workers().includes(fat), 'the worker to go', 30_000);
      const outcomes = await load.stop();
      assert.deepEqual([...outcomes.keys()], ['200'], load.describe());
      assert.ok(
        before.some((pid) => server.workers().includes(pid)),
        'the other one stays',
      );
      assert.doesNotMatch(server.log, /SIGKILL/);
    });
  } finally {
    await group.remove();
  }
});
