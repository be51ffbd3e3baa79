/** A thread that runs the app, as the worker's main thread sees it: sends requests, takes them back, hears answers. */
import { fileURLToPath } from 'node:url';
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { BODY_IN_FILE } from '../bridge/frames.ts';
import { UNKNOWN_STACKS } from '../bridge/stacks.ts';
import type { DispatchWorker } from '../dispatch/dispatcher.ts';
import type { Exchange } from '../front/exchange.ts';
import { withoutOurs } from './app-stack.ts';
import type { NodeWorkerConfig } from './messages.ts';
import {
  BEGUN,
  FREE,
  type FromThread,
  requestsAtATime,
  SENT,
  SPARE_CELLS,
  TAKEN,
  type ThreadRequest,
  type ToThread,
} from './thread-messages.ts';

export interface AppThreadHandler {
  said(thread: AppThread, message: FromThread): void;
  /** What nobody caught in it. Its end follows. */
  threw(thread: AppThread, error: unknown): void;
  ended(thread: AppThread, code: number): void;
}

const MAIN = fileURLToPath(new URL('./thread.js', import.meta.url));
/** A body up to this size travels as text, which is the cheapest; a larger one as memory that changes hands. */
const TEXT_BYTES = 16 * 1024;
const ENCRYPTED = 'https';
/** Messages that are read at a time: the clients are heard in between. */
const MESSAGES_AT_A_TIME = 64;

export class AppThread {
  readonly serial: number;
  /** From 1, the same for a thread and its replacement. */
  readonly number: number;
  /** After so many requests another thread takes its place. 0: never. */
  readonly requestLimit: number;
  readonly startedAt: number;
  readyAt: number | null = null;
  /** The system's number of it. Null: not known. */
  systemId: number | null = null;
  /** How the dispatcher sees it: a worker with a slot for each request that it runs at a time. Null before it is ready. */
  dispatched: DispatchWorker<Exchange> | null = null;
  served = 0;
  /** When it was asked what it has not answered yet: see liveness.ts. */
  pingedAt: number | null = null;
  answeredAt = 0;
  /** It gets no more requests. */
  draining = false;
  /** It was told to go, or killed. */
  ending = false;
  private readonly worker: Worker;
  private readonly port: MessagePort;
  private readonly handler: AppThreadHandler;
  private readonly cells: Int32Array;
  private readonly cellOf = new Map<number, number>();
  /** By cell. */
  private readonly exchanges: (Exchange | null)[];
  private nextCell = 0;
  private busyMs = 0;
  private readonly unsent: ThreadRequest[] = [];
  private readonly transfer: ArrayBuffer[] = [];

  constructor(
    serial: number,
    number: number,
    requestLimit: number,
    config: NodeWorkerConfig,
    startedAt: number,
    handler: AppThreadHandler,
  ) {
    this.serial = serial;
    this.number = number;
    this.requestLimit = requestLimit;
    this.startedAt = startedAt;
    const cells = requestsAtATime(config) + SPARE_CELLS;
    this.cells = new Int32Array(new SharedArrayBuffer(cells * Int32Array.BYTES_PER_ELEMENT));
    this.exchanges = new Array<Exchange | null>(cells).fill(null);
    const { threadMemoryLimitMiB: limit } = config;
    const { port1, port2 } = new MessageChannel();
    this.handler = handler;
    this.port = port1;
    this.worker = new Worker(MAIN, {
      name: `thread ${number}`,
      workerData: { config, number, cells: this.cells.buffer, port: port2 },
      transferList: [port2],
      ...(limit === 0 ? {} : { resourceLimits: { maxOldGenerationSizeMb: limit } }),
    });
    port1.on('message', (message: FromThread) => {
      handler.said(this, message);
      this.hear(MESSAGES_AT_A_TIME);
    });
    this.worker.on('error', (error) => handler.threw(this, error));
    this.worker.on('exit', (code) => {
      this.hear(Number.POSITIVE_INFINITY); // its last words
      port1.close();
      handler.ended(this, code);
    });
  }

  /** Reads what else has come: an event for each message costs more than the message. */
  private hear(most: number): void {
    for (let left = most; left > 0; left--) {
      const received = receiveMessageOnPort(this.port) as { readonly message: FromThread } | undefined;
      if (received === undefined) return;
      this.handler.said(this, received.message);
    }
  }

