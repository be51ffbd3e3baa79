/**
 * A request and its response as the app sees them in a thread: the classes of node:http, without a connection. What they would
 * write to it is caught in two methods that they have had in every release (`_storeHeader`, `_send`), set on each response
 * itself because frameworks change its prototype.
 */
import { EventEmitter } from 'node:events';
import { createReadStream } from 'node:fs';
import { IncomingMessage, ServerResponse, validateHeaderName, validateHeaderValue } from 'node:http';
import type { Socket } from 'node:net';
import { getDefaultHighWaterMark } from 'node:stream';
import type { ThreadRequest } from './thread-messages.ts';

/** What the app asks of a connection. */
export class ThreadSocket extends EventEmitter {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly remoteFamily: string;
  readonly encrypted: boolean;
  readonly readable = true;
  writable = true;
  destroyed = false;
  // What node:http asks of a response's connection. It corks one that is not corked, for what is written in one turn.
  readonly writableCorked = 1;
  readonly writableLength = 0;
  readonly writableHighWaterMark = getDefaultHighWaterMark(false);
  readonly _writableState = { corked: 1, errored: null };
  private closeSaid = false;
  private readonly gone: () => void;

  /** `gone`: the app wants the connection closed. */
  constructor(given: ThreadRequest, gone: () => void) {
    super();
    const [, , , , , , , , , , remoteAddress, remotePort, encrypted] = given;
    this.remoteAddress = remoteAddress;
    this.remotePort = remotePort;
    this.remoteFamily = remoteAddress.includes(':') ? 'IPv6' : 'IPv4';
    this.encrypted = encrypted;
    this.gone = gone;
  }

  destroy(): this {
    if (this.destroyed) return this;
    this.destroyed = true;
    this.writable = false;
    this.gone();
    process.nextTick(() => this.closed());
    return this;
  }

  /** The connection is gone, whoever closed it. */
  closed(): void {
    if (this.closeSaid) return;
    this.closeSaid = true;
    this.emit('close');
  }

  destroySoon(): void {
    this.destroy();
  }

  /** Nothing gets to the client but through the response. */
  write(): boolean {
    this.destroy();
    return false;
  }

  end(): this {
    return this.destroy();
  }

  cork(): void {}
  uncork(): void {}

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
  pause(): this {
    return this;
  }
  resume(): this {
    return this;
  }
}

interface IncomingInternals {
  /** Somebody has begun to read the body. */
  _consumed: boolean;
  _dump(): void;
  _addHeaderLines(headers: readonly string[], count: number): void;
  _read(size: number): void;
  readonly _readableState: { readingMore: boolean };
}

/** A body that is still coming. Pieces wait here until the app reads; `taken` is told how much it has. */
export class OpenBody {
  private readonly request: IncomingMessage;
  private readonly taken: (bytes: number) => void;
  private readonly pieces: Buffer[] = [];
  private trailers: readonly string[] | null = null;
  private wanted = false;

  constructor(request: IncomingMessage, taken: (bytes: number) => void) {
    this.request = request;
    this.taken = taken;
    const internals = request as unknown as IncomingInternals;
    internals._read = () => {
      internals._consumed = true;
      internals._readableState.readingMore = false; // as IncomingMessage does: it begins as if it read already
      this.wanted = true;
      this.give();
    };
  }

  get isComing(): boolean {
    return !this.request.complete && !this.request.destroyed;
  }

  /** Whether the app reads it, and there is more to come. */
  get isRead(): boolean {
    const { request } = this;
    return this.isComing && (request.readableFlowing === true || request.listenerCount('readable') > 0);
  }

  add(piece: Buffer): void {
    this.pieces.push(piece);
    if (this.wanted) this.give();
  }

  end(trailers: readonly string[]): void {
    this.trailers = trailers;
    if (this.wanted) this.give();
  }

  private give(): void {
    const piece = this.pieces.shift();
    if (piece !== undefined) {
      this.wanted = false;
      this.request.push(piece);
      this.taken(piece.length);
    } else if (this.trailers !== null) {
      this.wanted = false;
      complete(this.request, this.trailers);
    }
  }
}

/** The request; its body is pushed, or read from its file. One that is open comes through OpenBody. */
export function toIncoming(given: ThreadRequest, socket: ThreadSocket): IncomingMessage {
  const request = new IncomingMessage(socket as unknown as Socket);
  const [, , method, url, minor, headers, trailers, body, bodyOpen, path] = given;
  request.method = method;
  request.url = url;
  request.httpVersionMajor = 1;
  request.httpVersionMinor = minor;
  request.httpVersion = minor === 0 ? '1.0' : '1.1';
  (request as unknown as IncomingInternals)._addHeaderLines(headers, headers.length);
  if (path !== null) {
    const file = createReadStream(path);
    const internals = request as unknown as IncomingInternals;
    internals._read = () => {
      internals._consumed = true;
      file.resume();
    };
    file.on('data', (piece) => {
      if (!request.push(piece)) file.pause();
    });
    file.on('end', () => complete(request, trailers));
    file.on('error', (error) => request.destroy(error));
    request.once('close', () => file.destroy());
    file.pause();
  } else if (!bodyOpen) {
    if (body !== null && body.length > 0) request.push(toBuffer(body));
    complete(request, trailers);
  }
  return request;
}

