import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pingStep } from '../../src/policy/liveness.ts';

test('a worker is asked ten seconds after its last answer, sooner where the limit is short', () => {
  assert.equal(pingStep(null, 0, 30_000, 9999), 'wait');
  assert.equal(pingStep(null, 0, 30_000, 10_000), 'ask');
  assert.equal(pingStep(null, 0, 3000, 999), 'wait');
  assert.equal(pingStep(null, 0, 3000, 1000), 'ask');
});

test('it is not asked again before it has answered', () => {
  assert.equal(pingStep(10_000, 0, 30_000, 39_999), 'wait');
});

test('it is given up when it has not answered for the limit', () => {
  assert.equal(pingStep(10_000, 0, 30_000, 40_000), 'give-up');
});

test('without a limit nobody asks', () => {
  assert.equal(pingStep(null, 0, 0, 1e9), 'wait');
  assert.equal(pingStep(1, 0, 0, 1e9), 'wait');
});
