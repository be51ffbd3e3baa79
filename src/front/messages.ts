/** What the master and a front say to each other over node:cluster's channel. */

import type { UsableProcessors } from '../dispatch/concurrency-limit.ts';
import type { AccessSettings } from '../log/access.ts';
import type { ErrorLogSettings } from '../log/error-log.ts';
import type { FrontReport } from '../metrics/report.ts';
import type { StatsdSettings } from '../metrics/statsd.ts';
import type { ClientCertificates, ProxyProtocol } from '../settings/types.ts';
import type { HeadLimits, HeadPolicy } from './environ.ts';

/** A worker that is ready to be connected to. */
export interface WorkerAddress {
  /** Unique among all workers ever started. */
  readonly serial: number;
  /** 1 to --workers, the same for a worker and its replacement. */
  readonly number: number;
  readonly pid: number;
  readonly threads: number;
  /** Requests it has answered so far. */
  readonly served: number;
  /** The master is told when it has answered this many. 0: it is not. */
  readonly requestLimit: number;
  readonly socketPath: string;
  /** File with a word of 8 bytes for each thread: the id of the request it began last. */
  readonly begunPath: string;
  /** File to which the worker writes the stacks of all its threads on SIGIO, also while C code holds the GIL. */
  readonly stacksPath: string;
}

export interface ListenerFacts {
  readonly kind: 'tcp' | 'unix';
  /** As getsockname(2) says. */
  readonly host: string;
  readonly port: number;
  readonly path: string;
}

/** PEM texts, read and checked by the master: a key may be readable by root only. */
export interface TlsConfig {
  /** The certificate and those between it and its root. */
  readonly cert: string;
  readonly key: string;
  /** Who may have signed a client's certificate; null: the roots that Node knows. */
  readonly ca: string | null;
  readonly clientCertificates: ClientCertificates;
  /** An OpenSSL cipher list; null: Node's. */
  readonly ciphers: string | null;
}

export interface FrontConfig {
  readonly number: number;
  readonly title: string;
  readonly token: string;
  /** The server's private folder. */
  readonly folder: string;
  readonly spoolFolder: string;
  readonly backlog: number;
  readonly keepaliveMs: number;
  readonly timeoutMs: number;
  readonly queueTimeoutMs: number;
  readonly headerTimeoutMs: number;
  readonly bodyTimeoutMs: number;
  readonly responseTimeoutMs: number;
  readonly maxQueue: number;
  readonly processors: UsableProcessors;
  readonly limitRequestBody: number;
  readonly limits: HeadLimits;
  /** Request line and headers together, a bound on memory. */
  readonly maxHeaderBytes: number;
  readonly forwardedAllowIps: readonly string[];
  readonly policy: HeadPolicy;
  readonly proxyProtocol: ProxyProtocol;
  readonly proxyAllowIps: readonly string[];
  /** null: plain HTTP. */
  readonly tls: TlsConfig | null;
  readonly errorLog: ErrorLogSettings;
  readonly access: AccessSettings | null;
  readonly listeners: readonly ListenerFacts[];
  /** Requests are counted, and reported once a second. */
  readonly metrics: boolean;
  /** Null: nothing is sent to a statsd server. */
  readonly statsd: StatsdSettings | null;
}

export type ToFront =
  | { readonly op: 'start'; readonly config: FrontConfig }
  /** New settings, after a reload; the listening handles come anew. */
  | { readonly op: 'config'; readonly config: FrontConfig }
  /** Comes with the listening handle. */
  | { readonly op: 'listen'; readonly index: number }
  | { readonly op: 'worker'; readonly worker: WorkerAddress }
  | { readonly op: 'drain-worker'; readonly serial: number }
  | { readonly op: 'worker-exit'; readonly serial: number }
  | { readonly op: 'stop'; readonly graceful: boolean }
  | { readonly op: 'reopen-logs' }
  /** Answered with a report that has the number `asked`. */
  | { readonly op: 'report'; readonly asked: number; readonly requests: boolean }
  /** Write what is left to the logs and exit. */
  | { readonly op: 'end' };

export type ToMaster =
  | { readonly op: 'online' }
  | { readonly op: 'listening' }
  /** A worker that was to drain runs nothing more, but for threads that are stuck. */
  | { readonly op: 'drained'; readonly serial: number }
  /** A request ran into --timeout in this worker: its thread gets nothing more. `servesOn`: others of its threads serve. */
  | { readonly op: 'timed-out'; readonly serial: number; readonly servesOn: boolean }
  /** The thread of such a request has not come back. Not `servesOn`: nor has its interpreter answered, and none may serve. */
  | { readonly op: 'stuck'; readonly serial: number; readonly servesOn: boolean }
  /** All such threads of it have come back after all. */
  | { readonly op: 'recovered'; readonly serial: number }
  /** The worker has answered as many requests as its limit says. */
  | { readonly op: 'request-limit'; readonly serial: number }
  /** Once a second: the front's event loop turns. With it, how many requests each worker (serial) has answered by now. */
  | { readonly op: 'alive'; readonly served: readonly (readonly [serial: number, requests: number])[] }
  /** Once a second, and when it was asked for. */
  | { readonly op: 'report'; readonly report: FrontReport }
  /** The front has no more connections. */
  | { readonly op: 'stopped' };
