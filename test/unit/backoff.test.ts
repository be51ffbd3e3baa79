import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Backoff, type Death } from '../../src/policy/backoff.ts';

/** A worker that died at `diedAt` without ever having been ready. */
const unready = (diedAt: number): Death => ({ startedAt: diedAt - 10, readyAt: null, hasBegun: false, diedAt });
const readyFor = (ms: number, diedAt: number): Death => ({
  startedAt: diedAt - ms - 10,
  readyAt: diedAt - ms,
  hasBegun: false,
  diedAt,
});

test('the delay doubles from 0.25 s to 30 s', () => {
  const backoff = new Backoff();
  const delays: number[] = [];
  let now = 0;
  for (let failure = 0; failure < 10; failure++) {
    const delay = backoff.delayAfter(unready(now));
    delays.push(delay);
    now += delay + 10;
  }
  assert.deepEqual(delays, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
});

test('a worker that was ready for a second is replaced at once', () => {
  const backoff = new Backoff();
  assert.equal(backoff.delayAfter(readyFor(1000, 5000)), 0);
  assert.equal(backoff.delayAfter(readyFor(3_600_000, 3_700_000)), 0);
});

test('a worker that dies within a second of being ready has failed', () => {
  const backoff = new Backoff();
  assert.equal(backoff.delayAfter(readyFor(999, 5000)), 250);
  assert.equal(backoff.delayAfter(readyFor(0, 5100)), 500);
});

test('a worker that had begun a request is replaced at once, however young it was', () => {
  const backoff = new Backoff();
  assert.equal(backoff.delayAfter({ ...readyFor(5, 5000), hasBegun: true }), 0);
});

test('a minute without a failure begins anew', () => {
  const backoff = new Backoff();
  backoff.delayAfter(unready(0));
  backoff.delayAfter(unready(300));
  assert.equal(backoff.delayAfter(unready(300 + 500 + 60_000)), 1000, 'just a minute after the delay of 500 ms');
  assert.equal(backoff.delayAfter(unready(800 + 60_000 + 1000 + 60_001)), 250);
});

test('a healthy worker that dies in between does not change the delay of those that fail', () => {
  const backoff = new Backoff();
  backoff.delayAfter(unready(0));
  assert.equal(backoff.delayAfter(readyFor(5000, 100)), 0);
  assert.equal(backoff.delayAfter(unready(300)), 500);
});

test('workers that fail at the same time each add to the delay', () => {
  const backoff = new Backoff();
  assert.deepEqual(
    [1, 2, 3].map(() => backoff.delayAfter(unready(50))),
    [250, 500, 1000],
  );
});

test('any history gives a delay between 0 and 30 s', () => {
  const death = fc.record({ passedMs: fc.nat(100_000), readyForMs: fc.option(fc.nat(5000)) });
  fc.assert(
    fc.property(fc.array(death, { maxLength: 2000 }), (deaths) => {
      const backoff = new Backoff();
      let now = 0;
      for (const { passedMs, readyForMs } of deaths) {
        now += passedMs;
        const delay = backoff.delayAfter(readyForMs === null ? unready(now) : readyFor(readyForMs, now));
        assert.ok(delay === 0 || (delay >= 250 && delay <= 30_000));
        assert.equal(delay === 0, readyForMs !== null && readyForMs >= 1000);
      }
    }),
    { numRuns: 100 },
  );
});
