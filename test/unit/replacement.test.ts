import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { REASONS, type Reason } from '../../src/policy/reasons.ts';
import { mostAtATime, type SeatView, seatsToReplace, withJitter } from '../../src/policy/replacement.ts';

const MIN_LIFETIME_MS = 10_000;
const NOW = 1_000_000;

function seat(number: number, wish: Reason | null, rest: Partial<SeatView> = {}): SeatView {
  return { number, wish, readyAt: 0, serves: true, replacing: false, notBefore: 0, ...rest };
}

function chosen(seats: readonly SeatView[], now = NOW): number[] {
  return seatsToReplace(seats, MIN_LIFETIME_MS, now);
}

test('nothing is replaced without a reason', () => {
  assert.deepEqual(chosen([seat(1, null), seat(2, null)]), []);
});

test('one at a time, the oldest first', () => {
  const seats = [
    seat(1, 'reload', { readyAt: 5 }),
    seat(2, 'reload', { readyAt: 3 }),
    seat(3, 'reload', { readyAt: 4 }),
  ];
  assert.deepEqual(chosen(seats), [2]);
});

test('nobody else while a replacement is on its way', () => {
  assert.deepEqual(chosen([seat(1, 'reload', { replacing: true }), seat(2, 'max_requests')]), []);
});

test('a worker that boots on an empty seat is no replacement', () => {
  assert.deepEqual(chosen([seat(1, null, { replacing: true, readyAt: null }), seat(2, 'reload')]), [2]);
});

test('a worker that does not serve any more waits for nobody', () => {
  const seats = [seat(1, 'reload', { replacing: true }), seat(2, 'timeout'), seat(3, 'timeout', { serves: false })];
  assert.deepEqual(chosen(seats), [3]);
});

test('a tenth of the workers at a time', () => {
  assert.deepEqual([1, 2, 10, 19, 20, 45].map(mostAtATime), [1, 1, 1, 1, 2, 4]);
  const seats = Array.from({ length: 30 }, (_, at) => seat(at + 1, 'max_lifetime'));
  assert.deepEqual(chosen(seats), [1, 2, 3]);
});

test('what has to be at once does not wait for its turn', () => {
  const seats = [
    seat(1, 'reload', { replacing: true }),
    seat(2, 'unresponsive'),
    seat(3, 'app_error'),
    seat(4, 'max_requests'),
  ];
  assert.deepEqual(chosen(seats), [2, 3]);
});

test('what has lost a thread first, then memory, then reload, then what has served enough', () => {
  const order: Reason[] = ['timeout', 'cgroup_memory', 'memory', 'reload', 'max_lifetime', 'max_requests'];
  const seats = order.map((wish, at) => seat(at + 1, wish)).reverse();
  const found: Reason[] = [];
  while (seats.length > 0) {
    const [next] = chosen(seats);
    const at = seats.findIndex((one) => one.number === next);
    const [one] = seats.splice(at, 1);
    if (one?.wish) found.push(one.wish);
  }
  assert.deepEqual(found, order);
});

test('a worker is not recycled before --min-worker-lifetime, but reloaded', () => {
  for (const [wish, waits] of [
    ['max_requests', true],
    ['max_lifetime', true],
    ['memory', true],
    ['cgroup_memory', false],
    ['reload', false],
    ['timeout', false],
  ] as const) {
    const young = [seat(1, wish, { readyAt: NOW - MIN_LIFETIME_MS + 1 })];
    assert.deepEqual(chosen(young), waits ? [] : [1], wish);
    assert.deepEqual(chosen(young, NOW + 1), [1], wish);
  }
});

test('a young worker does not keep an old one waiting', () => {
  assert.deepEqual(chosen([seat(1, 'memory', { readyAt: NOW - 1 }), seat(2, 'max_requests')]), [2]);
});

test('after a replacement that did not boot the next one waits', () => {
  const seats = [seat(1, 'max_requests', { notBefore: NOW + 250 })];
  assert.deepEqual(chosen(seats), []);
  assert.deepEqual(chosen(seats, NOW + 250), [1]);
});

test('never more than a tenth in their turn, each seat at most once, and always somebody if anybody may', () => {
  const reasons = Object.keys(REASONS) as Reason[];
  const anySeat = fc.record({
    wish: fc.option(fc.constantFrom(...reasons)),
    readyAt: fc.option(fc.integer({ min: NOW - 20_000, max: NOW })),
    serves: fc.boolean(),
    replacing: fc.boolean(),
    notBefore: fc.integer({ min: NOW - 5, max: NOW + 5 }),
  });
  fc.assert(
    fc.property(fc.array(anySeat, { maxLength: 60 }), (rest) => {
      const seats = rest.map((one, at) => ({ number: at + 1, ...one }));
      const numbers = chosen(seats);
      assert.equal(new Set(numbers).size, numbers.length);
      const began = seats.filter((one) => numbers.includes(one.number));
      for (const one of began) {
        assert.ok(!one.replacing && one.notBefore <= NOW && one.wish !== null && REASONS[one.wish].begins !== null);
      }
      const inTurn = (one: SeatView): boolean =>
        one.wish !== null && one.serves && REASONS[one.wish].begins !== 'at-once';
      const underWay = seats.filter((one) => one.replacing && one.readyAt !== null).length;
      const free = Math.max(0, mostAtATime(seats.length) - underWay);
      assert.ok(began.filter(inTurn).length <= free);
      const waiting = seats.some((one) => one.wish === 'reload' && !one.replacing && one.notBefore <= NOW);
      if (free > 0 && waiting) assert.ok(numbers.length > 0);
    }),
  );
});

test("a limit with jitter is Gunicorn's: from the limit to limit + jitter, and 0 is no limit", () => {
  assert.equal(withJitter(100, 50, 0), 100);
  assert.equal(withJitter(100, 50, 0.999_999), 150);
  assert.equal(withJitter(100, 0, 0.5), 100);
  assert.equal(withJitter(0, 50, 0.5), 0);
});
