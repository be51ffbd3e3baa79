// A server whose processors have no time left: requests wait beside idle threads, and none is lost or late for it.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { Admin } from '../helpers/admin.ts';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const LONG_MS = 60_000;

for (const { kind, options, computes, waits } of [
  {
    kind: 'Python',
    options: { app: 'pathology.faults:application', workers: 2, threads: 2 },
    computes: '/compute?3',
    waits: '/ticks?5',
  },
  {
    kind: 'Node',
    options: { app: './node/listener.cjs', threads: 4, args: ['-k', 'gthread'] },
    computes: '/compute?3',
    waits: '/keep?1',
  },
] as const) {
  it(`${kind}: threads are kept in reserve while processors are full, and used when they are not`, {
    skip: !NUNICORN_RUNS,
  }, async () => {
    const admin = await Admin.choose();
    const args = [...('args' in options ? options.args : []), ...admin.args];
    // One processor: the other is for the clients.
    await withServer({ ...options, args, by: ['taskset', '--cpu-list', '0'] }, async (server) => {
      const reserved = async (): Promise<number> =>
        (await admin.scrape()).get('nunicorn_reserved_seconds_total') ?? Number.NaN;
      assert.equal(await reserved(), 0);
      const load = new Load({ address: server.address, clients: 8, keepAlive: true, path: computes });
      await until(async () => (await reserved()) > 3, 'threads to be kept in reserve', LONG_MS);
      const { utilization } = (await admin.status()).recent;
      assert.ok(utilization > 0.5, `a thread in reserve is used up: ${utilization}`);
      const outcomes = await load.stop();
      assert.deepEqual([...outcomes.keys()], ['200'], load.describe());
      const waiting = new Load({ address: server.address, clients: 4, keepAlive: true, path: waits });
      await until(
        async () => (await admin.status()).workers.flatMap(({ slots }) => slots).every((state) => state === 'busy'),
        'all threads to be used',
        LONG_MS,
      );
      assert.deepEqual([...(await waiting.stop()).keys()], ['200']);
    });
  });
}
