import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { beginStop, hurry, type Stopping, stopStep } from '../../src/policy/stopping.ts';

const GRACE_MS = 30_000;

interface Change {
  readonly at: number;
  readonly to: (stopping: Stopping) => Stopping;
}

const alone = (at: number): Change => ({ at, to: (stopping) => ({ ...stopping, alone: true }) });
const signal = (at: number): Change => ({ at, to: (stopping) => hurry(stopping, at) });

/** Everything that is done from 0 on, with its time; `changes`, in their order, happen meanwhile. */
function course(stopping: Stopping, changes: readonly Change[] = []): string[] {
  const done: string[] = [];
  const coming = [...changes];
  let now = 0;
  let present = stopping;
  for (let looks = 0; looks < 100; looks++) {
    const step = stopStep(present, now);
    if (step.kind === 'leave') return [...done, `leave ${now}, within ${step.ms}`];
    if (step.kind === 'cut') {
      done.push(`cut ${now}`);
      present = { ...present, cutAt: now };
      continue;
    }
    assert.ok(step.ms > 0);
    const [change] = coming;
    if (change !== undefined && change.at <= now + step.ms) {
      coming.shift();
      now = change.at;
      present = change.to(present);
    } else now += step.ms;
  }
  throw new Error('it goes on for ever');
}

const graceful = beginStop(true, GRACE_MS, 0);
const quick = beginStop(false, GRACE_MS, 0);

test('when the last client has its answer the workers leave, and have what is left of the time', () => {
  assert.deepEqual(course(graceful, [alone(4000)]), ['leave 4000, within 26000']);
});

test('an app has a second for its exit handlers, however late the last answer was', () => {
  assert.deepEqual(course(graceful, [alone(29_900)]), ['leave 29900, within 1000']);
});

test('when time is up the clients are cut off, and the workers leave as soon as nobody is left', () => {
  assert.deepEqual(course(graceful, [alone(30_200)]), ['cut 30000', 'leave 30200, within 1000']);
});

test('clients that cannot be got rid of are waited for a second', () => {
  assert.deepEqual(course(graceful), ['cut 30000', 'leave 31000, within 1000']);
});

test('a quick stop gives requests two seconds', () => {
  assert.deepEqual(course(quick), ['cut 2000', 'leave 3000, within 1000']);
});

test('a second signal shortens a graceful stop to a quick one', () => {
  assert.deepEqual(course(graceful, [signal(5000)]), ['cut 7000', 'leave 8000, within 1000']);
});

test('a second signal prolongs nothing', () => {
  assert.deepEqual(course(graceful, [signal(29_500)]), ['cut 30000', 'leave 31000, within 1000']);
  assert.deepEqual(course(graceful, [signal(30_500)]), ['cut 30000', 'leave 31000, within 1000']);
  assert.deepEqual(course(quick, [signal(1000), signal(1900)]), ['cut 2000', 'leave 3000, within 1000']);
});

test('whatever happens: one cut at most, then the workers leave, in time', () => {
  const change = fc.oneof(
    fc.nat(40_000).map((at) => alone(at)),
    fc.nat(40_000).map((at) => signal(at)),
  );
  fc.assert(
    fc.property(fc.boolean(), fc.array(change), (isGraceful, changes) => {
      const sorted = changes.toSorted((one, other) => one.at - other.at);
      const steps = course(isGraceful ? graceful : quick, sorted);
      assert.match(steps.join(', '), /^(cut \d+, )?leave \d+, within \d+$/);
      assert.ok(Number(/leave (\d+)/.exec(steps.at(-1) ?? '')?.[1]) <= (isGraceful ? 31_000 : 3000));
    }),
  );
});
