/**
 * The way of a request from its client to a slot and into the access log, the same in a front and in a worker of a Node app whose
 * threads run it: the queue and its limits, what is sent ahead, how a stop goes. What runs the requests is a `Runner`.
 */
import { now } from '../clock.ts';
import { Dispatcher, type Slot } from '../dispatch/dispatcher.ts';
import { StallWatch } from '../dispatch/stall-watch.ts';
import type { Access } from '../log/access.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { OUTCOME } from '../metrics/counters.ts';
import type { FrontReport } from '../metrics/report.ts';
import { Sweeper } from '../sweeper.ts';
import { ExchangeRecord } from './access-record.ts';
import { ClientServer, type ClientServerParts } from './client-server.ts';
import type { Exchange } from './exchange.ts';
import type { FrontMetrics } from './front-metrics.ts';
import type { FrontConfig } from './messages.ts';
import { ProcessorWatch } from './processor-watch.ts';

/** What was sent ahead and has waited this long behind a running request goes elsewhere; looked at as often. */
const AHEAD_LIMIT_MS = 5;

/** What takes requests to a slot: the connection of a worker, or a thread. */
export interface Carrier {
  /** Sends what it was given. */
  flush(): void;
}

/** The other end of the dispatcher: what its slots are. */
export interface Runner {
  /** Whether a slot's thread does nothing else while it runs a request. Else nothing is sent ahead, nor kept in reserve. */
  readonly oneAtATime: boolean;
  /** Gives the request to the carrier of the slot, which is returned; null: there is none any more. */
  send(slot: Slot<Exchange>, exchange: Exchange): Carrier | null;
  /** What waits in the slot behind its first request is to come back to the dispatcher. */
  takeBack(slot: Slot<Exchange>): void;
  /** Its client has left. A request that has no slot was not sent. */
  cancel(exchange: Exchange): void;
  /** Answers a request that got no answer, or cuts the answer that had begun. */
  fail(exchange: Exchange, status: number, message: string, outcome: number, extraHeaders?: readonly string[]): void;
  /** Time limits of its own. */
  sweep(time: number): void;
  /** After `stop`: the last client is gone. Called once. */
  stopped(): void;
  /** Processes beside this one that run requests. */
  pids(): Iterable<number>;
}

export interface ClientPolicy {
  readonly takesOpenBodies?: boolean;
  readonly endIsLeaving?: boolean;
}

export class Intake {
  readonly dispatcher: Dispatcher<Exchange>;
  readonly clients: ClientServer;
  private config: FrontConfig;
  private readonly runner: Runner;
  private readonly log: ErrorLog;
  private access: Access | null;
  private readonly metrics: FrontMetrics | null;
  private readonly unflushed = new Set<Carrier>();
  private flushScheduled = false;
  private queueTimer: NodeJS.Timeout | null = null;
  private readonly stallWatch = new StallWatch();
  private readonly processorWatch: ProcessorWatch | null;
  private readonly sweeper: Sweeper;
  private stopping = false;
  private stoppedSaid = false;

  /** `metrics`: null if nobody wants them. */
  constructor(
    config: FrontConfig,
    runner: Runner,
    policy: ClientPolicy,
    log: ErrorLog,
    access: Access | null,
    parts: ClientServerParts,
    metrics: FrontMetrics | null,
  ) {
    this.config = config;
    this.runner = runner;
    this.log = log;
    this.access = access;
    this.metrics = metrics;
    this.dispatcher = new Dispatcher<Exchange>({
      maxQueue: config.maxQueue,
      gather: runner.oneAtATime,
      sendsAhead: runner.oneAtATime,
      send: (slot, exchange) => this.send(slot, exchange),
      reserving: () => this.watchQueue(),
    });
    this.processorWatch = runner.oneAtATime ? new ProcessorWatch(config.processors) : null;
    this.clients = new ClientServer(
      config,
      {
        requestRead: (exchange, time) => this.requestRead(exchange, time),
        clientLeft: (exchange) => this.clientLeft(exchange),
        malformed: (exchange) => this.malformed(exchange),
        exchangeOver: (exchange) => this.exchangeOver(exchange),
        connected: () => this.connected(),
        notUnderstood: (status) => this.metrics?.notUnderstood(status),
        ...policy,
      },
      log,
      parts,
    );
    this.sweeper = new Sweeper(
      () => this.sweep(),
      (lateMs) => this.metrics?.turned(lateMs),
    );
  }

  /** New settings: for requests from now on, and once the new listening sockets are there, for connections. */
  reconfigure(config: FrontConfig, access: Access | null, parts: ClientServerParts): void {
    this.config = config;
    this.access = access;
    this.dispatcher.maxQueue = config.maxQueue;
    this.clients.reconfigure(config, parts);
  }

