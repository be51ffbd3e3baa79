import assert from 'node:assert/strict';
import { afterEach, beforeEach, it, mock } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Sweeper } from '../../src/sweeper.ts';

beforeEach(() => mock.timers.enable({ apis: ['setTimeout'] }));
afterEach(() => mock.timers.reset());

/** Sweeps are counted; `watched.any` is what they return. */
function sweeper(): { sweeps(ms: number): Promise<number>; wake(): void; close(): void; watched: { any: boolean } } {
  let count = 0;
  const watched = { any: true };
  const made = new Sweeper(
    () => {
      count++;
      return watched.any;
    },
    (lateMs) => assert.ok(lateMs >= 0),
  );
  const sweeps = async (ms: number): Promise<number> => {
    const before = count;
    for (let passed = 0; passed < ms; passed += 10) {
      mock.timers.tick(10);
      await turn();
    }
    return count - before;
  };
  return { sweeps, wake: () => made.wake(), close: () => made.close(), watched };
}

it('sweeps ten times a second while there is something to watch, else once', async () => {
  const { sweeps, watched } = sweeper();
  assert.equal(await sweeps(3000), 30);
  watched.any = false;
  assert.equal(await sweeps(100), 1);
  assert.equal(await sweeps(3000), 3);
  watched.any = true;
  assert.equal(await sweeps(1000), 1);
  assert.equal(await sweeps(1000), 10);
});

it('what is new is watched at once, and told twice or while a sweep is about to run it changes nothing', async () => {
  const { sweeps, wake, watched } = sweeper();
  watched.any = false;
  assert.equal(await sweeps(600), 1);
  watched.any = true;
  wake();
  wake();
  assert.equal(await sweeps(1000), 10);
  watched.any = false;
  await sweeps(100);
  mock.timers.tick(1000); // the timer has run out, the sweep is still to come
  watched.any = true;
  wake();
  assert.equal(await sweeps(1000), 10);
});

it('ends with close, also between its timer and the sweep', async () => {
  for (const lastMs of [50, 100]) {
    const { sweeps, close } = sweeper();
    mock.timers.tick(lastMs);
    close();
    assert.equal(await sweeps(3000), 0);
  }
});
