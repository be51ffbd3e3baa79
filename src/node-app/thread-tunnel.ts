/** A connection that the app takes over (WebSocket), as its thread sees it. See tunnel.ts for the other end. */
import { Duplex } from 'node:stream';
import type { ThreadSocket } from './thread-request.ts';

/** What the client has not taken; with more the app is held back. */
const UNTAKEN_BYTES = 64 * 1024;

export interface TunnelSink {
  data(piece: Buffer): void;
  /** The app has taken so many bytes of what the client sent. */
  taken(bytes: number): void;
  end(): void;
  /** The app closes the connection. */
  cut(): void;
}

type Done = (error?: Error | null) => void;

export class TunnelSocket extends Duplex {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly remoteFamily: string;
  readonly encrypted: boolean;
  private readonly sink: TunnelSink;
  private readonly pieces: Buffer[] = [];
  private clientEnded = false;
  private clientLeft = false;
  private wanted = false;
  private untaken = 0;
  private held: Done | null = null;

  constructor({ remoteAddress, remotePort, remoteFamily, encrypted }: ThreadSocket, sink: TunnelSink) {
    super();
    this.remoteAddress = remoteAddress;
    this.remotePort = remotePort;
    this.remoteFamily = remoteFamily;
    this.encrypted = encrypted;
    this.sink = sink;
  }

  // ---- what the client does

  add(piece: Buffer): void {
    this.pieces.push(piece);
    if (this.wanted) this.give();
  }

  clientEnds(): void {
    this.clientEnded = true;
    if (this.wanted) this.give();
  }

  clientLeaves(): void {
    this.clientLeft = true;
    this.destroy();
  }

  taken(bytes: number): void {
    this.untaken -= bytes;
    const { held } = this;
    if (held === null || this.untaken >= UNTAKEN_BYTES) return;
    this.held = null;
    held();
  }

  // ---- what the app does

  override _read(): void {
    this.wanted = true;
    this.give();
  }

  override _write(piece: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.untaken += piece.length;
    this.sink.data(piece);
    if (this.untaken < UNTAKEN_BYTES) done();
    else this.held = done;
  }

  override _final(done: Done): void {
    this.sink.end();
    done();
  }

  override _destroy(error: Error | null, done: Done): void {
    if (!this.clientLeft) this.sink.cut();
    done(error);
  }

  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', this.destroy);
  }

  // What concerns the connection itself is the business of the worker's main thread.
  setTimeout(): this {
    return this;
  }
  setNoDelay(): this {
    return this;
  }
  setKeepAlive(): this {
    return this;
  }
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }

  private give(): void {
    const piece = this.pieces.shift();
    if (piece !== undefined) {
      this.wanted = false;
      this.push(piece);
      this.sink.taken(piece.length);
    } else if (this.clientEnded) {
      this.wanted = false;
      this.push(null);
    }
  }
}
