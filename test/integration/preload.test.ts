// --preload: the application is imported once, by the mold, and the workers are forked from it.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { isAlive, type ProcessInfo } from '../helpers/processes.ts';
import { type Server, withServer } from '../helpers/server.ts';

const APP = 'pathology.faults:application';
const OPTIONS = { app: APP, workers: 2, threads: 2, args: ['--preload'] } as const;
const skip = !NUNICORN_RUNS;

function python(server: Server): ProcessInfo[] {
  return server.processes().filter(({ exe }) => exe.startsWith('python'));
}

/** The parent of the workers. */
function moldOf(server: Server): number {
  const parents = new Set(python(server).map(({ ppid }) => ppid));
  const mold = python(server).find(({ pid }) => parents.has(pid));
  assert.ok(mold, JSON.stringify(python(server)));
  return mold.pid;
}

it('serves, and the workers are children of the mold', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const mold = moldOf(server);
    for (let i = 0; i < 10; i++) assert.equal(Number((await server.get('/ppid')).text()), mold);
    await until(() => server.workers().length === 2, 'two workers');
  });
});

it('a worker killed -9 is forked again from the same mold', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const mold = moldOf(server);
    const [victim] = await until(() => (server.workers().length === 2 ? server.workers() : undefined), 'two workers');
    assert.ok(victim);
    process.kill(victim, 'SIGKILL');
    await until(() => !server.workers().includes(victim) && server.workers().length === 2, 'the replacement');
    assert.equal((await server.get('/')).text(), 'ok');
    assert.equal(moldOf(server), mold);
    await server.noZombies();
  });
});

it('a request in a worker that dies gets 502', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    assert.equal((await server.get('/os-exit?1')).status, 502);
    assert.equal((await server.get('/')).text(), 'ok');
  });
});

it('the mold killed -9: service goes on and workers come from a new one', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const mold = moldOf(server);
    const held = await server.connect();
    await held.send('GET /hold?kept HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('kept.started');
    process.kill(mold, 'SIGKILL');
    for (let i = 0; i < 20; i++) assert.equal((await server.get('/')).text(), 'ok');
    await until(
      async () => {
        const parents = new Set(python(server).map(({ ppid }) => ppid));
        const young = python(server).find(({ pid }) => parents.has(pid));
        return young !== undefined && young.pid !== mold && !isAlive(mold);
      },
      'a new mold with workers',
      30_000,
    );
    assert.equal((await server.get('/')).text(), 'ok');
    // The workers of the mold that died finish what they run.
    server.mark('kept.open');
    assert.equal((await held.response()).status, 200);
    held.close();
  });
});

it('SIGTERM finishes what runs', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const held = await server.connect();
    await held.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('a.started');
    server.kill('SIGTERM');
    await server.waitForLog(/Handling signal: term/);
    server.mark('a.open');
    assert.equal((await held.response()).text(), 'held');
    held.close();
    assert.deepEqual(await server.exit(), { code: 0, signal: null });
  });
});

it('a request that hangs is a 504 and its worker is replaced', { skip }, async () => {
  const args = ['--preload', '--timeout', '1', '--graceful-timeout', '2'];
  await withServer({ ...OPTIONS, args }, async (server) => {
    for (const path of ['/loop', '/gil-sleep']) assert.equal((await server.get(path, '', 20_000)).status, 504, path);
    await until(() => server.workers().length === 2, 'two workers');
    assert.equal((await server.get('/')).text(), 'ok');
  });
});
