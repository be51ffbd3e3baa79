/** A server of the app's own whose clients come to it by another way than a listening socket. */
import type { Server as HttpServer } from 'node:http';
import type { ListenerFacts } from '../front/messages.ts';

/** It counts as listening, and close() works as ever. */
export function seemToListen(server: HttpServer, [where]: readonly ListenerFacts[]): void {
  Object.assign(server, { _handle: { close: nothing, ref: nothing, unref: nothing } });
  server.address = () =>
    where?.kind === 'tcp'
      ? { address: where.host, port: where.port, family: where.host.includes(':') ? 'IPv6' : 'IPv4' }
      : (where?.path ?? null);
  server.emit('listening');
}

/** Its app, which it hands requests to, is exported and served already; or it is what is served. */
export function listensLater(server: HttpServer, listeners: readonly ListenerFacts[], isServed: boolean): void {
  process.nextTick(() => {
    if (server.listening) server.emit('listening');
    else if (!isServed) seemToListen(server, listeners);
  });
}

function nothing(): void {}
