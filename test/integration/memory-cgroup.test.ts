// A server in a control group whose memory is nearly used up, as in a container: the worker that has most is replaced.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { newMemoryGroup, newPretendedGroup } from '../helpers/cgroup.ts';
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
            'Worker (\\d) \\(pid:\\d+\\) has most: \\d+ MB, [\\d.]+ MB more per 1,000 requests over its last \\d+ ',
        ),
        { ms: 120_000 },
      );
      assert.ok(Number(used) >= 0.9 * LIMIT_MB, `${used} MB`);
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

it('version 2: the limit of a group above counts, and what can be dropped of the file cache does not', {
  skip: !NUNICORN_RUNS,
}, async (test) => {
  const group = newPretendedGroup();
  if (typeof group === 'string') {
    test.skip(group);
    return;
  }
  const megabytes = (count: number): string => `${count * 1024 * 1024}\n`;
  const inner = { 'memory.max': 'max\n', 'memory.high': 'max\n', 'memory.current': megabytes(200) };
  for (const [name, text] of Object.entries(inner)) group.write('inner', name, text);
  group.write('outer', 'memory.max', megabytes(LIMIT_MB));
  group.write('outer', 'memory.high', 'max\n');
  group.write('outer', 'memory.stat', `anon 1\ninactive_file ${50 * 1024 * 1024}\nactive_file 7\n`);
  group.write('outer', 'memory.current', megabytes(390));
  try {
    const options = { app: APP, by: group.by, workers: 2, threads: 2 };
    const server = await group.within(() => Server.start(options));
    await finishing(server, async () => {
      const before = server.workers();
      const fat = Number((await server.get('/pid')).text());
      assert.equal((await server.get('/leak?100000000')).status, 200);
      const load = new Load({ address: server.address, clients: 2, keepAlive: true, path: '/ticks?1' });
      // Three looks at 340 of 400 MB that are in use, then one at 380.
      await load.more(60);
      assert.doesNotMatch(server.log, /cgroup/);
      group.write('outer', 'memory.current', megabytes(430));
      await server.waitForLog(
        new RegExp(
          `380 MB of the ${LIMIT_MB} MB that the server's cgroup may have are used. Worker \\d \\(pid:${fat}\\) has most`,
        ),
        { ms: 30_000 },
      );
      group.write('outer', 'memory.current', megabytes(250));
      await until(() => !server.workers().includes(fat), 'the worker to go', 30_000);
      const outcomes = await load.stop();
      assert.deepEqual([...outcomes.keys()], ['200'], load.describe());
      assert.ok(
        before.some((pid) => server.workers().includes(pid)),
        'the other one stays',
      );
    });
  } finally {
    await group.remove();
  }
});
