/**
 * What the master needs of a kind of app: how its workers are started and talked to, and who serves its clients. Seats,
 * replacement and the order of a stop are the same for all kinds, in workers.ts and master.ts.
 */

import type { AppMetric } from '../metrics/app-metrics.ts';
import type { FrontReport } from '../metrics/report.ts';
import type { WorkerThreads } from '../metrics/thread-times.ts';
import type { ServerView } from '../metrics/view.ts';
import type { BootStep } from '../policy/boot.ts';
import type { Reason } from '../policy/reasons.ts';
import type { FileTimes } from './code-watch.ts';
import type { Setup } from './options.ts';

/** A worker as it is started. */
export interface WorkerFacts {
  /** Unique among all workers ever started. */
  readonly serial: number;
  /** 1 to --workers, the same for a worker and its replacement. */
  readonly number: number;
  /** It tells when it has answered so many requests. 0: never. */
  readonly requestLimit: number;
  /** Requests it has answered by now. */
  readonly served: number;
}

/** A worker's process. What happens to it is told to WorkerEvents, by the worker's serial. */
export interface WorkerProcess {
  /** Null: not known yet. */
  readonly pid: number | null;
  /** It may have clients, also when it is not ready yet: it is to drain before it ends. */
  readonly accepts: boolean;
  /** It gets no more requests; `drained` when it runs none. */
  drain(): void;
  /** What it has to do at its end it does now, then it ends. `quick`: at a shutdown that does not wait for requests. */
  leave(quick: boolean): void;
  reopenLogs(): void;
  /** Asks whether its interpreter, or its event loop, runs: `pong` of WorkerEvents is the answer. */
  ping(): void;
  /** Gives what its threads are doing now. It is asked only if it is thought to answer; if it does not, it is seen from outside. */
  stacks(answers: boolean, done: (stacks: string) => void): void;
  /** It does not leave: what it has to do at its end it does now, whatever its threads are at, and is killed soon. */
  abort(): void;
  /** Ends it and all that the app has started. */
  kill(): void;
}

export interface WorkerEvents {
  /** How far it has come on its way to `ready`. */
  reached(serial: number, step: BootStep): void;
  ready(serial: number): void;
  /** The worker was sent a signal that asks it to go, or a hook wants it to: `why` is "sent SIGTERM". */
  askedToLeave(serial: number, why: string): void;
  pong(serial: number): void;
  /** It runs nothing more, but for threads that are stuck. */
  drained(serial: number): void;
  /** A request ran into --timeout: its thread gets nothing more. `servesOn`: others of its threads serve. */
  timedOut(serial: number, servesOn: boolean): void;
  /** The thread of such a request has not come back. Not `servesOn`: nor has its interpreter answered, and none may serve. */
  stuck(serial: number, servesOn: boolean): void;
  /** Every such thread of it has come back: it is still replaced, but can leave by itself. */
  recovered(serial: number): void;
  /** It is to be ended now: what it runs fails. */
  kill(serial: number, reason: Reason): void;
  /** Its app has failed as a whole, after so many requests: what it runs may finish. */
  appFailed(serial: number, requests: number): void;
  /** How many requests it has answered by now. */
  served(serial: number, requests: number): void;
  requestLimitReached(serial: number): void;
  /** The process is gone. `hasBegun`: it had begun to run a request. */
  ended(serial: number, code: number | null, signal: NodeJS.Signals | null, hasBegun: boolean): void;
  /** What all present workers were made from is gone (the mold): workers of the next one are to replace them. */
  outdated(): void;
  /** What workers are made from could not be made. */
  unbootable(code: number | null): void;
}

export interface AppHandler {
  /** With --reload: files that the app consists of. */
  files(files: FileTimes): void;
  readonly workers: WorkerEvents;
  /** Every address is listened at. Called once. Resolves when the app may be loaded. */
  listening(): Promise<void>;
  /** Whoever serves the clients could not be started. */
  failed(): void;
  /** A front tells what it has counted. */
  report(id: number, report: FrontReport): void;
  frontEnded(id: number, restarted: boolean): void;
  /** A worker tells of the app's own metrics. */
  appMetrics(serial: number, metrics: readonly AppMetric[]): void;
  /** A worker tells of its threads. */
  threads(threads: WorkerThreads): void;
  /** A server hook failed: the server is to end with this exit code. */
  hookFailed(code: number): void;
  /** After `stop`: no client is left. */
  stopped(): void;
}

/** `failed`: the new code does not boot, and workers are what they were. `overtaken`: another renewal has begun. */
export type Renewal = 'renewed' | 'failed' | 'overtaken';

export interface AppKind extends Pick<ServerView, 'fronts' | 'moldPids' | 'askFronts' | 'askWorkers'> {
  /** For the log: what runs the app. */
  description(): string;
  /** What comes before an address is listened at: the hooks of the start. */
  prepare(): Promise<void>;
  /** `setup` has the sockets. */
  start(setup: Setup): Promise<void>;
  startWorker(facts: WorkerFacts): WorkerProcess;
  /** Takes new settings. Resolves when whoever serves the clients has them, and the next worker may have others. */
  reload(setup: Setup): Promise<void>;
  /** Has the workers that are started from then on be of the settings last taken, and of the code of now. */
  renew(): Promise<Renewal>;
  /** How the workers of that have done: all serve, or one did not boot, and those of before stay. */
  settle(good: boolean): void;
  /** There will be so many workers, fewer than now: resolves when nobody serves clients for those that go alone. */
  beforeWorkers(count: number): Promise<void>;
  reopenLogs(): void;
  /** Calls `then` when whoever serves the clients has the listening sockets: then the master's own may be closed. */
  whenSocketsHeld(then: () => void): void;
  /** Accepts no more clients and lets go of each as soon as it has its answer; not graceful: now. */
  stop(graceful: boolean): void;
  /** There will be so many workers: for the hooks. */
  workersChanged(count: number): void;
  /** The last worker is gone: ends whoever serves the clients, then calls `done`. */
  end(done: () => void): void;
  /** Before a new master is started: false if a hook does not want it. */
  beforeUpgrade(): Promise<boolean>;
  /** The very last thing. `atEnd`: with the hooks of the end. */
  close(atEnd: boolean): Promise<void>;
  /** Ends by force what is no worker. */
  killAll(): void;
}
