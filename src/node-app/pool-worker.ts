/**
 * A worker whose main thread keeps the clients and the queue, as a front does, and whose threads run the app: under gthread one
 * request at a time each, under async any number. To the dispatcher a thread is a worker with as many slots. Whatever the reason, a thread is changed in one way: the next
 * one is started, and when it is ready the one before it gets no more and ends when it runs nothing.
 */
import { after, now } from '../clock.ts';
import type { Dispatcher, DispatchWorker, Slot } from '../dispatch/dispatcher.ts';
import { NunicornError } from '../errors.ts';
import type { ClientServer, ClientServerParts } from '../front/client-server.ts';
import type { Exchange } from '../front/exchange.ts';
import type { FrontMetrics } from '../front/front-metrics.ts';
import { Intake, type Runner } from '../front/intake.ts';
import { cut, finishWithPage, sendComplete, sendHead } from '../front/respond.ts';
import { attachHandle } from '../listening-handle.ts';
import type { Access } from '../log/access.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { OUTCOME } from '../metrics/counters.ts';
import type { FrontReport } from '../metrics/report.ts';
import { Backoff } from '../policy/backoff.ts';
import { deadlineStep, GIVEN_UP, INTERRUPT_MS } from '../policy/deadline.ts';
import { pingStep } from '../policy/liveness.ts';
import { withJitter } from '../policy/replacement.ts';
import { appStack } from './app-stack.ts';
import { AppThread } from './app-thread.ts';
import { BodyFeed, type BodyFeedHandler } from './body-feed.ts';
import { changeFolder } from './chdir.ts';
import type { Engine, EngineHandler } from './main.ts';
import type { NodeWorkerConfig } from './messages.ts';
import { type FromThread, requestsAtATime, type ThreadAnswer, toWire } from './thread-messages.ts';
import { Tunnel } from './tunnel.ts';

/** Under async, after an error that nobody caught: how long the thread's other requests have to be answered. */
const LAST_ANSWERS_MS = 5000;
/** How long a thread that is stuck has to tell where. */
const STACK_MS = 1000;

/** A thread that runs requests, as the metrics see it. */
interface Attached {
  readonly address: { readonly serial: number; readonly number: number };
  readonly firstThread: number;
  readonly worker: { readonly slots: readonly Slot<Exchange>[] };
  readonly draining: boolean;
  readonly takeBusyMs?: () => number;
}

/** The place of thread 1 to --threads. */
interface Seat {
  readonly number: number;
  readonly backoff: Backoff;
  current: AppThread | null;
  /** The replacement of `current`, not ready yet. */
  next: AppThread | null;
  restart: NodeJS.Timeout | null;
}

export class PoolWorker implements Engine {
  served = 0;
  private readonly config: NodeWorkerConfig;
  private readonly handler: EngineHandler;
  private readonly log: ErrorLog;
  private readonly intake: Intake;
  private readonly clients: ClientServer;
  private readonly dispatcher: Dispatcher<Exchange>;
  /** What a thread runs at a time. */
  private readonly atATime: number;
  private readonly seats: Seat[] = [];
  private readonly threads = new Map<number, AppThread>();
  private readonly metrics: FrontMetrics | null;
  /** By the thread's serial. */
  private readonly attached = new Map<number, Attached>();
  /** Of requests whose bodies are still coming, by the request's id. */
  private readonly feeds = new Map<number, BodyFeed>();
  private readonly feedHandler: BodyFeedHandler = {
    tooLarge: (exchange) => this.bodyTooLarge(exchange),
    fed: ({ id }) => void this.feeds.delete(id),
  };
  /** Connections that the app has taken over, by the id of the request that did it. */
  private readonly tunnels = new Map<number, Tunnel>();
  private lastSerial = 0;
  private everReady = false;
  private listening = 0;
  /** Called when the last thread has ended. */
  private ended: (() => void) | null = null;

