/** A client's connection: what all its requests share, and the order in which they run. */
import type { Server, Socket } from 'node:net';
import type { ConnectionFacts, RequestError } from './environ.ts';
import type { Exchange } from './exchange.ts';

export interface Pipelined {
  /** Of its head and of its body, as far as it has come. */
  bytes(): number;
  begin(): void;
}

export interface ClientConnection {
  readonly socket: Socket;
  /** It accepted this connection. When it no longer listens, the connection ends with its next answer. */
  readonly server: Server;
  readonly facts: ConnectionFacts;
  readonly remoteAddress: string;
  /** The request being served. */
  current: Exchange | null;
  /** Pipelined requests: each runs when the one before it has been answered. */
  pipelined: Pipelined[] | null;
  /** Since when nothing has been going on: `now` of clock.ts. */
  idleSince: number;
  /** What had been read of the socket then. */
  bytesRead: number;
  /** How far what was written had got when the client was last seen taking something, and when that was. */
  bytesTaken: number;
  takenAt: number;
  /** Of pieces of its answers, what it has not taken. */
  owedBytes: number;
  /** A first request has come. */
  used: boolean;
  /** What came behind its requests was not understood: the body of the last one may be cut off. */
  cutOff: RequestError | null;
  /** Its last answer has been given: what it sends on top is not served. */
  ending: boolean;
}
