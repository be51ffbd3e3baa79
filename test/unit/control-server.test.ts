import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { ControlServer } from '../../src/master/control-server.ts';
import { until } from '../helpers/deadline.ts';

const TOKEN = 'a'.repeat(32);

let folder = '';
let server: ControlServer;
let heard: unknown[] = [];
const sockets: Socket[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nunicorn-control-'));
  const own: unknown[] = [];
  heard = own;
  server = new ControlServer(join(folder, 'control.sock'), TOKEN, {
    called: (serial, pid) => own.push(['called', serial, pid]),
    said: (serial, message) => own.push([serial, message]),
    hungUp: (serial) => own.push(['hungUp', serial]),
  });
  await server.listen(null);
});
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  server.close();
  rmSync(folder, { recursive: true });
});

/** A connection that has sent `text`. */
function call(text: string): Socket {
  const socket = connect(join(folder, 'control.sock'));
  socket.on('error', () => {});
  sockets.push(socket);
  socket.write(text);
  return socket;
}

/** Resolves when the other side has ended it. */
function closed(socket: Socket): Promise<unknown> {
  return new Promise((resolve) => socket.resume().on('close', resolve));
}

const greeting = (serial: unknown, pid: unknown = 7): string => `${JSON.stringify({ token: TOKEN, serial, pid })}\n`;

test('what has not the shape of a message is not heard', async () => {
  const bad: unknown[] = [
    null,
    7,
    [],
    {},
    { op: 'no such' },
    { op: 'toString' },
    { op: 'files' },
    { op: 'files', files: null },
    { op: 'files', files: { '/a': 'b' } },
    { op: 'threads', ids: [1], gil: 'zz' },
    { op: 'threads', ids: ['../../1'], gil: null },
    { op: 'metrics', metrics: [null] },
    { op: 'metrics', metrics: [{ name: 'a', kind: 'gauge', help: '', labels: [] }] },
    { op: 'metrics', metrics: [{ name: 'a', kind: 'gauge', help: '', labels: [], series: [['a', 1]] }] },
    { op: 'metrics', metrics: [{ name: 'nunicorn_up', kind: 'gauge', help: '', labels: [], series: [] }] },
    { op: 'metrics', metrics: [{ name: 'a 1\nb', kind: 'gauge', help: '', labels: [], series: [] }] },
    { op: 'stacks' },
    { op: 'forked', serial: 1, pid: '7' },
    { op: 'exited', pid: 7, code: 'x', signal: null },
  ];
  const good: readonly unknown[] = [
    { op: 'files', files: { '/a': 1 } },
    { op: 'threads', ids: [7, 8], gil: '0x7f00' },
    { op: 'threads', ids: [7], gil: null },
    {
      op: 'metrics',
      metrics: [
        { name: 'a', kind: 'gauge', help: '', labels: ['b'], series: [[['c'], 1]], across: 'max' },
        { name: 'h', kind: 'histogram', help: '', labels: [], series: [[[], [0, 1, 2.5]]], buckets: [0.5] },
      ],
    },
    { op: 'exited', pid: 7, code: null, signal: 'SIGKILL' },
    { op: 'hooked', code: null },
    { op: 'pong' },
  ];
  const lines = [...bad, ...good].map((one) => JSON.stringify(one));
  call(`${greeting(1)}${lines.join('\n')}\nno JSON\n{"op":"ready"}\n`);
  await until(() => heard.length >= good.length + 2, 'the last message');
  assert.deepEqual(heard, [['called', 1, 7], ...good.map((one) => [1, one]), [1, { op: 'ready' }]]);
});

test('nobody is heard in the place of a process that is connected', async () => {
  const first = call(greeting(1));
  await until(() => heard.length === 1, 'the first call');
  await closed(call(`${greeting(1, 8)}{"op":"ready"}\n`));
  assert.deepEqual(heard, [['called', 1, 7]]);
  first.end();
  await until(() => heard.length === 2, 'its end');
  assert.deepEqual(heard[1], ['hungUp', 1]);
});

test('a greeting whose numbers are none is refused', async () => {
  for (const text of [greeting('1'), greeting(1, '7'), greeting(1.5), greeting(null)]) await closed(call(text));
  assert.deepEqual(heard, []);
});

test('a line without an end is not kept for ever', async () => {
  const socket = call(greeting(1));
  const end = closed(socket);
  const piece = 'x'.repeat(1024 * 1024);
  let sent = 0;
  const more = (): void => {
    while (!socket.destroyed && sent++ < 80) if (!socket.write(piece)) return;
  };
  socket.on('drain', more);
  more();
  await end;
  assert(sent < 80);
});