  /** `metrics`: null if nobody wants them. */
  constructor(
    config: NodeWorkerConfig,
    parts: ClientServerParts,
    handler: EngineHandler,
    log: ErrorLog,
    access: Access | null,
    metrics: FrontMetrics | null,
  ) {
    this.config = config;
    this.handler = handler;
    this.log = log;
    this.atATime = requestsAtATime(config);
    this.metrics = metrics;
    const runner: Runner = {
      oneAtATime: this.atATime === 1, // under async a thread waits for many at a time
      send: (slot, exchange) => this.send(slot, exchange),
      takeBack: (slot) => this.takeBack(slot),
      cancel: (exchange) => this.cancel(exchange),
      fail: (exchange, status, message, outcome, extraHeaders) =>
        this.fail(exchange, status, message, outcome, extraHeaders),
      sweep: (time) => this.sweep(time),
      stopped: () => this.handler.stopped(),
      pids: () => [],
    };
    const policy = { takesOpenBodies: true, endIsLeaving: true };
    this.intake = new Intake(config.front, runner, policy, log, access, parts, metrics);
    this.dispatcher = this.intake.dispatcher;
    this.clients = this.intake.clients;
    metrics?.watch(this.dispatcher, this.clients, this.attached);
    for (let number = 1; number <= config.threads; number++) {
      const seat: Seat = { number, backoff: new Backoff(), current: null, next: null, restart: null };
      this.seats.push(seat);
      seat.next = this.startThread(seat);
    }
  }

  report(asked: number | null, withRequests: boolean): FrontReport | null {
    return this.intake.report(asked, withRequests);
  }

  listen(index: number, handle: unknown): void {
    const { listeners, backlog } = this.config.front;
    const listener = listeners[index];
    if (listener === undefined) return;
    const listening = (): void => {
      this.listening++;
      if (this.listening === listeners.length) this.handler.ready();
    };
    attachHandle(this.clients.createServer(listener), handle, backlog, listening, (code) =>
      this.handler.listenFailed(code, listener),
    );
  }

  stop(graceful: boolean, idleMs: number): void {
    this.intake.stop(graceful, idleMs);
  }

  reopenLogs(): void {
    for (const thread of this.threads.values()) thread.say({ op: 'reopen-logs' });
  }

  async stacks(): Promise<string> {
    const stacks: string[] = [];
    // One after the other: two inspectors at a time get in each other's way.
    for (const thread of this.threads.values())
      stacks.push(`Thread ${thread.number}:\n${await thread.stack(STACK_MS)}`);
    return stacks.join('\n\n');
  }

  threw(error: unknown): void {
    // The app is not here: this is a defect of ours.
    this.handler.bootFailed(error);
  }

  async end(): Promise<boolean> {
    this.intake.close();
    await new Promise<void>((done) => {
      this.ended = done;
      for (const { restart } of this.seats) if (restart !== null) clearTimeout(restart);
      for (const thread of this.threads.values()) this.endThread(thread);
      this.checkEnded();
    });
    return false;
  }

  // ---- the life of a thread

  private startThread(seat: Seat): AppThread {
    const serial = ++this.lastSerial;
    const { maxRequests, maxRequestsJitter } = this.config;
    const limit = withJitter(maxRequests, maxRequestsJitter, Math.random());
    const thread = new AppThread(serial, seat.number, limit, this.config, now(), {
      said: (one, message) => this.said(one, message),
      threw: (one, error) => this.threadThrew(one, error),
      ended: (one, code) => this.threadEnded(one, code),
    });
    this.threads.set(serial, thread);
    return thread;
  }

  private threadReady(thread: AppThread): void {
    const seat = this.seatOf(thread);
    if (seat?.next !== thread) return;
    const before = seat.current;
    seat.current = thread;
    seat.next = null;
    thread.readyAt = now();
    thread.answeredAt = thread.readyAt;
    thread.dispatched = this.dispatcher.addWorker(thread.serial, this.atATime);
    if (this.metrics !== null) this.watchThread(thread, thread.dispatched);
    this.dispatcher.dispatch(now());
    if (before !== null) {
      this.drain(before);
      // One that runs many may have a stream among them that never ends.
      if (this.atATime > 1) after(this.config.gracefulTimeoutMs, () => before.kill());
    }
    if (this.everReady || this.seats.some(({ current }) => current === null)) return;
    this.everReady = true;
    void this.handler.imported().then(() => this.handler.loaded());
  }

