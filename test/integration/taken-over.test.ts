// What an app that has been taken over can make of the master.
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type Server, withServer } from '../helpers/server.ts';

/** Has a worker say these in the place of a process that the master knows, by default of itself. */
async function forge(server: Server, words: readonly unknown[], greeting: object = {}): Promise<void> {
  const query = new URLSearchParams({ words: JSON.stringify(words), greeting: JSON.stringify(greeting) });
  assert.equal((await server.get(`/?${query}`)).status, 200);
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
