// Workers that have served enough: replaced one after the other, and no request notices.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { type Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const APP = 'pathology.faults:application';
const skip = !NUNICORN_RUNS;
const BODY = Buffer.alloc(16_384, 'x');
const AT_ONCE = ['--min-worker-lifetime', '0'];

function recycled(server: Server, reason: string): number {
  return [...server.log.matchAll(new RegExp(`is replaced: .*${reason}`, 'g'))].length;
}

for (const args of [[], ['--preload'], ['--fronts', '2']]) {
  it(`--max-requests recycles workers under load and drops nothing ${args.join(' ')}`, { skip }, async () => {
    const limits = ['--max-requests', '100', '--max-requests-jitter', '20', ...AT_ONCE];
    await withServer({ app: APP, workers: 2, threads: 2, args: [...limits, ...args] }, async (server) => {
      const descriptors = await server.descriptorsAtRest();
      const common = { address: server.address, path: '/', method: 'POST', body: BODY };
      const loads = [new Load({ ...common, clients: 4, keepAlive: true }), new Load({ ...common, clients: 2 })];
      await until(() => recycled(server, '--max-requests') >= 8, 'eight recycles', 60_000);
      for (const load of loads) {
        const outcomes = await load.stop();
        assert.deepEqual([...outcomes.keys()], ['200'], load.describe());
      }
      await until(() => server.workers().length === 2, 'two workers');
      // At the first count a front may not have had its worker yet, which takes four. A leak would be of eight workers.
      await server.descriptorsBackTo(descriptors, 4);
    });
  });
}

it('--max-lifetime recycles workers, one at a time', { skip }, async () => {
  const args = ['--max-lifetime', '1', '--max-lifetime-jitter', '0.5', ...AT_ONCE];
  await withServer({ app: APP, workers: 2, args }, async (server) => {
    const load = new Load({ address: server.address, clients: 2, keepAlive: true });
    await until(() => recycled(server, '--max-lifetime') >= 4, 'four recycles', 60_000);
    const outcomes = await load.stop();
    assert.deepEqual([...outcomes.keys()], ['200'], load.describe());
  });
});

it('a worker is not recycled before --min-worker-lifetime', { skip }, async () => {
  const args = ['--max-requests', '10', '--min-worker-lifetime', '3600'];
  await withServer({ app: APP, args }, async (server) => {
    const [before] = server.workers();
    for (let request = 0; request < 30; request++) assert.equal((await server.get('/')).status, 200);
    // Whatever the master was told before this signal has had its effect when the second worker is there.
    server.kill('SIGTTIN');
    await until(() => server.workers().length === 2, 'two workers');
    assert.ok(server.workers().includes(before ?? 0));
    assert.equal(recycled(server, '--max-requests'), 0);
  });
});

it('an app that keeps something to itself goes on in its worker, which nothing can replace', { skip }, async () => {
  const files = {
    'alone.py': `
import fcntl
lock = open(__file__ + ".lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []
`,
  };
  const args = ['--max-requests', '5', ...AT_ONCE];
  await withServer({ app: 'alone:application', args, files, readyPath: '/' }, async (server) => {
    const [before] = server.workers();
    for (let request = 0; request < 10; request++) assert.equal((await server.get('/')).status, 200);
    await server.waitForLog(/The replacement of worker 1 did not boot: the worker stays for now/);
    server.kill('SIGHUP');
    await server.waitForLog(/The replacement of worker 1 did not boot: the worker stays$/m);
    assert.equal((await server.get('/')).status, 200);
    assert.ok(server.workers().includes(before ?? 0));
  });
});
