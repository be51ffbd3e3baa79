import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ErrorLog } from '../../src/log/error-log.ts';
import { PrometheusReader } from '../../src/metrics/prometheus-reader.ts';

test('a worker that has the pid of one that had ended is not taken for dead', () => {
  const reader = new PrometheusReader({ path: '/', python: '', env: {}, uid: null, gid: null }, {} as ErrorLog);
  reader.ended(7);
  reader.ended(8);
  reader.begun(7);
  assert.deepEqual(reader.takeDead(), [8]);
  assert.deepEqual(reader.takeDead(), []);
});

test('the dead are not remembered where none has left a file', async () => {
  const path = mkdtempSync(join(tmpdir(), 'prometheus-'));
  try {
    const reader = new PrometheusReader({ path, python: '', env: {}, uid: null, gid: null }, {} as ErrorLog);
    for (let pid = 1; pid <= 1000; pid++) reader.ended(pid);
    assert.equal(await reader.read('prometheus'), '');
    assert.deepEqual(reader.takeDead(), []);
  } finally {
    rmSync(path, { recursive: true });
  }
});
