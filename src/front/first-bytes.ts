/**
 * What comes before HTTP on a connection: the header of the PROXY protocol, and with TLS the handshake. Loaded only where one
 * of them is configured. A connection is here from its beginning until HTTP begins.
 */
import type { Server, Socket } from 'node:net';
import { now } from '../clock.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { ProxyProtocol } from '../settings/types.ts';
import { rawErrorAnswer } from './error-page.ts';
import { type ProxyHeader, readProxyHeader } from './proxy-protocol.ts';
import type { TrustCheck } from './trusted-peers.ts';

export interface FirstBytesOptions {
  readonly proxyProtocol: ProxyProtocol;
  /** Who may send a header of the PROXY protocol. */
  readonly proxyAllowed: TrustCheck;
  readonly tls: boolean;
  /** For all that comes before HTTP; 0 is none. */
  readonly limitMs: number;
}

/** The first byte of a TLS handshake record (RFC 8446, 5.1). */
const TLS_HANDSHAKE = 0x16;

export class FirstBytes {
  private readonly options: FirstBytesOptions;
  private readonly log: ErrorLog;
  /** Connections that have not come to HTTP, and since when. */
  private readonly waiting = new Map<Socket, number>();
  private readonly headers = new WeakMap<Socket, ProxyHeader>();

  constructor(options: FirstBytesOptions, log: ErrorLog) {
    this.options = options;
    this.log = log;
  }

  get isEmpty(): boolean {
    return this.waiting.size === 0;
  }

  /** Connections that have not come to HTTP. */
  get size(): number {
    return this.waiting.size;
  }

  /** Puts itself before what listens for the connections of `server` now. Those that `isUnwanted` are closed. */
  guard(server: Server, isUnwanted: (socket: Socket) => boolean): void {
    const listeners = server.listeners('connection');
    server.removeAllListeners('connection');
    server.on('connection', (socket: Socket) => {
      if (isUnwanted(socket)) {
        socket.destroy();
        return;
      }
      this.read(socket, () => {
        for (const listener of listeners) listener.call(server, socket);
      });
    });
  }

  /** HTTP begins on this connection. Returns what its proxy said. */
  httpBegins(socket: Socket): ProxyHeader | undefined {
    const raw = rawSocket(socket);
    this.waiting.delete(raw);
    return this.headers.get(raw);
  }

  /** Ends connections that have been here for longer than their limit; those that have nothing more to say, than `idleMs`. */
  sweep(time: number, idleMs: number): void {
    const limitMs = this.options.limitMs || Number.POSITIVE_INFINITY;
    for (const [socket, since] of this.waiting) {
      const isIdle = socket.bytesRead === 0 || socket.writableEnded;
      if (time - since >= (isIdle ? Math.min(idleMs, limitMs) : limitMs)) socket.destroy();
    }
  }

  destroyAll(): void {
    for (const socket of this.waiting.keys()) socket.destroy();
  }

  private read(socket: Socket, pass: () => void): void {
    const { proxyProtocol, tls } = this.options;
    let bytes: Buffer = Buffer.alloc(0);
    let headerAwaited = proxyProtocol !== 'off';
    this.waiting.set(socket, now());
    const onData = (piece: Buffer): void => {
      bytes = bytes.length === 0 ? piece : Buffer.concat([bytes, piece]);
      if (headerAwaited) {
        const reading = readProxyHeader(bytes, proxyProtocol);
        if (reading.state === 'incomplete') return;
        if (reading.state !== 'absent' && !this.options.proxyAllowed(socket.remoteAddress)) {
          refuse(403, 'Request forbidden', 'a PROXY header from an address that is not in proxy_allow_ips');
          return;
        }
        if (reading.state === 'invalid') {
          refuse(400, reading.message, reading.message);
          return;
        }
        if (reading.state === 'present') {
          this.headers.set(socket, reading.header);
          bytes = bytes.subarray(reading.bytes);
        }
        headerAwaited = false;
      }
      if (tls && bytes.length === 0) return;
      if (tls && bytes[0] !== TLS_HANDSHAKE) {
        refuse(400, 'This address speaks HTTPS only', 'no TLS at an address that speaks HTTPS only');
        return;
      }
      leave();
      // Whoever listens next begins to read again.
      socket.pause();
      if (bytes.length > 0) socket.unshift(bytes);
      if (!tls) this.waiting.delete(socket);
      pass();
      if (!tls) socket.resume();
    };
    const onEnd = (): void => {
      socket.destroy();
    };
    const leave = (): void => {
      socket.off('data', onData);
      socket.off('end', onEnd);
      socket.off('error', onEnd);
    };
    const refuse = (status: number, answer: string, why: string): void => {
      this.log.warning(`Invalid request from ip=${socket.remoteAddress ?? ''}: ${why}`);
      socket.off('data', onData);
      // What still comes is read until the peer or the time limit ends it, lest a reset overtake the answer.
      socket.resume();
      socket.end(rawErrorAnswer(status, answer));
    };
    socket.on('data', onData);
    socket.on('end', onEnd);
    socket.on('error', onEnd);
    socket.once('close', () => this.waiting.delete(socket));
  }
}

/** The socket under a TLS socket; `_parent` has been its name since Node 0.12. */
function rawSocket(socket: Socket): Socket {
  return (socket as Socket & { readonly _parent?: Socket | null })._parent ?? socket;
}
