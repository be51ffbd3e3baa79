// The clients' side of a front, with servers that listen by themselves.
import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { type AddressInfo, connect } from 'node:net';
import { test } from 'node:test';
import { now } from '../../src/clock.ts';
import { type ClientHandler, ClientServer } from '../../src/front/client-server.ts';
import { FirstBytes } from '../../src/front/first-bytes.ts';
import type { FrontConfig } from '../../src/front/messages.ts';
import { nothing, SILENT_LOG } from '../helpers/silent-log.ts';

const CONFIG = {
  headerTimeoutMs: 1000,
  maxHeaderBytes: 16_384,
  forwardedAllowIps: [],
  tls: null,
  limits: {},
  policy: { secureSchemeHeaders: {}, forwarderHeaders: [] },
};
const HANDLER: ClientHandler = {
  requestRead: nothing,
  clientLeft: nothing,
  malformed: nothing,
  exchangeOver: nothing,
  connected: nothing,
  notUnderstood: nothing,
};
test('a client that comes while new settings are on their way has a time limit before HTTP begins', async () => {
  const config = CONFIG as unknown as FrontConfig;
  const newParts = () => ({
    tls: null,
    firstBytes: new FirstBytes(
      { proxyProtocol: 'auto', proxyAllowed: () => true, tls: false, limitMs: 1000 },
      SILENT_LOG,
    ),
  });
  const clients = new ClientServer(config, HANDLER, SILENT_LOG, newParts());
  const server = clients.createServer({ kind: 'tcp', host: '127.0.0.1', port: 0, path: '' });
  try {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    clients.reconfigure(config, newParts());
    clients.sweep(now()); // the servers of the new settings do not listen yet
    const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
    await once(server, 'connection');
    assert.equal(clients.isEmpty, false);
    const ended = once(client, 'close');
    clients.sweep(now() + 1001);
    await ended;
    assert.equal(clients.isEmpty, true);
  } finally {
    server.close();
  }
});
