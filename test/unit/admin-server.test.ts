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

test('who is refused keeps no connection', { timeout: 30_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nunicorn-admin-'));
  const path = join(folder, 'socket');
  const server = new AdminServer(`unix:${path}`, 's3cret', { metrics: {} } as AdminSource);
  await server.listen(SILENT_LOG);
  try {
    for (const [request, status] of [
      ['GET /livez HTTP/1.1\r\nHost: a\r\n\r\n', 401],
      ['POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n', 405],
    ] as const) {
      const socket = connect(path).setEncoding('latin1');
      let answer = '';
      socket.on('data', (text) => {
        answer += text;
      });
      socket.write(request);
      await once(socket, 'close');
      assert.match(answer, new RegExp(`^HTTP/1.1 ${status} `));
    }
  } finally {
    server.close();
    rmSync(folder, { recursive: true });
  }
});
