/** Start of a thread that runs the app: under gthread one request at a time, under async any number. */

import { AsyncResource } from 'node:async_hooks';
import diagnostics from 'node:diagnostics_channel';
import { readlinkSync } from 'node:fs';
import { createServer, type Server as HttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { basename } from 'node:path';
import { workerData } from 'node:worker_threads';
import { EXIT, NunicornError } from '../errors.ts';
import { headBlock } from '../front/head-block.ts';
import type { WorkerHooks } from '../hooks/worker-hooks.ts';
import { openErrorLog } from '../log/error-log.ts';
import { REQUEST_HOOKS } from '../settings/hook-names.ts';
import { appStack, bootStack } from './app-stack.ts';
import { provideChdir } from './chdir.ts';
import { hearUncaught, Lifecycle } from './lifecycle.ts';
import { loadApp, type RequestListener } from './load.ts';
import { READY } from './messages.ts';
import { listensLater, seemToListen } from './own-server.ts';
import { abortSignal, provideSignal } from './signal.ts';
import {
  BEGUN,
  FREE,
  type FromThread,
  requestsAtATime,
  SENT,
  type ThreadAnswer,
  type ThreadData,
  type ThreadRequest,
  type ToThread,
} from './thread-messages.ts';
import {
  abandon,
  abortRequest,
  drained,
  dumpUnread,
  has,
  newResponse,
  OpenBody,
  type Piece,
  type ResponseSink,
  type ThreadResponse,
  ThreadSocket,
  toBuffer,
  toIncoming,
} from './thread-request.ts';
import { TunnelSocket } from './thread-tunnel.ts';

/** Pieces of an answer that the client has not taken; with more the app is held back. */
const UNTAKEN_BYTES = 64 * 1024;
/** Up to here a body travels as text. */
const TEXT_BYTES = 16 * 1024;

const STATUS_LINE = /^HTTP\/1\.\d (\d{3})/;
const STATUS_LINE_BYTES = 12;
const NOTHING = Buffer.alloc(0);

const { config, number, cells: shared, port } = workerData as ThreadData;
const cells = new Int32Array(shared);
const log = await openErrorLog(config.front.errorLog);
const queue: ThreadRequest[] = [];
let answers: ThreadAnswer[] = [];
let transfer: ArrayBuffer[] = [];
const atATime = requestsAtATime(config);
const running = new Map<number, Running>();
/** Connections that the app has taken over, by the request's id. */
const tunnels = new Map<number, TunnelSocket>();
/** No request runs in the async context of the one before, where AsyncLocalStorage would find its store. */
const outside = new AsyncResource('nunicorn');
let pumping = false;
let listener: RequestListener = (_, response) => response.end();
/** The app's own, if it has one. */
let server: HttpServer | null = null;

function tell(message: Exclude<FromThread, readonly ThreadAnswer[]>): void {
  port.postMessage(message);
}

/** One request from its beginning to the end of its answer. */
class Running implements ResponseSink {
  readonly id: number;
  readonly request: IncomingMessage;
  readonly response: ThreadResponse;
  /** Null: the body has come whole. */
  readonly body: OpenBody | null;
  private readonly socket: ThreadSocket;
  private readonly startedAt = performance.now();
  private readonly isHead: boolean;
  private begun = false;
  private untaken = 0;
  private over = false;

  constructor(given: ThreadRequest) {
    const [id, , method, , , , , body, bodyOpen] = given;
    this.id = id;
    this.isHead = method === 'HEAD';
    this.socket = new ThreadSocket(given, () => this.cut());
    this.request = toIncoming(given, this.socket);
    this.response = newResponse(this.request, this);
    this.body = bodyOpen ? new OpenBody(this.request, (bytes) => this.bodyTaken(bytes)) : null;
    if (this.body !== null && body !== null) this.body.add(toBuffer(body));
  }

  whole(status: number, reason: string, headers: string[], last: boolean, pieces: readonly Piece[]): void {
    if (this.over) return;
    const body = join(pieces);
    const bodyless = this.isHead || status === 204 || status === 304;
    if (!bodyless && !has(headers, 'content-length')) headers.push('Content-Length', String(body.length));
    if (this.body?.isComing) {
      this.begin(status, reason, headers, last);
      this.send(body);
      this.end([]);
      return;
    }
    answers.push(['answer', this.id, status, headBlock(reason, headers), last, body, this.appUs()]);
    this.finish();
  }

  begin(status: number, reason: string, headers: string[], last: boolean): void {
    if (this.over) return;
    this.begun = true;
    this.say(['head', this.id, status, headBlock(reason, headers), last]);
  }

  piece(piece: Piece): boolean {
    if (this.over) return false;
    this.send(join([piece]));
    return this.untaken < UNTAKEN_BYTES;
  }

  end(trailers: readonly string[]): void {
    if (this.over) return;
    // The app may go on reading after its answer, or begin to, as with node:http. Only then the thread is free.
    if (this.body?.isComing) process.nextTick(() => this.endAfterBody(trailers));
    else this.ended(trailers);
  }

  interim(text: string): void {
    if (this.over) return;
    this.say(['interim', this.id, text]);
  }

  taken(bytes: number): void {
    const before = this.untaken;
    this.untaken -= bytes;
    if (before >= UNTAKEN_BYTES && this.untaken < UNTAKEN_BYTES) drained(this.response);
  }

  /** The listener threw, or its promise was rejected. */
  failed(error: unknown): void {
    const stack = appStack(error);
    if (this.over) log.error(`Error after the answer to ${this.request.method} ${this.request.url}\n${stack}`);
    else if (this.begun) {
      log.error(`Error handling request ${this.request.method} ${this.request.url}\n${stack}`);
      this.cut();
    } else {
      answers.push(['error', this.id, this.appUs(), stack]);
      this.finish();
      abandon(this.response, this.socket);
      closeTunnel(this.id);
    }
  }

  /** The app takes over the connection, if it wants to: what it writes there first is its answer. */
  upgrade(to: HttpServer): void {
    const { id, request } = this;
    const tunnel = new TunnelSocket(this.socket, {
      data: (piece) => {
        if (!this.over) this.upgraded(piece);
        this.say(['data', id, join([{ data: piece, encoding: 'latin1' }])]);
      },
      taken: (bytes) => this.say(['taken', id, bytes]),
      end: () => {
        if (!this.over) this.cut();
        else this.say(['end', id, 0, []]);
      },
      cut: () => {
        tunnels.delete(id);
        if (!this.over) this.cut();
        else this.say(['cut', id, 0]);
      },
    });
    tunnels.set(id, tunnel);
    (request as { socket: unknown }).socket = tunnel;
    to.emit('upgrade', request, tunnel, NOTHING);
  }

  /** The app destroys the connection. */
  cut(): void {
    if (this.over) return;
    answers.push(['cut', this.id, this.appUs()]);
    this.finish();
    this.abort();
    abandon(this.response, this.socket);
  }

  /** The client has left, or its time is up: as with node:http the app hears of it, and what it still sends goes nowhere. */
  cancel(why: string | null): void {
    if (this.over) return;
    answers.push(['cut', this.id, this.appUs()]);
    this.finish();
    this.abort();
    abandon(this.response, this.socket);
    abortSignal(this.request, why === null ? undefined : new DOMException(why, 'TimeoutError'));
  }

  private abort(): void {
    this.socket.destroyed = true;
    this.socket.writable = false;
    abortRequest(this.request);
  }

  private endAfterBody(trailers: readonly string[]): void {
    if (!this.body?.isRead) {
      this.ended(trailers);
      return;
    }
    const readAll = (): void => this.ended(trailers);
    this.request.once('end', readAll);
    this.request.once('close', readAll);
  }

  private ended(trailers: readonly string[]): void {
    if (this.over) return;
    this.say(['end', this.id, this.appUs(), trailers]);
    this.finish();
  }

  private upgraded(first: Buffer): void {
    const [, status = '0'] = STATUS_LINE.exec(first.toString('latin1', 0, STATUS_LINE_BYTES)) ?? [];
    this.say(['upgraded', this.id, Number(status), this.appUs()]);
    this.finish();
  }

  private send(data: string | Uint8Array): void {
    this.untaken += data.length;
    this.say(['data', this.id, data]);
  }

  private bodyTaken(bytes: number): void {
    if (!this.over) this.say(['taken', this.id, bytes]);
  }

  private say(answer: ThreadAnswer): void {
    answers.push(answer);
    this.soon();
  }

  private appUs(): number {
    return Math.round((performance.now() - this.startedAt) * 1000);
  }

  /** What is not sent by the loop below leaves at the end of the present callback. */
  private soon(): void {
    if (!pumping && answers.length === 1) process.nextTick(flush);
  }

  private finish(): void {
    this.over = true;
    // Whoever comes to read the rest later is told that it is gone.
    if (this.body !== null && !this.request.complete) this.abort();
    else process.nextTick(dumpUnread, this.request);
    running.delete(this.id);
    // Not at once: the app's own code after its end() comes first.
    if (!pumping) process.nextTick(pump);
  }
}

function run(given: ThreadRequest): void {
  const one = new Running(given);
  running.set(one.id, one);
  try {
    if (server !== null && atATime > 1 && isUpgrade(one.request, server)) {
      one.upgrade(server);
      return;
    }
    const result = listener(one.request, one.response);
    if (result instanceof Promise) result.catch((error: unknown) => one.failed(error));
  } catch (error) {
    one.failed(error);
  }
}

/** The client of a connection that the app has taken over, or was about to, is gone. */
function closeTunnel(id: number): void {
  tunnels.get(id)?.clientLeaves();
  tunnels.delete(id);
}

/** Runs what there is to run, until as many requests as may have not ended at once. */
function pump(): void {
  pumping = true;
  while (running.size < atATime) {
    const next = queue.shift();
    if (next === undefined) break;
    const [, cell] = next;
    if (Atomics.compareExchange(cells, cell, SENT, BEGUN) === SENT) {
      // What is answered does not wait for the next request, which may take long.
      flush();
      outside.runInAsyncScope(run, null, next);
    } else Atomics.store(cells, cell, FREE); // taken back
  }
  pumping = false;
  flush();
}

function flush(): void {
  if (answers.length === 0) return;
  const batch = answers;
  answers = [];
  port.postMessage(batch, transfer);
  if (transfer.length > 0) transfer = [];
}

/** A text is latin-1. */
function join(pieces: readonly Piece[]): string | Uint8Array {
  const [only] = pieces;
  if (pieces.length === 1 && only !== undefined && typeof only.data === 'string') {
    const { data, encoding } = only;
    if (data.length <= TEXT_BYTES) {
      if (encoding === 'latin1' || encoding === 'binary') return data;
      if (isUtf8(encoding) && Buffer.byteLength(data) === data.length) return data;
    }
  }
  const buffers = pieces.map(({ data, encoding }) => (typeof data === 'string' ? Buffer.from(data, encoding) : data));
  const bytes = buffers.reduce((sum, one) => sum + one.length, 0);
  if (bytes <= TEXT_BYTES)
    return buffers.map((one) => Buffer.from(one.buffer, one.byteOffset, one.length).toString('latin1')).join('');
  // Memory of its own, or all that its buffer is a part of would be copied.
  const own = new Uint8Array(bytes);
  let at = 0;
  for (const one of buffers) {
    own.set(one, at);
    at += one.length;
  }
  transfer.push(own.buffer);
  return own;
}

function isUtf8(encoding: string): boolean {
  return encoding === 'utf8' || encoding === 'utf-8';
}

/** A WebSocket, and the app has a listener for it. */
function isUpgrade({ headers }: IncomingMessage, server: HttpServer): boolean {
  return server.listenerCount('upgrade') > 0 && headers.upgrade?.toLowerCase() === 'websocket';
}

const requestStart = diagnostics.channel('http.server.request.start');

/** As node:http does it, where tools that trace requests (OpenTelemetry, Sentry) look: on the channel, then at the server's emit(). */
function requested(server: HttpServer, request: IncomingMessage, response: ServerResponse): void {
  if (requestStart.hasSubscribers) requestStart.publish({ request, response, socket: request.socket, server });
  server.emit('request', request, response);
}

let refusedSaid = false;

/** It would hold the thread from all other requests. */
function refuseWebSocket(response: ServerResponse): void {
  const text = 'WebSocket needs -k async';
  if (!refusedSaid) log.warning(`A WebSocket was refused: ${text}`);
  refusedSaid = true;
  response.writeHead(501, { 'Content-Type': 'text/plain', Connection: 'close' }).end(`${text}\n`);
}

/** What the app does last to be ready for requests is the one or the other: be loaded, or say that it is ready. */
let loaded = false;
let saidReady = !config.waitReady;

function readyIfBoth(): void {
  if (loaded && saidReady) tell({ op: 'ready' });
}

const lifecycle = new Lifecycle(log, appIsReady);

function appIsReady(): void {
  saidReady = true;
  readyIfBoth();
}

/** The app has no parent here that would hear anything but that it is ready. */
process.send = (message: unknown, ...rest: unknown[]): boolean => {
  if (message === READY) appIsReady();
  const done = rest.at(-1);
  if (typeof done === 'function') process.nextTick(done, null);
  return true;
};

port.on('message', (message: ToThread) => {
  if (!('op' in message)) {
    for (const one of message) queue.push(one);
    if (!pumping) pump();
    return;
  }
  switch (message.op) {
    case 'body':
      (running.get(message.id)?.body ?? tunnels.get(message.id))?.add(toBuffer(message.piece));
      return;
    case 'body-end':
      running.get(message.id)?.body?.end(message.trailers);
      tunnels.get(message.id)?.clientEnds();
      return;
    case 'cancel':
      running.get(message.id)?.cancel(message.why);
      closeTunnel(message.id);
      return;
    case 'taken':
      (running.get(message.id) ?? tunnels.get(message.id))?.taken(message.bytes);
      return;
    case 'ping':
      tell({ op: 'pong' });
      return;
    case 'reopen-logs':
      log.reopen();
      return;
    case 'end':
      void end();
  }
});

async function end(): Promise<void> {
  if (!(await lifecycle.end())) process.exit();
  port.unref(); // its listeners for SIGTERM end it, or it ends when nothing keeps it
}

/** Linux only. The link is that of the thread which asks: PID/task/TID. */
function systemId(): number | null {
  try {
    return Number(basename(readlinkSync('/proc/thread-self')));
  } catch {
    return null;
  }
}

if (atATime > 1) {
  hearUncaught((error) => {
    tell({ op: 'threw', stack: appStack(error) });
    if (lifecycle.endsItself) process.exit(EXIT.ERROR); // it will not any more
  });
}

/** A thread has a copy of the environment, and Node looks for the time zone in the one of the process: the dates would be silently wrong. */
function warnOfZone(zone: string | undefined): void {
  log.warning(`The application sets TZ, to no effect on threads: the place for it is --env TZ=${zone ?? ''}`);
}

/** Null: none is to be called for each request. */
async function openHooks(): Promise<WorkerHooks | null> {
  const { hooks, serial, front } = config;
  if (hooks === null || !REQUEST_HOOKS.some((name) => hooks.file.names.includes(name))) return null;
  return await (await import('../hooks/worker-hooks.ts')).WorkerHooks.inThread(hooks, serial, front.number, log);
}

const id = config.front.metrics ? systemId() : null;
if (id !== null) tell({ op: 'running-as', systemId: id });
process.argv[1] = config.app.path;
process.argv.length = 2;
provideSignal();
provideChdir((request) => port.postMessage(request));
try {
  const hooks = await openHooks();
  const { TZ: zone } = process.env;
  const app = await loadApp(
    config.app,
    (text) => log.warning(text),
    (own) => listensLater(own, config.front.listeners, own === server),
  );
  if (number === 1 && process.env.TZ !== zone) warnOfZone(process.env.TZ);
  if (app.kind === 'listener') {
    let result: unknown;
    const carrier = createServer((request, response) => {
      result = app.listener(request, response);
    });
    listener = (request, response) => {
      result = undefined;
      requested(carrier, request, response);
      return result;
    };
  } else {
    const own = app.server;
    server = own;
    listener = (request, response) => {
      if (isUpgrade(request, own)) refuseWebSocket(response);
      else requested(own, request, response);
    };
    seemToListen(own, config.front.listeners);
  }
  if (hooks !== null) listener = hooks.around(listener);
  loaded = true;
  if (!saidReady) tell({ op: 'imported' });
  readyIfBoth();
} catch (error) {
  tell(
    error instanceof NunicornError
      ? { op: 'boot-failed', message: error.message, exitCode: error.exitCode === EXIT.APP_LOAD_ERROR ? 4 : 1 }
      : {
          op: 'boot-failed',
          message: `Exception in worker process\n${bootStack(error, config.app.path)}`,
          exitCode: EXIT.WORKER_BOOT_ERROR,
        },
  );
}
