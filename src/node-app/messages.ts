/** What the master and a worker of a Node app say to each other over node:cluster's channel, and a worker and its threads. */
import type { FrontConfig } from '../front/messages.ts';
import type { HooksConfig } from '../hooks/messages.ts';
import type { FrontReport } from '../metrics/report.ts';
import type { NodeAppUri } from '../settings/app.ts';

export interface NodeAppConfig {
  readonly app: NodeAppUri;
  readonly workerClass: 'async' | 'gthread';
  readonly threads: number;
  readonly chdir: string;
  readonly waitReady: boolean;
  /** Of one thread, under gthread. 0: V8's own. */
  readonly threadMemoryLimitMiB: number;
  /** Under gthread each thread is replaced after so many, and up to so many more. 0: never. */
  readonly maxRequests: number;
  readonly maxRequestsJitter: number;
  readonly gracefulTimeoutMs: number;
  /** Null: it has none that are functions of JavaScript. */
  readonly hooks: HooksConfig | null;
  /** What a front has too: limits, logs, listeners. */
  readonly front: Omit<FrontConfig, 'number' | 'title'>;
}

export interface NodeWorkerConfig extends Omit<NodeAppConfig, 'front'> {
  /** Unique among all workers ever started. */
  readonly serial: number;
  /** With the worker's own number and title. */
  readonly front: FrontConfig;
  /** Under async: it tells when it has answered so many requests. 0: never. */
  readonly requestLimit: number;
}

export type ToNodeWorker =
  | { readonly op: 'start'; readonly config: NodeWorkerConfig }
  /** Comes with the listening handle; after `loaded`. */
  | { readonly op: 'listen'; readonly index: number }
  /** `idleMs`: how long a connection may still be idle; a request that comes meanwhile is answered. */
  | { readonly op: 'stop'; readonly graceful: boolean; readonly idleMs: number }
  | { readonly op: 'reopen-logs' }
  | { readonly op: 'ping' }
  /** Answered with `stacks`. */
  | { readonly op: 'stacks' }
  /** Answered with a report that has the number `asked`. */
  | { readonly op: 'report'; readonly asked: number; readonly requests: boolean }
  /** What the app does at its end it does now. `quick`: at a shutdown that does not wait for requests. */
  | { readonly op: 'leave'; readonly quick: boolean };

export type FromNodeWorker =
  | { readonly op: 'online' }
  /** What follows is up to the app: it is to say that it is ready. */
  | { readonly op: 'imported' }
  /** It may be given the listening handles. */
  | { readonly op: 'loaded' }
  | { readonly op: 'ready' }
  /** The event loop turns. */
  | { readonly op: 'pong' }
  /** How many requests it has answered by now. */
  | { readonly op: 'served'; readonly requests: number }
  /** What it has counted, as a front reports it: once a second, when it was asked for, and before `stopped`. */
  | { readonly op: 'report'; readonly report: FrontReport }
  /** Where its threads stand. */
  | { readonly op: 'stacks'; readonly text: string }
  /** The system's numbers of the threads that run the app, as often as they change. */
  | { readonly op: 'threads'; readonly ids: readonly number[] }
  | { readonly op: 'request-limit' }
  | { readonly op: 'asked-to-leave'; readonly why: string }
  /** Its app can be relied on no more, after so many requests: what it runs may finish, another worker takes its seat. */
  | { readonly op: 'app-failed'; readonly requests: number }
  /** A thread does not come back from a request that ran into --timeout, and cannot be ended. */
  | { readonly op: 'stuck' }
  /** After `stop`: no request is left. */
  | { readonly op: 'stopped' };

/** How it is sent, both ways: the app has the same channel, and may say and hear anything there. */
export interface Envelope<Message extends FromNodeWorker | ToNodeWorker> {
  readonly nunicorn: Message;
}

/** Null: it is the app's. */
export function opened<Message extends FromNodeWorker | ToNodeWorker>(message: unknown): Message | null {
  return message !== null && typeof message === 'object' && 'nunicorn' in message
    ? (message as Envelope<Message>).nunicorn
    : null;
}

/** The app's own word, as PM2 has it. */
export const READY = 'ready';