  private watchThread(thread: AppThread, worker: DispatchWorker<Exchange>): void {
    const { serial, front } = this.config;
    this.attached.set(thread.serial, {
      address: { serial, number: front.number },
      firstThread: thread.number,
      worker: this.atATime === 1 ? worker : asOneSlot(worker),
      get draining() {
        return thread.draining;
      },
      ...(this.atATime === 1 ? {} : { takeBusyMs: () => thread.takeBusyMs() }),
    });
    this.handler.threads([...this.threads.values()].flatMap(({ systemId }) => systemId ?? []));
  }

  /** No more requests for this thread; it ends when it runs nothing. */
  private drain(thread: AppThread): void {
    if (thread.dispatched === null || thread.draining) return;
    thread.draining = true;
    this.dispatcher.drain(thread.dispatched);
    for (const slot of thread.dispatched.slots) this.takeBack(slot);
    if (thread.dispatched.outstanding === 0) this.endThread(thread);
  }

  /** Its event loop does not turn. Where it stands is logged with `text`; then it is ended, and what it runs fails. */
  private endStuck(thread: AppThread, text: string): void {
    this.replace(thread);
    this.drain(thread);
    void thread.stack(STACK_MS).then((stack) => {
      this.log.critical(`${text}\n${stack}`);
      thread.kill();
      // It hangs in code that is no JavaScript: only the end of the process helps.
      setTimeout(() => {
        if (this.threads.has(thread.serial)) this.handler.stuck();
      }, INTERRUPT_MS).unref();
    });
  }

  /** Another thread is to take its place. */
  private replace(thread: AppThread, delayMs = 0): void {
    const seat = this.seatOf(thread);
    if (seat?.current === thread) this.startNext(seat, delayMs);
  }

  private startNext(seat: Seat, delayMs: number): void {
    if (seat.next !== null || seat.restart !== null) return;
    seat.restart = setTimeout(() => {
      seat.restart = null;
      seat.next = this.startThread(seat);
    }, delayMs);
  }

  private endThread(thread: AppThread): void {
    if (thread.ending) return;
    thread.ending = true;
    thread.say({ op: 'end' });
    after(this.config.gracefulTimeoutMs, () => thread.kill());
  }

  private threadThrew(thread: AppThread, error: unknown): void {
    const isMemory = (error as NodeJS.ErrnoException | null | undefined)?.code === 'ERR_WORKER_OUT_OF_MEMORY';
    this.log.critical(
      isMemory
        ? `Thread ${thread.number} needed more memory than it may have (--thread-memory-limit)`
        : `Uncaught error in the application, in thread ${thread.number}\n${appStack(error)}`,
    );
  }

  /** Under async: what else the thread runs may finish, but not for long. */
  private threadFailed(thread: AppThread, stack: string): void {
    this.log.critical(`Uncaught error in the application, in thread ${thread.number}\n${stack}`);
    if (thread.readyAt === null) {
      thread.kill();
      return;
    }
    if (!thread.draining && !thread.ending)
      this.replace(thread, this.delayAfter(thread, thread.dispatched?.outstanding !== 0));
    this.drain(thread);
    setTimeout(() => thread.kill(), LAST_ANSWERS_MS).unref();
  }

  private threadEnded(thread: AppThread, code: number): void {
    this.threads.delete(thread.serial);
    this.attached.delete(thread.serial);
    this.intake.forget(thread);
    for (const tunnel of this.tunnels.values()) if (tunnel.thread === thread) tunnel.close();
    const { dispatched } = thread;
    let hasBegun = false;
    if (dispatched !== null) {
      const failed = this.dispatcher.removeWorker(dispatched, (exchange) => thread.hasBegun(exchange.id), now());
      hasBegun = failed.length > 0;
      for (const exchange of failed) this.lost(exchange, thread);
    }
    if (this.ended !== null) {
      this.checkEnded();
      return;
    }
    const seat = this.seatOf(thread);
    if (seat === undefined) return;
    if (!thread.ending) this.log.error(`Thread ${thread.number} ended with code ${code}`);
    if (seat.current === thread) seat.current = null;
    else if (seat.next === thread) seat.next = null;
    else return;
    if (!this.everReady) {
      this.handler.bootFailed(new NunicornError(`thread ${thread.number} ended before it was ready`, 3));
      return;
    }
    if (seat.next !== null || seat.restart !== null) return;
    // One that was told to end is no failure; one that has never been ready is, whoever ended it.
    const told = thread.ending && thread.readyAt !== null;
    this.startNext(seat, told ? 0 : this.delayAfter(thread, hasBegun));
  }

