import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LookAhead } from '../../src/dispatch/look-ahead.ts';

const WINDOW = 50;

function observed(...runs: readonly (readonly [appUs: number, times: number])[]): LookAhead {
  const lookAhead = new LookAhead();
  for (const [appUs, times] of runs) for (let seen = 0; seen < times; seen++) lookAhead.observe(appUs);
  return lookAhead;
}

test('nothing is sent ahead before 50 requests are known', () => {
  assert.equal(new LookAhead().limit, 1);
  assert.equal(observed([10, WINDOW - 1]).limit, 1);
  assert.equal(observed([10, WINDOW]).limit, 32);
});

const LIMITS: readonly (readonly [number, number])[] = [
  [0, 32],
  [1, 32],
  [31, 32],
  [32, 31],
  [100, 10],
  [333, 3],
  [334, 2],
  [500, 2],
  [501, 1],
  [1000, 1],
  [30_000_000, 1],
];
for (const [appUs, limit] of LIMITS) {
  test(`an app of ${appUs} µs gets up to ${limit} requests a thread: a millisecond of work, never over 32`, () => {
    assert.equal(observed([appUs, WINDOW]).limit, limit);
  });
}

test('the slowest counts, not the mean', () => {
  assert.equal(observed([10, 20], [400, 1], [10, 29]).limit, 2);
});

test('one slow request sets it to 1 at once', () => {
  assert.equal(observed([10, 2 * WINDOW], [600, 1]).limit, 1);
  assert.equal(observed([10, 2 * WINDOW + 10], [600, 1]).limit, 1);
});

test('a request that has not ended counts as slow', () => {
  const lookAhead = observed([10, 2 * WINDOW]);
  lookAhead.observeSlow();
  assert.equal(lookAhead.limit, 1);
});

test('a slow request is remembered for 50 to 100 more', () => {
  for (let place = 0; place < WINDOW; place++) {
    const lookAhead = observed([10, WINDOW + place], [600, 1]);
    let remembered = 0;
    while (lookAhead.limit === 1) {
      lookAhead.observe(10);
      remembered++;
      assert.ok(remembered <= 2 * WINDOW, 'it is never forgotten');
    }
    assert.ok(remembered >= WINDOW && remembered < 2 * WINDOW, `${remembered} at place ${place}`);
  }
});

test('it keeps between what the slowest of the last 50 and of the last 100 allow', () => {
  const allowed = (times: readonly number[]): number =>
    Math.max(1, Math.min(32, Math.floor(1000 / Math.max(1, ...times))));
  const time = fc.oneof({ weight: 9, arbitrary: fc.integer({ min: 0, max: 120 }) }, fc.integer({ min: 0, max: 3000 }));
  fc.assert(
    fc.property(fc.array(time, { minLength: WINDOW, maxLength: 400 }), (times) => {
      const lookAhead = new LookAhead();
      for (const [at, appUs] of times.entries()) {
        lookAhead.observe(appUs);
        const seen = times.slice(0, at + 1);
        if (seen.length < WINDOW) assert.equal(lookAhead.limit, 1);
        else {
          assert.ok(lookAhead.limit <= allowed(seen.slice(-WINDOW)));
          assert.ok(lookAhead.limit >= allowed(seen.slice(-2 * WINDOW)));
        }
      }
    }),
    { numRuns: 200 },
  );
});