  /** Gathers a request; `flush` sends it. */
  send(exchange: Exchange): void {
    const { request, connection } = exchange;
    const cell = this.freeCell();
    Atomics.store(this.cells, cell, SENT);
    this.cellOf.set(exchange.id, cell);
    this.exchanges[cell] = exchange;
    const inFile = (exchange.flags & BODY_IN_FILE) !== 0;
    this.unsent.push([
      exchange.id,
      cell,
      request.method ?? '',
      request.url ?? '',
      request.httpVersionMinor,
      request.rawHeaders,
      request.rawTrailers,
      exchange.body === null || inFile ? null : forThread(exchange.body, this.transfer),
      exchange.bodyOpen,
      inFile && exchange.body !== null ? exchange.body.toString() : null,
      connection.remoteAddress,
      connection.socket.remotePort ?? 0,
      connection.facts.scheme === ENCRYPTED,
    ]);
  }

  flush(): void {
    if (this.unsent.length === 0) return;
    this.port.postMessage(this.unsent, this.transfer);
    this.unsent.length = 0;
    this.transfer.length = 0;
  }

  say(message: Exclude<ToThread, readonly ThreadRequest[]>): void {
    this.port.postMessage(message);
  }

  /** More of the body of a request that has begun. */
  sendPiece(id: number, piece: Buffer): void {
    const transfer: ArrayBuffer[] = [];
    const message: ToThread = { op: 'body', id, piece: forThread(piece, transfer) };
    this.port.postMessage(message, transfer);
  }

  /** The request with this id, if it was sent here and has not been answered. */
  exchangeOf(id: number): Exchange | null {
    const cell = this.cellOf.get(id);
    return cell === undefined ? null : (this.exchanges[cell] ?? null);
  }

  /** The request has been answered. */
  release(id: number): void {
    const cell = this.cellOf.get(id);
    if (cell === undefined) return;
    this.cellOf.delete(id);
    this.exchanges[cell] = null;
    Atomics.store(this.cells, cell, FREE);
  }

  /** Whether the app has begun the request, also when the thread is dead. */
  hasBegun(id: number): boolean {
    const cell = this.cellOf.get(id);
    return cell !== undefined && Atomics.load(this.cells, cell) === BEGUN;
  }

  /** True: the thread will not run the request any more. */
  takeBack(id: number): boolean {
    const cell = this.cellOf.get(id);
    if (cell === undefined || Atomics.compareExchange(this.cells, cell, SENT, TAKEN) !== SENT) return false;
    this.exchanges[cell] = null;
    this.cellOf.delete(id); // the thread frees the cell when it comes to it
    return true;
  }

  /** How long its event loop has been busy since it was asked last. */
  takeBusyMs(): number {
    // Read from outside, it may fall behind what was read before by a microsecond.
    const busyMs = Math.max(this.busyMs, this.worker.performance.eventLoopUtilization().active);
    const more = busyMs - this.busyMs;
    this.busyMs = busyMs;
    return more;
  }

  /** Where it stands: its JavaScript stack, or why it has none. Takes up to `limitMs`. */
  async stack(limitMs: number): Promise<string> {
    try {
      const { threadStack } = await import('./thread-stack.ts');
      return withoutOurs(await threadStack(this.worker.threadId, limitMs));
    } catch {
      return UNKNOWN_STACKS; // a Node without an inspector
    }
  }

  /** Ends it in the middle of whatever JavaScript it runs. */
  kill(): void {
    this.ending = true;
    void this.worker.terminate();
  }

  private freeCell(): number {
    const { length } = this.cells;
    for (let tries = 0; tries < length; tries++) {
      this.nextCell = (this.nextCell + 1) % length;
      if (Atomics.load(this.cells, this.nextCell) === FREE) return this.nextCell;
    }
    throw new Error(`thread ${this.number} has more requests than cells`);
  }
}

/** Appends to `transfer` what changes hands. */
function forThread(body: Buffer, transfer: ArrayBuffer[]): string | Uint8Array {
  if (body.length <= TEXT_BYTES) return body.toString('latin1');
  // Memory of its own, or all that its buffer is a part of would be copied.
  const own = new Uint8Array(body.length);
  own.set(body);
  transfer.push(own.buffer);
  return own;
}
