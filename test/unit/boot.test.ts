import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bootIsOver, bootReport } from '../../src/policy/boot.ts';

test('a boot is over at its limit, and never without one', () => {
  assert.equal(bootIsOver(1000, 60_000, 60_999), false);
  assert.equal(bootIsOver(1000, 60_000, 61_000), true);
  assert.equal(bootIsOver(1000, 0, 1e9), false);
});

test('the report says how far it came and what it was about', () => {
  assert.equal(bootReport(1000, []), 'while starting its interpreter and calling the master (spawned)');
  const connected = { step: 'connected', at: 1120 } as const;
  assert.equal(bootReport(1000, [connected]), 'while importing the app (spawned, connected after 0.12 s)');
  assert.equal(
    bootReport(1000, [connected, { step: 'imported', at: 3500 }]),
    'while making itself ready (spawned, connected after 0.12 s, app imported after 2.50 s)',
  );
});
