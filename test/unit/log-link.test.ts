// The way to the log process: nothing waits for it, and what it does not take is counted.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { LogLink } from '../../src/log/log-link.ts';

test('lines for a process that does not read are dropped, and their number is told when it reads again', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'log-link-'));
  const socketPath = join(folder, 'log.sock');
  let accepted: (socket: Socket) => void = () => {};
  const connected = new Promise<Socket>((resolve) => {
    accepted = resolve;
  });
  const server = createServer((socket) => {
    socket.pause();
    accepted(socket);
  });
  await new Promise<void>((done) => server.listen(socketPath, done));
  const link = new LogLink({ socketPath, token: 'secret' });
  const socket = await connected;
  const sent = 3000;
  for (let at = 0; at < sent; at++) link.line('info', `${at} ${'x'.repeat(10_000)}`);

  let text = '';
  socket.setEncoding('utf8');
  socket.on('data', (data: string) => {
    text += data;
  });
  socket.resume();
  const until = async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      link.line('info', 'still there');
      const match = pattern.exec(text);
      if (match) return match;
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const [, dropped] = await until(/"message":"(\d+) lines of the logs were dropped/);
  await link.close();
  const lines = text.trimEnd().split('\n');
  assert.equal(lines[0], 'secret');
  const arrived = lines.filter((line) => /"message":"\d+ x/.test(line)).length;
  assert.ok(arrived < sent, 'the queue is bounded');
  assert.ok(arrived + Number(dropped) >= sent, `${arrived} + ${dropped}`);
  server.close();
  rmSync(folder, { recursive: true });
});
