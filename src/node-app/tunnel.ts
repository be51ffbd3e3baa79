/**
 * A connection that the app has taken over on its thread (WebSocket): its bytes pass between the client and the thread as they
 * are, and whoever is faster is held back.
 */
import type { Socket } from 'node:net';
import type { AppThread } from './app-thread.ts';
import { type ThreadAnswer, toWire } from './thread-messages.ts';

/** What has been sent to the thread and was not taken by the app; with more the client is held back. */
const WINDOW_BYTES = 256 * 1024;
/** What the client has not read when the app closes the connection, it can still read for so long. */
const LINGER_MS = 1000;

export class Tunnel {
  readonly thread: AppThread;
  private readonly id: number;
  private readonly socket: Socket;
  private untaken = 0;

  /** `closed`: the client is gone. */
  constructor(id: number, socket: Socket, thread: AppThread, closed: () => void) {
    this.id = id;
    this.socket = socket;
    this.thread = thread;
    socket.on('data', (piece: Buffer) => {
      this.untaken += piece.length;
      thread.sendPiece(id, piece);
      if (this.untaken >= WINDOW_BYTES) socket.pause();
    });
    socket.on('end', () => thread.say({ op: 'body-end', id, trailers: [] }));
    socket.on('close', () => {
      thread.say({ op: 'cancel', id, why: null });
      closed();
    });
  }

  /** What the thread says of it: `data`, `taken`, `end` and `cut`, as of a request. */
  said(answer: ThreadAnswer): void {
    const { socket, thread, id } = this;
    const [kind] = answer;
    if (kind === 'data') {
      const data = answer[2];
      socket.write(toWire(data), 'latin1', () => thread.say({ op: 'taken', id, bytes: data.length }));
    } else if (kind === 'taken') {
      this.untaken -= answer[2];
      if (this.untaken < WINDOW_BYTES) socket.resume();
    } else if (kind === 'end') socket.end();
    else if (kind === 'cut') this.close();
  }

  close(): void {
    const { socket } = this;
    if (socket.writableLength === 0) {
      socket.destroy();
      return;
    }
    socket.destroySoon();
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
  }
}
