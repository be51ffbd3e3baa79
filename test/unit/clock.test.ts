import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AwakeClock } from '../../src/clock.ts';

test('time goes on as the monotonic clock does, from whatever it reads', () => {
  let real = 5000;
  const clock = new AwakeClock(() => real);
  const start = clock.now();
  for (let second = 1; second <= 100; second++) {
    real += 1000;
    assert.equal(clock.now() - start, second * 1000);
  }
});

test('a pause of the process does not count', () => {
  let real = 0;
  const clock = new AwakeClock(() => real);
  real += 100;
  const before = clock.now();
  real += 60_000;
  assert.equal(clock.now(), before);
  real += 100;
  assert.equal(clock.now(), before + 100);
});

test('a busy event loop is no pause', () => {
  let real = 0;
  const clock = new AwakeClock(() => real);
  real += 3000;
  assert.equal(clock.now(), 3000);
  real += 3001;
  assert.equal(clock.now(), 3000);
});