  /** An app that fails as soon as it is ready will do so again: its threads are replaced after a while only. */
  private delayAfter(thread: AppThread, hasBegun: boolean): number {
    const { startedAt, readyAt, served } = thread;
    const death = { startedAt, readyAt, hasBegun: hasBegun || served > 0, diedAt: now() };
    return this.seatOf(thread)?.backoff.delayAfter(death) ?? 0;
  }

  private checkEnded(): void {
    if (this.threads.size === 0) this.ended?.();
  }

  private seatOf(thread: AppThread): Seat | undefined {
    return this.seats[thread.number - 1];
  }

  // ---- requests

  private cancel(exchange: Exchange): void {
    this.stopFeed(exchange);
    this.threadOf(exchange.slot)?.say({ op: 'cancel', id: exchange.id, why: null });
  }

  private send(slot: Slot<Exchange>, exchange: Exchange): AppThread | null {
    const thread = this.threadOf(slot);
    if (thread === undefined) return null;
    exchange.workerPid = process.pid;
    exchange.worker = this.config.front.number;
    exchange.thread = thread.number;
    thread.send(exchange);
    if (exchange.bodyOpen) this.feed(exchange, thread);
    return thread;
  }

  /** What was sent ahead and has not begun runs elsewhere. */
  private takeBack(slot: Slot<Exchange>): void {
    const thread = this.threadOf(slot);
    if (thread === undefined) return;
    const ids = slot.requests.slice(1).flatMap(({ id }) => (thread.takeBack(id) ? [id] : []));
    if (ids.length === 0) return;
    this.dispatcher.takeBack(slot);
    this.dispatcher.takenBack(slot, new Set(ids), now());
  }

  private threadOf(slot: Slot<Exchange> | null): AppThread | undefined {
    return slot === null ? undefined : this.threads.get(slot.worker.serial);
  }

  // ---- answers

  private said(thread: AppThread, message: FromThread): void {
    if (!('op' in message)) {
      for (const answer of message) this.answered(thread, answer);
      return;
    }
    switch (message.op) {
      case 'running-as':
        thread.systemId = message.systemId;
        return;
      case 'chdir':
        changeFolder(message);
        return;
      case 'imported':
        if (!this.everReady) this.handler.waitsForApp();
        return;
      case 'ready':
        this.threadReady(thread);
        return;
      case 'pong':
        thread.pingedAt = null;
        thread.answeredAt = now();
        return;
      case 'threw':
        this.threadFailed(thread, message.stack);
        return;
      case 'boot-failed':
        thread.ending = true;
        if (!this.everReady) this.handler.bootFailed(new NunicornError(message.message, message.exitCode));
        this.log.error(message.message);
        thread.kill();
    }
  }

  private answered(thread: AppThread, answer: ThreadAnswer): void {
    const [kind, id] = answer;
    const exchange = thread.exchangeOf(id);
    const slot = exchange?.slot;
    if (exchange === null || !slot || slot.requests[0] !== exchange) {
      this.tunnels.get(id)?.said(answer); // or it was given up
      return;
    }
    switch (kind) {
      case 'taken':
        exchange.pieceAt = now();
        this.feeds.get(id)?.taken(answer[2]);
        return;
      case 'answer': {
        const [, , status, head, last, body, appUs] = answer;
        this.over(thread, slot, exchange, appUs);
        if (exchange.phase !== 'dispatched') return;
        exchange.closeAfter ||= last;
        sendComplete(exchange, status, head, toWire(body), this.clients.closes(exchange.connection));
        this.clients.over(exchange);
        return;
      }
      case 'head':
        exchange.pieceAt = now();
        if (exchange.phase !== 'dispatched') return;
        exchange.phase = 'answering';
        exchange.closeAfter ||= answer[4];
        sendHead(exchange, answer[2], answer[3], this.clients.closes(exchange.connection));
        exchange.response.flushHeaders();
        return;
      case 'data':
        this.sendPiece(thread, exchange, answer[2]);
        return;
      case 'end': {
        const [, , appUs, trailers] = answer;
        this.over(thread, slot, exchange, appUs);
        if (exchange.phase !== 'answering') return;
        if (trailers.length > 0) exchange.response.addTrailers(pairs(trailers));
        if (exchange.bodyOpen) {
          this.endBeforeBody(exchange);
          return;
        }
        exchange.response.end();
        this.clients.over(exchange);
        return;
      }
      case 'interim':
        if (exchange.phase === 'dispatched' && exchange.request.httpVersionMinor > 0) {
          exchange.response.sendInterim(answer[2]);
        }
        return;
      case 'upgraded': {
        const [, , status, appUs] = answer;
        this.over(thread, slot, exchange, appUs);
        if (exchange.phase !== 'dispatched') {
          thread.say({ op: 'cancel', id, why: null });
          return;
        }
        const socket = this.clients.handOver(exchange, status);
        this.tunnels.set(id, new Tunnel(id, socket, thread, () => this.tunnels.delete(id)));
        return;
      }
      case 'error':
        this.over(thread, slot, exchange, answer[2]);
        this.log.error(`Error handling request ${exchange.request.method} ${exchange.request.url}\n${answer[3]}`);
        this.fail(exchange, 500, '', OUTCOME.app_error);
        return;
      case 'cut':
        this.over(thread, slot, exchange, answer[2]);
        if (exchange.phase === 'over') return;
        exchange.outcome = OUTCOME.cut;
        this.stopFeed(exchange);
        if (exchange.phase === 'answering') cut(exchange);
        else exchange.connection.socket.destroy();
        this.clients.over(exchange);
    }
  }

