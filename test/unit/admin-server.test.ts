import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { AdminServer, type AdminSource } from '../../src/metrics/admin-server.ts';
import { SILENT_LOG } from '../helpers/silent-log.ts';

test("connections beyond a hundred are closed: the descriptors are the master's", { timeout: 30_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nunicorn-admin-'));
  const path = join(folder, 'socket');
  const server = new AdminServer(`unix:${path}`, null, { metrics: {} } as AdminSource);
  await server.listen(SILENT_LOG);
  try {
    const open = Array.from({ length: 100 }, () => connect(path));
    await Promise.all(open.map((socket) => once(socket, 'connect')));
    const more = connect(path).resume();
    more.on('error', () => {});
    await once(more, 'close');
    assert.deepEqual(
      open.map((socket) => socket.destroyed),
      open.map(() => false),
    );
    for (const socket of open) socket.destroy();
  } finally {
    server.close();
    rmSync(folder, { recursive: true });
  }
});