/** A text is latin-1. */
export function toBuffer(piece: Uint8Array | string): Buffer {
  return typeof piece === 'string' ? Buffer.from(piece, 'latin1') : Buffer.from(piece.buffer);
}

function complete(request: IncomingMessage, trailers: readonly string[]): void {
  request.complete = true;
  if (trailers.length > 0) (request as unknown as IncomingInternals)._addHeaderLines(trailers, trailers.length);
  request.push(null);
}

/** The answer is complete: a body that nobody has begun to read is thrown away, and `end` and `close` follow. */
export function dumpUnread(request: IncomingMessage): void {
  const internals = request as unknown as IncomingInternals;
  if (!internals._consumed && !request.destroyed) internals._dump();
}

/** The client has left before the app has read all: what node:http says then. */
export function abortRequest(request: IncomingMessage): void {
  request.destroy(Object.assign(new Error('aborted'), { code: 'ECONNRESET' }));
}

/** What becomes of a response. */
export interface ResponseSink {
  /** `pieces` are all; called once, instead of the following. `last`: the app wants the connection closed behind it. */
  whole(status: number, reason: string, headers: string[], last: boolean, pieces: readonly Piece[]): void;
  begin(status: number, reason: string, headers: string[], last: boolean): void;
  /** False: too much is under way; 'drain' is emitted when there is room. */
  piece(piece: Piece): boolean;
  end(trailers: readonly string[]): void;
  interim(text: string): void;
  /** The app has destroyed the response. */
  cut(): void;
}

export interface Piece {
  readonly data: string | Uint8Array;
  readonly encoding: BufferEncoding;
}

interface Internals {
  _header: string | null;
  _headerSent: boolean;
  _hasBody: boolean;
  _trailer: string;
  _closed: boolean;
  _contentLength: number | null;
  chunkedEncoding: boolean;
  finished: boolean;
  destroyed: boolean;
  statusMessage: string;
  _storeHeader(firstLine: string, headers: unknown): void;
  _send(data: string | Uint8Array, encoding?: unknown, callback?: unknown): boolean;
  _writeRaw(data: string | Uint8Array, encoding?: unknown, callback?: unknown): boolean;
}

const STATE = Symbol('response in a thread');

interface State {
  readonly sink: ResponseSink;
  /** The head, as it was when writeHead() was called or implied. */
  status: number;
  reason: string;
  headers: string[];
  /** The app has said `Connection: close`, or that the connection is not to be kept. */
  last: boolean;
  /** What was written before it was known whether more comes. */
  pieces: Piece[] | null;
  ending: boolean;
}

export type ThreadResponse = ServerResponse & Internals & { [STATE]: State };

export function newResponse(request: IncomingMessage, sink: ResponseSink): ThreadResponse {
  const response = new ServerResponse(request) as ThreadResponse;
  response[STATE] = { sink, status: 0, reason: '', headers: [], last: false, pieces: [], ending: false };
  response.shouldKeepAlive = true; // whether the client wants it kept is known to the server
  response._storeHeader = storeHeader;
  response._send = send;
  response._writeRaw = writeRaw;
  response.flushHeaders = flushHeaders;
  response.end = end as typeof response.end;
  response.destroy = destroy as typeof response.destroy;
  (response as { socket: Socket | null }).socket = request.socket;
  return response;
}

/** Its connection is closed: as node:http does then. */
export function abandon(response: ThreadResponse, socket: ThreadSocket): void {
  socket.closed();
  if (!response.destroyed) closed(response);
}

const destroyOfNode = ServerResponse.prototype.destroy;

function destroy(this: ThreadResponse, error?: Error): ThreadResponse {
  if (this.destroyed) return this;
  destroyOfNode.call(this, error);
  this[STATE].sink.cut();
  process.nextTick(() => {
    if (!this._closed) closed(this);
  });
  return this;
}

/** The client has taken what was sent. */
export function drained(response: ThreadResponse): void {
  const need = needDrain(response);
  if (need === undefined || response.finished) return;
  (response as unknown as Record<symbol, unknown>)[need] = false;
  response.emit('drain');
}

/** There is room again. Node keeps that a writer waits for it under a symbol of its own. */
function needDrain(response: ThreadResponse): symbol | undefined {
  return Object.getOwnPropertySymbols(response).find(
    (one) => one.description === 'kNeedDrain' && (response as unknown as Record<symbol, unknown>)[one] === true,
  );
}

function closed(response: ThreadResponse): void {
  response.destroyed = true;
  response._closed = true;
  (response as { socket: Socket | null }).socket = null; // the connection is the next request's
  response.emit('close');
}

