import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { deadlineStep, GIVEN_UP, INTERRUPT_MS } from '../../src/policy/deadline.ts';
import { ABORT_MS, type Ending, endStep } from '../../src/policy/ending.ts';
import { seatsToReplace } from '../../src/policy/replacement.ts';

const GRACE_MS = 30_000;
const DRAINING: Ending = { state: 'draining', stuck: false, until: GRACE_MS, abortedAt: null };
const LEAVING: Ending = { ...DRAINING, state: 'leaving' };

/** Everything that is done to a worker from `start` on, with its time; `changes` happen to it meanwhile. */
function course(ending: Ending, start: number, changes: readonly [number, Partial<Ending>][] = []): string[] {
  const done: string[] = [];
  const coming = [...changes];
  let now = start;
  let present = ending;
  for (let looks = 0; looks < 100; looks++) {
    const step = endStep(present, now);
    if (step.kind === 'wait') {
      assert.ok(step.ms > 0);
      const [change] = coming;
      if (change !== undefined && change[0] <= now + step.ms) {
        coming.shift();
        now = change[0];
        present = { ...present, ...change[1] };
      } else now += step.ms;
      continue;
    }
    done.push(`${step.kind} ${now}`);
    if (step.kind === 'kill') return done;
    present = { ...present, abortedAt: now };
  }
  throw new Error('it goes on for ever');
}

test('a worker that does not drain is aborted when its time is up, and killed a second later', () => {
  assert.deepEqual(course(DRAINING, 0), [`abort ${GRACE_MS}`, `kill ${GRACE_MS + ABORT_MS}`]);
});

test('one that has drained and does not leave has what is left of its time', () => {
  const drained: [number, Partial<Ending>][] = [[20_000, { state: 'leaving' }]];
  assert.deepEqual(course(DRAINING, 0, drained), [`abort ${GRACE_MS}`, `kill ${GRACE_MS + ABORT_MS}`]);
});

test('a stuck thread does not shorten the time of the requests beside it', () => {
  assert.deepEqual(endStep({ ...DRAINING, stuck: true }, 10), { kind: 'wait', ms: GRACE_MS - 10 });
});

test('when they have finished, a worker with a stuck thread is aborted at once', () => {
  const drained: [number, Partial<Ending>][] = [[700, { state: 'leaving' }]];
  assert.deepEqual(course({ ...DRAINING, stuck: true }, 0, drained), ['abort 700', `kill ${700 + ABORT_MS}`]);
});

test('one that gets stuck while it leaves is aborted at once', () => {
  assert.deepEqual(course(LEAVING, 0, [[5000, { stuck: true }]]), ['abort 5000', 'kill 6000']);
});

test('a quick stop shortens its time', () => {
  assert.deepEqual(course(LEAVING, 0, [[5000, { until: 5000 }]]), ['abort 5000', 'kill 6000']);
});

test('a request that never comes back: timed out, given up, its worker replaced, aborted, killed', () => {
  const timeoutMs = 2000;
  const seen: string[] = [];
  let timedOutAt = 0;
  let ending: Ending | null = null;
  let replacing = false;
  for (let now = 0; now <= 10_000; now += 100) {
    const step = deadlineStep(timedOutAt, 0, false, timeoutMs, now);
    if (step === 'time-out') timedOutAt = now;
    if (step === 'give-up') {
      timedOutAt = GIVEN_UP;
      ending = { state: 'draining', stuck: true, until: now + GRACE_MS, abortedAt: null };
    }
    if (step !== 'wait') seen.push(`${step} ${now}`);
    if (ending === null) continue;
    const seat = { number: 1, wish: 'timeout', readyAt: 0, serves: true, replacing, notBefore: 0 } as const;
    if (seatsToReplace([seat], 10_000, now).includes(1)) {
      seen.push(`replace ${now}`);
      replacing = true;
    }
    // The requests beside it take a second.
    if (now === 3500) ending = { ...ending, state: 'leaving' };
    const end = endStep(ending, now);
    if (end.kind === 'wait') continue;
    seen.push(`${end.kind} ${now}`);
    if (end.kind === 'kill') break;
    ending = { ...ending, abortedAt: now };
  }
  const givenUp = timeoutMs + INTERRUPT_MS;
  assert.deepEqual(seen, [
    `time-out ${timeoutMs}`,
    `give-up ${givenUp}`,
    `replace ${givenUp}`,
    'abort 3500',
    `kill ${3500 + ABORT_MS}`,
  ]);
});

test('whatever happens to it: one abort, then one kill, a second apart, no later than its time allows', () => {
  const change = fc.tuple(
    fc.integer({ min: 0, max: 60_000 }),
    fc.oneof(fc.constant({ state: 'leaving' } as const), fc.constant({ stuck: true })),
  );
  fc.assert(
    fc.property(fc.array(change), (changes) => {
      const inOrder = changes.toSorted(([one], [other]) => one - other);
      const [abort, kill, ...more] = course(DRAINING, 0, inOrder);
      const abortedAt = Number(abort?.split(' ')[1]);
      assert.ok(abortedAt <= GRACE_MS);
      assert.deepEqual([kill, more], [`kill ${abortedAt + ABORT_MS}`, []]);
    }),
  );
});