  /** The thread is free again. */
  private over(thread: AppThread, slot: Slot<Exchange>, exchange: Exchange, appUs: number): void {
    thread.release(exchange.id);
    this.served++;
    thread.served++;
    if (thread.served === thread.requestLimit) this.replace(thread);
    const time = now();
    const attached = this.attached.get(thread.serial);
    if (attached !== undefined) this.metrics?.answered(slot, attached, appUs, time);
    this.dispatcher.answered(slot, appUs, time);
    if (thread.draining && thread.dispatched?.outstanding === 0) this.endThread(thread);
  }

  /** The thread goes on as soon as the client has taken the piece, or there is room to keep it. */
  private sendPiece(thread: AppThread, exchange: Exchange, data: string | Uint8Array): void {
    exchange.pieceAt = now();
    const bytes = data.length;
    const taken = (): void => thread.say({ op: 'taken', id: exchange.id, bytes });
    if (exchange.phase !== 'answering') {
      taken();
      return;
    }
    let kept = false;
    exchange.bytesSent += bytes;
    kept = this.clients.writePiece(exchange, toWire(data), () => {
      exchange.pieceAt = now();
      if (!kept) taken();
    });
    if (kept) taken();
  }

  // ---- bodies that are still coming

  private feed(exchange: Exchange, thread: AppThread): void {
    const { limitRequestBody } = this.config.front;
    this.feeds.set(exchange.id, new BodyFeed(exchange, thread, limitRequestBody, this.feedHandler));
  }

  private stopFeed(exchange: Exchange): void {
    if (!exchange.bodyOpen) return;
    this.feeds.get(exchange.id)?.stop();
    this.feeds.delete(exchange.id);
  }

  /** The answer has been given, and nobody wants what the client still sends. It is read, lest the answer be lost in a reset. */
  private endBeforeBody(exchange: Exchange): void {
    const { response, id } = exchange;
    const last = exchange.closeAfter || !response.shouldKeepAlive || this.clients.closes(exchange.connection);
    if (!last) response.end();
    this.feeds.get(id)?.drop(() => {
      this.feeds.delete(id);
      if (last) response.end();
      this.clients.over(exchange);
    });
  }

  private bodyTooLarge(exchange: Exchange): void {
    this.failClient(exchange, 413, `The request's body is larger than ${this.config.front.limitRequestBody} bytes`);
  }

  private checkFeed(feed: BodyFeed, time: number): void {
    const { bodyTimeoutMs } = this.config.front;
    if (!feed.waits || bodyTimeoutMs === 0 || time - feed.movedAt < bodyTimeoutMs) return;
    this.failClient(feed.exchange, 408, `No piece of the request's body came for ${bodyTimeoutMs / 1000} s`);
  }