  /** Accepts no more; without `graceful` all requests fail now. `Runner.stopped` follows. */
  stop(graceful: boolean, idleMs?: number): void {
    this.stopping = true;
    this.clients.stop(idleMs);
    if (!graceful) {
      const text = 'The server is shutting down';
      this.clients.refuseUnread(503, text, OUTCOME.shutdown);
      for (const exchange of this.dispatcher.sent()) this.runner.fail(exchange, 503, text, OUTCOME.shutdown);
      this.failQueued(503, text, OUTCOME.shutdown, () => true);
    }
    this.sweep();
    this.sweeper.wake();
  }

  /** Nothing is watched any more. */
  close(): void {
    this.sweeper.close();
  }

  /** `asked`: the number of the master's question, if it is an answer. */
  report(asked: number | null, withRequests: boolean): FrontReport | null {
    return this.metrics?.report(this.access, asked, withRequests) ?? null;
  }

  /** What was given to carriers leaves. */
  readonly flush = (): void => {
    this.flushScheduled = false;
    if (this.unflushed.size === 0) return; // as behind most answers; to clear it would be a call into V8's runtime all the same
    for (const carrier of this.unflushed) carrier.flush();
    this.unflushed.clear();
  };

  /** The carrier is gone. */
  forget(carrier: Carrier): void {
    this.unflushed.delete(carrier);
  }

  private connected(): void {
    this.sweeper.wake();
    this.metrics?.connected();
  }

  private requestRead(exchange: Exchange, time: number): void {
    exchange.phase = 'dispatched';
    exchange.queuedAt = time;
    this.metrics?.read(exchange);
    if (!this.dispatcher.arrive(exchange, time)) {
      this.runner.fail(exchange, 503, 'Too many requests are waiting', OUTCOME.queue_full, ['Retry-After', '1']);
    }
  }

  private clientLeft(exchange: Exchange): void {
    exchange.outcome = OUTCOME.client_left;
    this.metrics?.clientLeft();
    this.cancel(exchange);
  }

  private malformed(exchange: Exchange): void {
    exchange.outcome = OUTCOME.refused;
    this.cancel(exchange);
  }

  private cancel(exchange: Exchange): void {
    if (exchange.phase === 'reading') return;
    this.dispatcher.cancel(exchange, now());
    this.runner.cancel(exchange);
  }

  private exchangeOver(exchange: Exchange): void {
    this.metrics?.over(exchange);
    if (exchange.status > 0) this.access?.write(new ExchangeRecord(exchange));
  }

  private send(slot: Slot<Exchange>, exchange: Exchange): void {
    const carrier = this.runner.send(slot, exchange);
    if (carrier === null) return;
    if (slot.requests.length === 1) {
      // The thread is idle: nothing to wait for.
      carrier.flush();
      return;
    }
    this.watchQueue();
    this.unflushed.add(carrier);
    // All that is sent ahead in this turn of the event loop leaves together, still within the same turn.
    if (!this.flushScheduled) {
      this.flushScheduled = true;
      setImmediate(this.flush);
    }
  }

  /** There is something ahead, or waiting beside idle slots, that must not be so for long. */
  private watchQueue(): void {
    this.queueTimer ??= setTimeout(() => this.checkQueue(), AHEAD_LIMIT_MS);
  }

  private checkQueue(): void {
    this.queueTimer = null;
    const { dispatcher } = this;
    const time = now();
    if (dispatcher.isReserving) dispatcher.dispatch(time);
    for (const slot of dispatcher.overdueAhead(AHEAD_LIMIT_MS, time)) this.runner.takeBack(slot);
    for (const { slots } of dispatcher.workers) {
      for (const slot of slots) if (slot.requests.length > 1) this.watchQueue();
    }
    if (dispatcher.isReserving) this.watchQueue();
  }

  /** Time limits. Returns whether there is something to watch. */
  private sweep(): boolean {
    const time = now();
    const { clients, dispatcher, runner } = this;
    const { queueTimeoutMs } = this.config;
    clients.sweep(time);
    this.processorWatch?.check(dispatcher, runner.pids(), time);
    const stall = this.stallWatch.check(dispatcher, time);
    if (stall !== null)
      this.log.critical(`Requests waited beside free threads. This is a defect of nunicorn; it was mended. ${stall}`);
    if (queueTimeoutMs > 0) {
      const isLate = ({ queuedAt }: Exchange): boolean => time - queuedAt >= queueTimeoutMs;
      this.failQueued(504, 'No thread was free in time', OUTCOME.queue_timeout, isLate);
    }
    runner.sweep(time);
    if (clients.isStopping && clients.isEmpty && !this.stoppedSaid) {
      this.stoppedSaid = true;
      runner.stopped();
    }
    return !clients.isEmpty || this.stopping || dispatcher.running().next().done !== true;
  }

  /** From the oldest on, as long as `isDue`. */
  private failQueued(status: number, message: string, outcome: number, isDue: (exchange: Exchange) => boolean): void {
    for (;;) {
      const oldest = this.dispatcher.oldestQueued;
      if (oldest === null || !isDue(oldest)) return;
      this.dispatcher.cancel(oldest, now());
      this.runner.fail(oldest, status, message, outcome);
    }
  }
}
