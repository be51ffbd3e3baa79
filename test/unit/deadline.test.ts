import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type DeadlineStep, deadlineStep, GIVEN_UP, INTERRUPT_MS } from '../../src/policy/deadline.ts';

const TIMEOUT_MS = 30_000;

/** The steps of a request that runs from `start` on and never comes back, looked at at these times. */
function steps(start: number, times: readonly number[], timeoutMs = TIMEOUT_MS): DeadlineStep[] {
  let timedOutAt = 0;
  return times.map((now) => {
    const step = deadlineStep(timedOutAt, start, false, timeoutMs, now);
    if (step === 'time-out') timedOutAt = now;
    else if (step === 'give-up') timedOutAt = GIVEN_UP;
    return step;
  });
}

test('timed out at the deadline, given up half a second later, each once', () => {
  const times = [1000, 30_999, 31_000, 31_100, 31_499, 31_500, 31_600, 1_000_000];
  const wanted = ['wait', 'wait', 'time-out', 'wait', 'wait', 'give-up', 'wait', 'wait'];
  assert.deepEqual(steps(1000, times), wanted);
});

test('a limit of 0 is none', () => {
  assert.deepEqual(steps(0, [1, 1e6, 1e9], 0), ['wait', 'wait', 'wait']);
});

test('the time that the client is waited for does not count', () => {
  assert.equal(deadlineStep(0, 0, true, TIMEOUT_MS, 1e9), 'wait');
});

test('a request that has timed out is given up, whoever is waited for', () => {
  assert.equal(deadlineStep(1000, 0, true, TIMEOUT_MS, 1000 + INTERRUPT_MS), 'give-up');
});

test('whatever the times: at most one time-out, then at most one give-up', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 100_000 })), (gaps) => {
      let now = 1;
      const times = gaps.map((gap) => {
        now += gap;
        return now;
      });
      const found = steps(1, times).filter((step) => step !== 'wait');
      assert.deepEqual(found, ['time-out', 'give-up'].slice(0, found.length));
    }),
  );
});
