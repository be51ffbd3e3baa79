import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { connect, Server } from 'node:net';
import { it } from 'node:test';
import { cannotListenAfterBind } from '../../src/listen-failure.ts';
import { attachHandle, bindTcp } from '../../src/listening-handle.ts';

it('of two sockets bound to an address the one that listens first has it, and the other one says so', async () => {
  const first = new Server((socket) => socket.end());
  const handle = bindTcp('127.0.0.1', 0);
  const name: { port?: number } = {};
  handle.getsockname?.(name);
  const { port = 0 } = name;
  const other = bindTcp('127.0.0.1', port); // not in use: nobody listens there yet
  await new Promise<void>((done) => attachHandle(first, handle, 10, done, assert.fail));
  const second = new Server();
  const code = await new Promise<string>((failed) => attachHandle(second, other, 10, assert.fail, failed));
  const { message } = cannotListenAfterBind(code, { kind: 'tcp', host: '127.0.0.1', port, path: '' });
  assert.match(message, new RegExp(`^Can't listen at 127\\.0\\.0\\.1:${port}: another process listens there`));
  const client = connect(port, '127.0.0.1').resume();
  await once(client, 'end');
  first.close();
});
