// What an app that has been taken over can make of the master, which may run as root.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { freePort } from '../helpers/ports.ts';
import { type Server, withServer } from '../helpers/server.ts';

const needsRoot = process.getuid?.() !== 0 && 'only root gives up rights';
// The server's own folder is root's alone.
const USER = ['--user', 'daemon', '--group', 'daemon', '--worker-tmp-dir', '/dev/shm', '--spool-dir', '/dev/shm'];

/** Has a worker say these in the place of a process that the master knows, by default of itself. */
async function forge(server: Server, words: readonly unknown[], greeting: object = {}): Promise<void> {
  const query = new URLSearchParams({ words: JSON.stringify(words), greeting: JSON.stringify(greeting) });
  assert.equal((await server.get(`/?${query}`)).status, 200);
}

for (const workers of [1, 2]) {
  it(`a worker of ${workers} cannot have a process of root killed`, { skip: needsRoot }, async () => {
    const victim = spawn('sleep', ['60'], { detached: true, stdio: 'ignore' });
    try {
      await once(victim, 'spawn');
      const { pid = 0 } = victim;
      await withServer({ app: 'forging_app', workers, args: USER }, async (server) => {
        await forge(server, [], { serial: 9999, pid });
        await forge(server, [{ op: 'forked', serial: 9999, pid }], { serial: -1 });
        await forge(server, [{ op: 'forked', serial: 1, pid }], { serial: -1 });
        await forge(server, [], { serial: 1, pid });
        await server.waitForLog(/Started: all workers are ready/);
        const before = server.workers();
        server.kill('SIGHUP');
        await server.waitForLog(/Reloaded: all workers are ready/);
        await until(() => server.workers().every((one) => !before.includes(one)), 'the end of the workers');
      });
      assert.equal(victim.signalCode, null);
    } finally {
      victim.kill('SIGKILL');
    }
  });
}

it('what a worker says that is no message is not heard', async () => {
  await withServer({ app: 'forging_app', workers: 2 }, async (server) => {
    const before = server.workers();
    const words = [
      'no JSON',
      7,
      { op: 'threads', ids: [1], gil: 'x' },
      { op: 'files' },
      { op: 'metrics', metrics: [7] },
    ];
    for (const serial of [1, 2, -1]) await forge(server, words, { serial });
    assert.deepEqual(server.workers(), before);
  });
});

it('a Node app of --user listens where root alone may by no help of the master', { skip: needsRoot }, async () => {
  const args = [...USER, '--worker-class', 'async'];
  const app = join(FIXTURES, 'node/listens_more.cjs');
  await withServer({ app, args, readyPath: '/?0' }, async (server) => {
    const listen = async (where: string | number): Promise<string> => (await server.get(`/?${where}`)).text();
    const path = join(server.home, 'more.sock'); // in a folder of root's
    assert.deepEqual(
      [await listen(81), await listen(path), await listen(await freePort())],
      ['EACCES', 'EACCES', 'listens'],
    );
    assert.ok(!existsSync(path));
  });
});