  /** The client does not send what it should: the app hears that it has left. */
  private failClient(exchange: Exchange, status: number, message: string): void {
    this.threadOf(exchange.slot)?.say({ op: 'cancel', id: exchange.id, why: null });
    this.fail(exchange, status, message, OUTCOME.refused);
  }

  // ---- what goes wrong

  private fail(
    exchange: Exchange,
    status: number,
    message: string,
    outcome: number,
    extraHeaders: readonly string[] = [],
  ): void {
    if (exchange.phase === 'over') return;
    if (exchange.bodyOpen) {
      this.stopFeed(exchange);
      this.clients.refuse(exchange, status, message, outcome, extraHeaders);
      return;
    }
    exchange.outcome = outcome;
    finishWithPage(exchange, status, message, undefined, extraHeaders);
    this.clients.over(exchange);
  }

  private lost(exchange: Exchange, thread: AppThread): void {
    if (exchange.phase === 'over') return;
    const { method, url } = exchange.request;
    const age = ((now() - exchange.startedAt) / 1000).toFixed(1);
    this.log.error(
      `Request ${method} ${url}, ${age} s old, was lost with its thread (pid:${process.pid}, thread ${thread.number})`,
    );
    this.fail(exchange, 502, 'The thread that ran this request has died', OUTCOME.worker_lost);
  }

  private sweep(time: number): void {
    for (const { slot, request } of this.dispatcher.running()) this.checkDeadline(slot, request, time);
    if (this.atATime > 1) for (const thread of this.threads.values()) this.checkAlive(thread, time);
    for (const feed of this.feeds.values()) this.checkFeed(feed, time);
  }

  private checkDeadline(slot: Slot<Exchange>, exchange: Exchange, time: number): void {
    const thread = this.threadOf(slot);
    const { timeoutMs } = this.config.front;
    const since = Math.max(slot.runningSince, exchange.pieceAt);
    const answering = exchange.phase === 'answering';
    // What the client has not taken yet is its own time, and what it has not sent. Under async a stream holds up nobody.
    const heldBack =
      (answering && (this.atATime > 1 || exchange.response.writableLength > 0)) ||
      (exchange.bodyOpen && this.feeds.get(exchange.id)?.starves === true);
    const step = deadlineStep(exchange.timedOutAt, since, heldBack, timeoutMs, time);
    if (step !== 'time-out' || thread === undefined) return;
    exchange.timedOutAt = time;
    const { method, url } = exchange.request;
    const age = ((time - exchange.startedAt) / 1000).toFixed(1);
    const text = `WORKER TIMEOUT (pid:${process.pid}): ${method} ${url}, ${age} s old, in thread ${thread.number}`;
    const why = `The application did not answer within ${timeoutMs / 1000} s`;
    this.fail(exchange, 504, why, OUTCOME.timeout);
    if (this.atATime === 1) {
      this.endStuck(thread, `${text}, which is ended`);
      return;
    }
    this.log.critical(text);
    thread.say({ op: 'cancel', id: exchange.id, why });
  }

  /** Under async: whether the thread's event loop turns. */
  private checkAlive(thread: AppThread, time: number): void {
    if (thread.readyAt === null || thread.ending) return;
    const { timeoutMs } = this.config.front;
    const step = pingStep(thread.pingedAt, thread.answeredAt, timeoutMs, time);
    if (step === 'wait' || thread.pingedAt === GIVEN_UP) return;
    if (step === 'ask') {
      thread.pingedAt = time;
      thread.say({ op: 'ping' });
      return;
    }
    thread.pingedAt = GIVEN_UP;
    const text = `thread ${thread.number} has not answered for ${timeoutMs / 1000} s and is ended`;
    this.endStuck(thread, `WORKER TIMEOUT (pid:${process.pid}): ${text}`);
  }
}

/** A thread that runs many requests, for metrics: busy while it has any. */
function asOneSlot(worker: DispatchWorker<Exchange>): Attached['worker'] {
  return {
    get slots() {
      const slot = worker.slots.find(({ requests }) => requests.length > 0) ?? worker.slots[0];
      return slot === undefined ? [] : [slot];
    },
  };
}

function pairs(flat: readonly string[]): [string, string][] {
  const result: [string, string][] = [];
  for (let at = 0; at + 1 < flat.length; at += 2) result.push([flat[at] ?? '', flat[at + 1] ?? '']);
  return result;
}
