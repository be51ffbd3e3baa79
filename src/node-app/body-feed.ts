/** The rest of a request's body on its way from the client to the thread that runs the request: never more of it than a window. */
import { now } from '../clock.ts';
import type { Exchange } from '../front/exchange.ts';
import type { AppThread } from './app-thread.ts';

/** What has been sent to the thread and was not taken by the app; with more the client is held back. */
const WINDOW_BYTES = 256 * 1024;

export interface BodyFeedHandler {
  /** The body is larger than its limit. */
  tooLarge(exchange: Exchange): void;
  /** The thread has all of it. */
  fed(exchange: Exchange): void;
}

export class BodyFeed {
  readonly exchange: Exchange;
  /** When the client has sent a piece last. */
  movedAt = 0;
  private readonly thread: AppThread;
  private readonly limit: number;
  private readonly handler: BodyFeedHandler;
  private bytes: number;
  private untaken: number;
  private begun = false;
  private held = true;
  /** The body goes nowhere any more. Called at its end. */
  private dropped: (() => void) | null = null;

  /** `limit`: of the whole body in bytes, 0 is none. */
  constructor(exchange: Exchange, thread: AppThread, limit: number, handler: BodyFeedHandler) {
    this.exchange = exchange;
    this.thread = thread;
    this.limit = limit;
    this.handler = handler;
    this.bytes = exchange.body?.length ?? 0;
    this.untaken = this.bytes;
  }

  /** The app has taken all that has come, and waits for more. */
  get starves(): boolean {
    return this.begun && this.untaken === 0;
  }

  /** The client is waited for. */
  get waits(): boolean {
    return !this.held;
  }

  /** The app has taken so many bytes: so it has begun, and the request will never run elsewhere. */
  taken(bytes: number): void {
    this.untaken -= bytes;
    if (this.dropped !== null) return;
    if (!this.begun) {
      this.begun = true;
      this.exchange.request.on('data', this.came);
      this.exchange.request.on('end', this.ended);
    }
    if (this.held && this.untaken < WINDOW_BYTES) this.goOn();
  }

  /** Nobody wants the rest: it is read and thrown away, then `end` is called. */
  drop(end: () => void): void {
    this.stop();
    this.dropped = end;
    const { request } = this.exchange;
    request.on('data', this.came);
    request.on('end', end);
    this.goOn();
  }

  /** Has nothing to do with the request any more. */
  stop(): void {
    this.exchange.request.off('data', this.came);
    this.exchange.request.off('end', this.ended);
  }

  private goOn(): void {
    this.held = false;
    this.movedAt = now();
    this.exchange.request.resume();
  }

  private readonly came = (piece: Buffer): void => {
    const { exchange, thread } = this;
    this.movedAt = now();
    if (this.dropped !== null) return;
    this.bytes += piece.length;
    if (this.limit > 0 && this.bytes > this.limit) {
      this.handler.tooLarge(exchange);
      return;
    }
    // Until now the app has waited for the client; from now on its own time counts.
    if (this.untaken === 0) exchange.pieceAt = this.movedAt;
    this.untaken += piece.length;
    thread.sendPiece(exchange.id, piece);
    if (this.untaken < WINDOW_BYTES) return;
    this.held = true;
    exchange.request.pause();
  };

  private readonly ended = (): void => {
    const { exchange, thread } = this;
    this.stop();
    exchange.bodyOpen = false;
    exchange.pieceAt = now();
    thread.say({ op: 'body-end', id: exchange.id, trailers: exchange.request.rawTrailers });
    this.handler.fed(exchange);
  };
}
