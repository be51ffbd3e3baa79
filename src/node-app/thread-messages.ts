/**
 * What a worker's main thread and the threads that run its app say to each other. Requests and answers travel in arrays, so that
 * what there is at one time wakes the other side once; and each of them is an array, as the names of an object's properties would
 * be copied with every one.
 */
import type { MessagePort } from 'node:worker_threads';
import type { ChdirRequest } from './chdir.ts';
import type { NodeWorkerConfig } from './messages.ts';

/** Under async a thread runs any number of requests at a time; this many are any number. */
const MOST_AT_A_TIME = 1000;

/** How many requests a thread runs at a time. */
export function requestsAtATime({ workerClass }: Pick<NodeWorkerConfig, 'workerClass'>): number {
  return workerClass === 'async' ? MOST_AT_A_TIME : 1;
}

/** Given to a thread at its start. */
export interface ThreadData {
  readonly config: NodeWorkerConfig;
  /** From 1. */
  readonly number: number;
  /** The Int32Array of the cells, see below. */
  readonly cells: SharedArrayBuffer;
  /** Where all messages come from and go to. */
  readonly port: MessagePort;
}

/**
 * Each request that is sent to a thread has a cell in memory that both sides see. The thread begins it by changing SENT to BEGUN;
 * main takes it back by changing SENT to TAKEN, whatever the thread is doing meanwhile, and the thread frees the cell then. What has begun is known when it is dead.
 */
export const SPARE_CELLS = 64;
export const FREE = 0;
export const SENT = 1;
export const BEGUN = 2;
export const TAKEN = 3;

export type ThreadRequest = readonly [
  id: number,
  cell: number,
  method: string,
  url: string,
  /** 0 or 1. */
  minor: number,
  /** Name, value, name, value ... */
  headers: readonly string[],
  trailers: readonly string[],
  /** The whole body, a text is latin-1; or the file that holds it. With `bodyOpen` it is the beginning, and `body` messages follow. */
  body: Uint8Array | string | null,
  bodyOpen: boolean,
  file: string | null,
  remoteAddress: string,
  remotePort: number,
  encrypted: boolean,
];

export type ToThread =
  /** Requests, in their order. */
  | readonly ThreadRequest[]
  /** More of the body. */
  | { readonly op: 'body'; readonly id: number; readonly piece: Uint8Array | string }
  | { readonly op: 'body-end'; readonly id: number; readonly trailers: readonly string[] }
  /** The client has left, or (`why`) its request has overrun --timeout. */
  | { readonly op: 'cancel'; readonly id: number; readonly why: string | null }
  /** The client has taken so many bytes of the answer. */
  | { readonly op: 'taken'; readonly id: number; readonly bytes: number }
  | { readonly op: 'reopen-logs' }
  /** Does its event loop turn? */
  | { readonly op: 'ping' }
  /** What the app does at its end it does now; then the thread ends. */
  | { readonly op: 'end' };

export type ThreadAnswer =
  /** The app has taken so many bytes of a body that was open. */
  | readonly ['taken', id: number, bytes: number]
  /** A whole answer. `head`: see head-block.ts. A text is latin-1. `last`: the connection is closed behind it. */
  | readonly [
      'answer',
      id: number,
      status: number,
      head: string,
      last: boolean,
      body: string | Uint8Array,
      appUs: number,
    ]
  /** The beginning of an answer in pieces. */
  | readonly ['head', id: number, status: number, head: string, last: boolean]
  | readonly ['data', id: number, piece: string | Uint8Array]
  | readonly ['end', id: number, appUs: number, trailers: readonly string[]]
  /** 1xx answers, as they go out. */
  | readonly ['interim', id: number, text: string]
  /** The app has taken over the connection, and has written the first of its answer there. 'data', 'taken', 'end' and 'cut' follow. */
  | readonly ['upgraded', id: number, status: number, appUs: number]
  /** The app threw before its answer began. */
  | readonly ['error', id: number, appUs: number, stack: string]
  /** The app gave up an answer that had begun. */
  | readonly ['cut', id: number, appUs: number];

export type FromThread =
  | readonly ThreadAnswer[]
  /** First of all, where the system tells it: its number of the thread. */
  | { readonly op: 'running-as'; readonly systemId: number }
  | ChdirRequest
  /** What follows is up to the app: it is to say that it is ready. */
  | { readonly op: 'imported' }
  | { readonly op: 'ready' }
  | { readonly op: 'pong' }
  /** Under async: an error that nobody caught. What else runs may finish. */
  | { readonly op: 'threw'; readonly stack: string }
  /** The app could not be loaded. */
  | { readonly op: 'boot-failed'; readonly message: string; readonly exitCode: 1 | 3 | 4 };

/** A text is latin-1. */
export function toWire(data: string | Uint8Array): string | Buffer {
  return typeof data === 'string' ? data : Buffer.from(data.buffer, data.byteOffset, data.length);
}
