import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ConcurrencyLimit, type ProcessorUse } from '../../src/dispatch/concurrency-limit.ts';

const NONE = Number.POSITIVE_INFINITY;
/** In tenths of a second: so long the processors are full before there is a limit. */
const UNTIL_LIMITED = 2;

function limitOf(count: number, queues = 1): ConcurrencyLimit {
  return new ConcurrencyLimit({ numbers: Array.from({ length: count }, (_, number) => number), queues });
}

/** A tenth of a second, in parts of one processor. */
function use(idle: number, own: number, reserved = 0): ProcessorUse {
  return { elapsedMs: 100, idleMs: idle * 100, stolenMs: 0, ownMs: own * 100, reservedMs: reserved * 100 };
}

function fill(concurrency: ConcurrencyLimit, full: ProcessorUse): void {
  for (let time = 0; time < UNTIL_LIMITED; time++) {
    assert.equal(concurrency.limit, NONE, 'not at once');
    concurrency.observe(full);
  }
}

test('there is no limit while the processors have time to spare', () => {
  const concurrency = limitOf(2);
  for (const idle of [2, 1, 0.4, 0.2]) {
    concurrency.observe(use(idle, 2 - idle));
    assert.equal(concurrency.limit, NONE);
  }
});

test('as many as there are processors may begin when they are full, until they are not', () => {
  for (const count of [1, 2, 8]) {
    const concurrency = limitOf(count);
    fill(concurrency, use(0, count));
    assert.equal(concurrency.limit, count);
    concurrency.observe(use(0.07 * count, 0.93 * count));
    assert.equal(concurrency.limit, count, 'between full and spare it stays');
    concurrency.observe(use(0.2 * count, 0.8 * count));
    assert.equal(concurrency.limit, count, 'a load begins and ends in a window like this');
    concurrency.observe(use(0.2 * count, 0.8 * count));
    assert.equal(concurrency.limit, NONE);
    fill(concurrency, use(0, count));
    assert.equal(concurrency.limit, count, 'nothing was waiting then: the limit was not to blame');
  }
});

test('the limit outlasts a rest, but not for ever', () => {
  const concurrency = limitOf(1);
  fill(concurrency, use(0, 1));
  for (const resting of [use(1, 0), use(0, 0), use(0.5, 0.02)]) {
    concurrency.observe(use(0.6, 0.4));
    for (let time = 0; time < 80; time++) concurrency.observe(resting);
    assert.equal(concurrency.limit, 1, 'whatever else the processors do meanwhile');
    concurrency.observe(use(0.3, 0.7));
    concurrency.observe(use(0, 1));
    assert.equal(concurrency.limit, 1, 'and holds when the next load begins');
  }
  // A request now and then, never two windows in a row with work.
  for (let time = 0; time < 300; time++) {
    assert.equal(concurrency.limit, 1);
    concurrency.observe(time % 2 === 0 ? use(0.9, 0.1) : use(1, 0));
  }
  assert.equal(concurrency.limit, NONE);
});

test('short loads with rests between them do not add up', () => {
  const concurrency = limitOf(1);
  for (let time = 0; time < 20; time++) {
    concurrency.observe(use(0, 1));
    concurrency.observe(use(0.5, 0.5));
    assert.equal(concurrency.limit, NONE);
  }
});

test('a limit kept over a rest is off as soon as it costs', () => {
  const concurrency = limitOf(1);
  fill(concurrency, use(0, 1));
  for (let time = 0; time < 80; time++) concurrency.observe(use(1, 0));
  concurrency.observe(use(0.5, 0.04, 0.5));
  assert.equal(concurrency.limit, NONE);
});

test('nothing is limited where something else fills the processors', () => {
  const concurrency = limitOf(1);
  for (let time = 0; time < 10; time++) concurrency.observe(use(0, 0.6));
  assert.equal(concurrency.limit, NONE);
});

test('what the hypervisor takes is not counted as the use of others', () => {
  const concurrency = limitOf(1);
  fill(concurrency, { ...use(0, 0.6), stolenMs: 35 });
  assert.equal(concurrency.limit, 1);
});

test('processes with a queue each share the limit, and are taken to use as much as each other', () => {
  for (const [count, queues, limit] of [
    [1, 2, 1],
    [4, 2, 2],
    [8, 3, 3],
  ] as const) {
    const busy = limitOf(count, queues);
    fill(busy, use(0, (0.9 * count) / queues));
    assert.equal(busy.limit, limit);
    const quiet = limitOf(count, queues);
    for (let time = 0; time < 10; time++) quiet.observe(use(0, (0.6 * count) / queues));
    assert.equal(quiet.limit, NONE);
  }
});

test('a limit that leaves processors idle is raised, and tried again later, ever more seldom', () => {
  const concurrency = limitOf(1);
  const tries: number[] = [];
  let lastTry = 0;
  let last = NONE;
  for (let ms = 0; tries.length < 4; ms += 100) {
    // The app waits: one at a time fills half a processor.
    concurrency.observe(concurrency.limit === 1 ? use(0.5, 0.5, 1) : use(0, 1));
    assert.ok(concurrency.limit <= 2 || concurrency.limit === NONE, 'two are enough');
    if (concurrency.limit === 1 && last !== 1) {
      tries.push(ms - lastTry);
      lastTry = ms;
    }
    last = concurrency.limit;
  }
  const [first, second = 0, third = 0, fourth = 0] = tries;
  assert.equal(first, 100);
  assert.ok(second >= 6000 && third >= 2 * second - 1000 && fourth >= 2 * third - 1000, tries.join());
});

test('a moment without work is no reason to raise the limit', () => {
  const concurrency = limitOf(1);
  for (let time = 0; time < 100; time++) {
    concurrency.observe(concurrency.limit === 1 && time % 10 === 0 ? use(0.2, 0.8, 1) : use(0, 1, 1));
    assert.ok(concurrency.limit === 1 || concurrency.limit === NONE);
  }
});

test('an app that needs so many at once to fill the processors has them nearly all the time', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 8 }), (processors, needed) => {
      const concurrency = limitOf(processors);
      const slots = 64;
      const seconds = 600;
      let lostSeconds = 0;
      for (let step = 0; step < seconds * 10; step++) {
        const share = Math.min(1, Math.min(concurrency.limit, slots) / (needed * processors));
        lostSeconds += (1 - share) / 10;
        concurrency.observe(use((1 - share) * processors, share * processors, concurrency.limit < slots ? 1 : 0));
      }
      assert.ok(lostSeconds < 0.02 * seconds, `${lostSeconds} of ${seconds}`);
      assert.ok(concurrency.limit === NONE || concurrency.limit < 2 * needed * processors, 'and no more');
    }),
  );
});