/** Headers that concern one connection, or that the server sets. */
const CONNECTION = /^connection$/i;
const CLOSE = /(?:^|\W)close(?:$|\W)/i;
const OF_THE_SERVER = /^(?:connection|keep-alive|proxy-connection|transfer-encoding|date|server)$/i;

const { getHeaderNames } = ServerResponse.prototype;

function storeHeader(this: ThreadResponse, _firstLine: string, given: unknown): void {
  const state = this[STATE];
  const headers: string[] = [];
  let last = !this.shouldKeepAlive;
  const add = (name: string, value: unknown): void => {
    if (CONNECTION.test(name) && CLOSE.test(String(value))) last = true;
    if (OF_THE_SERVER.test(name)) return;
    for (const one of Array.isArray(value) ? value : [value]) headers.push(name, String(one));
  };
  const check = (name: string, value: unknown): void => {
    validateHeaderName(name);
    for (const one of Array.isArray(value) ? value : [value]) validateHeaderValue(name, one as string);
    add(name, value);
  };
  if (Array.isArray(given)) {
    if (Array.isArray(given[0])) for (const [name, value] of given) check(String(name), value);
    else for (let at = 0; at + 1 < given.length; at += 2) check(String(given[at]), given[at + 1]);
  } else if (given !== null && typeof given === 'object') {
    // The table of setHeader(), which has checked them, holds a pair for each name, an object given to writeHead() the values. If
    // there is a table, node:http has put such an object into it.
    const isTable = Object.getPrototypeOf(given) === null && getHeaderNames.call(this).length > 0;
    for (const [name, value] of Object.entries(given)) {
      if (isTable && Array.isArray(value) && value.length === 2) add(String(value[0]), value[1]);
      else check(name, value);
    }
  }
  const length = headerOf(headers, 'content-length');
  if (length !== undefined) this._contentLength = Number(length); // for strictContentLength
  if (length !== undefined && has(headers, 'trailer')) {
    throw Object.assign(new Error('Trailers are invalid with this transfer encoding'), {
      code: 'ERR_HTTP_TRAILER_INVALID',
    });
  }
  state.status = this.statusCode;
  state.reason = this.statusMessage;
  state.headers = headers;
  state.last = last;
  // node:http takes both for "the head is known".
  this._header = 'known';
  this.chunkedEncoding = false;
}

export function has(headers: readonly string[], name: string): boolean {
  return headerOf(headers, name) !== undefined;
}

function headerOf(headers: readonly string[], name: string): string | undefined {
  for (let at = 0; at < headers.length; at += 2) if (headers[at]?.toLowerCase() === name) return headers[at + 1];
  return undefined;
}

function send(this: ThreadResponse, data: string | Uint8Array, encoding?: unknown, callback?: unknown): boolean {
  const state = this[STATE];
  this._headerSent = true;
  const done = typeof encoding === 'function' ? encoding : callback;
  if (typeof done === 'function') process.nextTick(done);
  if (this.destroyed) return false;
  if (data.length === 0) return true;
  const piece: Piece = { data, encoding: typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8' };
  if (state.ending && state.pieces !== null) {
    state.pieces.push(piece);
    return true;
  }
  begin(this);
  return state.sink.piece(piece);
}

/** The head leaves: more will follow. */
function begin(response: ThreadResponse): void {
  const state = response[STATE];
  if (state.pieces === null) return;
  state.pieces = null;
  state.sink.begin(state.status, state.reason, state.headers, state.last);
}

function flushHeaders(this: ThreadResponse): void {
  if (this._header === null) this.writeHead(this.statusCode);
  begin(this);
}

/** Informational answers: writeContinue(), writeEarlyHints(). */
function writeRaw(this: ThreadResponse, data: string | Uint8Array, encoding?: unknown, callback?: unknown): boolean {
  const done = typeof encoding === 'function' ? encoding : callback;
  if (typeof done === 'function') process.nextTick(done);
  this[STATE].sink.interim(typeof data === 'string' ? data : Buffer.from(data).toString('latin1'));
  return true;
}

const endOfNode = ServerResponse.prototype.end as unknown as (this: ServerResponse, ...args: unknown[]) => unknown;

function end(this: ThreadResponse, ...args: unknown[]): ThreadResponse {
  if (this.finished) {
    endOfNode.apply(this, args);
    return this;
  }
  const state = this[STATE];
  state.ending = true;
  endOfNode.apply(this, args);
  if (this.destroyed) return this;
  const trailers = trailersOf(this._trailer);
  if (state.pieces !== null && trailers.length === 0) {
    state.sink.whole(state.status, state.reason, state.headers, state.last, state.pieces);
  } else {
    const rest = state.pieces ?? [];
    begin(this);
    for (const piece of rest) state.sink.piece(piece);
    state.sink.end(trailers);
  }
  process.nextTick(closed, this);
  return this;
}

/** `Name: value` lines, as addTrailers() leaves them. */
function trailersOf(text: string | undefined): string[] {
  if (!text) return [];
  return text
    .split('\r\n')
    .filter((line) => line !== '')
    .flatMap((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]);
}
