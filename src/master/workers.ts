/**
 * The workers. There are --workers seats, numbered from 1; on each sits one worker. Whatever the reason, a worker is changed in
 * one way: the next one is started, and when it is ready the one before it is drained and leaves. What kind of process a worker
 * is, and who serves its clients, is the business of the AppKind.
 */
import { after, now } from '../clock.ts';
import { EXIT } from '../errors.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { WorkerView } from '../metrics/view.ts';
import { Backoff } from '../policy/backoff.ts';
import { type BootStep, bootIsOver, bootReport, type Reached } from '../policy/boot.ts';
import { endStep } from '../policy/ending.ts';
import { pingStep } from '../policy/liveness.ts';
import { REASONS, type Reason, rank } from '../policy/reasons.ts';
import { seatsToReplace, withJitter } from '../policy/replacement.ts';
import type { WorkerEvents, WorkerFacts, WorkerProcess } from './app-kind.ts';
import type { WatchedWorker } from './memory-watch.ts';

export interface WorkersOptions {
  readonly count: number;
  /** At the start: each begins when the one before it is ready. */
  readonly stagger: boolean;
  readonly gracefulTimeoutMs: number;
  /** From the start of a worker until it is ready. 0: no limit. */
  readonly bootTimeoutMs: number;
  /** How long a worker's interpreter may not answer. 0: no limit. */
  readonly pingLimitMs: number;
  readonly recycling: Recycling;
}

/** When a worker has served enough. 0: never. */
export interface Recycling {
  readonly maxRequests: number;
  readonly maxRequestsJitter: number;
  readonly maxLifetimeMs: number;
  readonly maxLifetimeJitterMs: number;
  readonly minWorkerLifetimeMs: number;
}

export interface WorkersHandler {
  startWorker(facts: WorkerFacts): WorkerProcess;
  /** A worker's process is started. */
  spawned(serial: number, number: number, reason: Reason): void;
  /** It serves. */
  ready(serial: number, number: number, reason: Reason): void;
  /** It is gone. */
  exited(serial: number, number: number, reason: Reason): void;
  /** No worker has ever been ready, and none will. */
  bootFailed(exitCode: 3 | 4): void;
  /** Every seat has a worker: of the start, or of the last reload. */
  allReady(): void;
  /** A worker with what was reloaded did not boot: those of before stay. */
  reloadFailed(): void;
  /** After `stop`: the last one is gone. */
  allGone(): void;
}

type State = 'starting' | 'ready' | 'draining' | 'leaving';

interface Worker extends WorkerFacts {
  readonly seat: Seat;
  /** When it was spawned or forked. */
  startedAt: number;
  readonly reached: Reached[];
  state: State;
  process: WorkerProcess | null;
  readyAt: number | null;
  /** Why it was started. */
  readonly reason: Reason;
  /** Why it is to be replaced. */
  wish: Reason | null;
  /** Why it was told to go, or killed. */
  end: Reason | null;
  served: number;
  readonly lifetimeMs: number;
  /** A thread is stuck in a request: it cannot leave by itself. */
  stuck: boolean;
  /** When it was asked what it has not answered yet. */
  pingedAt: number | null;
  answeredAt: number;
  /** Since it is to go: see ending.ts. */
  until: number;
  abortedAt: number | null;
  /** Takes back the next look at how it goes. */
  cancelLook: () => void;
}

interface Seat {
  readonly number: number;
  backoff: Backoff;
  /** It has had a worker, or its first one is on its way. */
  begun: boolean;
  current: Worker | null;
  /** The replacement of `current`, not ready yet. */
  next: Worker | null;
  restart: NodeJS.Timeout | null;
  /** A replacement did not boot, or its app failed at once: not before this another one. */
  notBefore: number;
}

function newSeat(number: number): Seat {
  return { number, backoff: new Backoff(), begun: false, current: null, next: null, restart: null, notBefore: 0 };
}

/** How often the workers are looked at. */
const TICK_MS = 1000;
/** A signal to a whole process group (Ctrl-C, systemd's KillMode=control-group) reaches the master within it: then nothing is replaced. */
const OWN_SIGNAL_MS = 100;

export class Workers implements WorkerEvents {
  private options: WorkersOptions;
  private readonly handler: WorkersHandler;
  private readonly log: ErrorLog;
  private readonly seats: Seat[] = [];
  private readonly bySerial = new Map<number, Worker>();
  private lastSerial = 0;
  /** Workers with a higher serial have the present settings. */
  private serialBefore = 0;
  private allReadySaid = false;
  private everReady = false;
  private ticker: NodeJS.Timeout | null = null;
  private serverStops = false;
  private stopping = false;
  private quick = false;

  constructor(options: WorkersOptions, handler: WorkersHandler, log: ErrorLog) {
    this.options = options;
    this.handler = handler;
    this.log = log;
  }

  start(): void {
    for (let number = 1; number <= this.options.count; number++) this.seats.push(newSeat(number));
    this.startNext();
    this.checkAllReady();
    this.ticker = setInterval(() => this.tick(), TICK_MS);
  }

  // ---- what is told of workers

  ready(serial: number): void {
    const worker = this.bySerial.get(serial);
    if (worker === undefined || this.stopping || worker.state !== 'starting') return;
    // It said so before it heard that it is not wanted any more.
    if (worker.end !== null && worker.end !== 'boot_timeout') return;
    worker.end = null;
    const { seat } = worker;
    worker.state = 'ready';
    worker.readyAt = now();
    worker.answeredAt = worker.readyAt;
    this.everReady = true;
    this.handler.ready(serial, seat.number, worker.reason);
    const before = seat.current;
    seat.current = worker;
    if (seat.next === worker) seat.next = null;
    if (before !== null) this.drain(before, before.wish ?? worker.reason);
    this.startNext();
    this.plan();
    this.checkAllReady();
  }

  private checkAllReady(): void {
    const ready = this.seats.every(({ current }) => current !== null && current.serial > this.serialBefore);
    if (!ready || this.allReadySaid) return;
    this.allReadySaid = true;
    this.handler.allReady();
  }

  reached(serial: number, step: BootStep): void {
    const reached = this.bySerial.get(serial)?.reached;
    // Each thread of a Node app says so.
    if (!reached?.some((one) => one.step === step)) reached?.push({ step, at: now() });
  }

  pong(serial: number): void {
    const worker = this.bySerial.get(serial);
    if (worker === undefined) return;
    worker.pingedAt = null;
    worker.answeredAt = now();
  }

  askedToLeave(serial: number, why: string): void {
    after(OWN_SIGNAL_MS, () => {
      const worker = this.bySerial.get(serial);
      if (worker === undefined || this.serverStops) return;
      this.log.info(`Worker (pid:${worker.process?.pid}) was ${why}: it finishes what it runs and is replaced`);
      // Its turn comes when it is ready: until then there is nothing that could take its place.
      if (worker.state === 'starting') worker.wish = 'signal';
      else this.wish(worker, 'signal');
    });
  }

  timedOut(serial: number, servesOn: boolean): void {
    const worker = this.bySerial.get(serial);
    if (worker !== undefined) this.giveUp(worker, 'timeout', servesOn);
  }

  stuck(serial: number, servesOn: boolean): void {
    const worker = this.bySerial.get(serial);
    if (worker === undefined) return;
    this.cannotLeave(worker);
    this.giveUp(worker, 'timeout', servesOn);
  }

  recovered(serial: number): void {
    const worker = this.bySerial.get(serial);
    if (worker !== undefined && worker.end !== 'unresponsive') worker.stuck = false;
  }

  appFailed(serial: number, requests: number): void {
    const worker = this.bySerial.get(serial);
    if (worker === undefined) return;
    worker.served = requests;
    if (worker.state === 'ready') this.holdBack(worker);
    this.wish(worker, 'app_error');
    this.drain(worker, 'app_error');
  }

  requestLimitReached(serial: number): void {
    const worker = this.bySerial.get(serial);
    if (worker !== undefined) this.wish(worker, 'max_requests');
  }

  served(serial: number, requests: number): void {
    const worker = this.bySerial.get(serial);
    if (worker !== undefined) worker.served = requests;
  }

  /** Those that serve, for whoever watches them. */
  serving(): WatchedWorker[] {
    return [...this.bySerial.values()].flatMap(({ serial, number, served, state, process }) =>
      (state === 'ready' || state === 'draining') && process?.pid ? [{ serial, number, served, pid: process.pid }] : [],
    );
  }

  /** Has a worker replaced when it is its turn. */
  recycle(serial: number, reason: Reason): void {
    const worker = this.bySerial.get(serial);
    if (worker !== undefined) this.wish(worker, reason);
  }

  /** Ends a worker now: what it runs fails. */
  kill(serial: number, reason: Reason): void {
    const worker = this.bySerial.get(serial);
    if (worker === undefined) return;
    worker.end = reason;
    worker.process?.kill();
  }

  drained(serial: number): void {
    const worker = this.bySerial.get(serial);
    if (worker === undefined || worker.state !== 'draining') return;
    this.leave(worker);
  }

  ended(serial: number, code: number | null, signal: NodeJS.Signals | null, hasBegun: boolean): void {
    const worker = this.bySerial.get(serial);
    if (worker === undefined) return;
    this.bySerial.delete(serial);
    worker.cancelLook();
    const { seat } = worker;
    if (seat.current === worker) seat.current = null;
    if (seat.next === worker) seat.next = null;
    const end = endOf(worker);
    this.handler.exited(serial, seat.number, end);
    if (this.stopping) {
      this.checkAllGone();
      return;
    }
    if (worker.end === null || worker.state === 'draining') this.logEnd(worker, code, signal);
    if (REASONS[end].failure) this.replaceDead(worker, end, code, hasBegun);
    else this.fill(seat, end, end === 'app_error' ? Math.max(0, seat.notBefore - now()) : 0);
    this.plan();
  }

  outdated(): void {
    for (const { current } of this.seats) if (current !== null) this.wish(current, 'mold');
  }

  unbootable(code: number | null): void {
    this.handler.bootFailed(code === EXIT.APP_LOAD_ERROR ? code : EXIT.WORKER_BOOT_ERROR);
  }

  // ---- what the master asks for

  views(): WorkerView[] {
    const time = now();
    return [...this.bySerial.values()].map(
      ({ number, serial, process, state, stuck, reason, startedAt, readyAt, reached, served }) => ({
        number,
        serial,
        pid: process?.pid ?? null,
        state,
        stuck,
        reason,
        ageMs: time - startedAt,
        bootMs: readyAt === null ? null : readyAt - startedAt,
        reached: reached.map(({ step, at }) => ({ step, afterMs: at - startedAt })),
        served,
      }),
    );
  }

  /** The clients get their answers, then comes `stop`. Who is sent a signal meanwhile got it along with the master. */
  expectStop(): void {
    this.serverStops = true;
  }

  /** Ends all of them, by force after `limitMs`. `quick`: requests were not waited for. */
  stop(limitMs: number, quick: boolean): void {
    this.quick = quick;
    if (!this.stopping) {
      this.stopping = true;
      if (this.ticker !== null) clearInterval(this.ticker);
      for (const seat of this.seats) {
        if (seat.restart !== null) clearTimeout(seat.restart);
        seat.restart = null;
      }
    }
    for (const worker of this.bySerial.values()) {
      worker.end ??= 'shutdown';
      if (worker.state === 'starting' && !worker.process?.accepts) worker.process?.kill();
      else this.leave(worker, limitMs);
    }
    this.checkAllGone();
  }

  /**
   * New settings, and the app anew: replaces the workers in turn, each when the next one is ready. If one does not boot, the
   * rest stay. There are as many workers as the settings say, whatever was added and removed since the start.
   */
  reload(options: WorkersOptions): void {
    this.options = options;
    this.serialBefore = this.lastSerial;
    this.allReadySaid = false;
    while (this.seats.length > options.count) this.removeLast();
    for (const seat of this.seats) {
      // How often the code of before has failed says nothing of this one.
      if (seat.restart !== null) clearTimeout(seat.restart);
      seat.restart = null;
      seat.notBefore = 0;
      seat.backoff = new Backoff();
      // It may have imported the code of before, or hang in it.
      if (seat.next !== null) this.discard(seat.next, 'reload');
      if (seat.current !== null) this.wish(seat.current, 'reload');
      if (seat.begun) this.fill(seat, 'reload', 0);
    }
    while (this.seats.length < options.count) this.add();
    this.checkAllReady();
  }

  /** One worker more. */
  add(): void {
    const number = 1 + Math.max(0, ...this.seats.map((seat) => seat.number));
    const seat = newSeat(number);
    seat.begun = true;
    this.seats.push(seat);
    seat.next = this.spawn(seat, 'scale_up');
  }

  /** One worker less, the one with the highest number; the last one stays. */
  remove(): void {
    if (this.seats.length > 1) this.removeLast();
    this.checkAllReady();
  }

  get count(): number {
    return this.seats.length;
  }

  private removeLast(): void {
    const seat = this.seats.pop();
    if (seat === undefined) return;
    if (seat.restart !== null) clearTimeout(seat.restart);
    if (seat.next !== null) this.discard(seat.next, 'scale_down');
    if (seat.current !== null) this.drain(seat.current, 'scale_down');
  }

  /** The worker finishes what it runs and is replaced. */
  replace(serial: number): void {
    const worker = this.bySerial.get(serial);
    if (worker !== undefined) this.wish(worker, 'signal');
  }

  /** The stacks of all threads of a worker. */
  async stacks(serial: number): Promise<string> {
    const process = this.bySerial.get(serial)?.process;
    if (!process) return 'the worker is gone';
    return await new Promise((resolve) => process.stacks(true, resolve));
  }

  reopenLogs(): void {
    for (const worker of this.bySerial.values()) worker.process?.reopenLogs();
  }

  killAll(): void {
    for (const worker of this.bySerial.values()) worker.process?.kill();
  }

  // ---- who is replaced

  private tick(): void {
    const time = now();
    for (const worker of this.bySerial.values()) {
      if (worker.state === 'starting') this.checkBoot(worker, time);
      else if (worker.state === 'ready') this.checkReady(worker, time);
    }
    this.plan();
  }

  private checkReady(worker: Worker, time: number): void {
    const { readyAt, lifetimeMs, requestLimit, served } = worker;
    if (lifetimeMs > 0 && readyAt !== null && time - readyAt >= lifetimeMs) this.wish(worker, 'max_lifetime');
    // Told once already; but a reload that has failed since has taken the place of that wish.
    if (requestLimit > 0 && served >= requestLimit) this.wish(worker, 'max_requests');
    const step = pingStep(worker.pingedAt, worker.answeredAt, this.options.pingLimitMs, time);
    if (step === 'ask') {
      worker.pingedAt = time;
      worker.process?.ping();
    } else if (step === 'give-up') this.unresponsive(worker);
  }

  private checkBoot(worker: Worker, time: number): void {
    // A worker that waits for its mold has not begun.
    if (worker.process?.pid === null) worker.startedAt = time;
    if (worker.end !== null || !bootIsOver(worker.startedAt, this.options.bootTimeoutMs, time)) return;
    worker.end = 'boot_timeout';
    worker.process?.stacks(false, (stacks) => {
      if (worker.state !== 'starting') return; // it was ready after all
      this.log.critical(
        `Worker ${worker.number} (pid:${worker.process?.pid}) did not boot within ${this.options.bootTimeoutMs / 1000} s ` +
          `(--boot-timeout): it hangs ${bootReport(worker.startedAt, worker.reached)}\n${stacks}`,
      );
      if (worker.process?.accepts) this.finish(worker);
      else worker.process?.kill();
    });
  }

  /** Code in C holds the interpreter's lock, an event loop stands still, or something has stopped the process. */
  private unresponsive(worker: Worker): void {
    if (worker.end !== null) return;
    worker.end = 'unresponsive';
    worker.process?.stacks(false, (stacks) => {
      this.log.critical(
        `WORKER TIMEOUT (pid:${worker.process?.pid}): worker ${worker.number} ` +
          `has not answered for ${this.options.pingLimitMs / 1000} s\n${stacks}`,
      );
      // Not before: the signal that ends it would end the writing of its stacks.
      if (!this.bySerial.has(worker.serial)) return;
      this.cannotLeave(worker);
      this.giveUp(worker, 'unresponsive', false);
    });
  }

  /** The worker is to be replaced, when it is its turn. */
  private wish(worker: Worker, reason: Reason): void {
    if (worker.state !== 'ready' || worker.seat.current !== worker) return;
    if (worker.wish !== null && rank(worker.wish) <= rank(reason)) return;
    worker.wish = reason;
    this.plan();
  }

  private plan(): void {
    if (this.stopping) return;
    const views = this.seats.map((seat) => ({
      number: seat.number,
      wish: seat.current?.wish ?? null,
      readyAt: seat.current?.readyAt ?? null,
      serves: seat.current?.state === 'ready',
      replacing: seat.next !== null,
      notBefore: seat.notBefore,
    }));
    for (const number of seatsToReplace(views, this.options.recycling.minWorkerLifetimeMs, now())) {
      const seat = this.seats.find((one) => one.number === number);
      const wish = seat?.current?.wish;
      if (seat === undefined || seat.next !== null || !wish) continue;
      this.log.info(`Worker ${number} (pid:${seat.current?.process?.pid}) is replaced: ${REASONS[wish].text}`);
      seat.next = this.spawn(seat, wish);
    }
  }

  private cannotLeave(worker: Worker): void {
    worker.stuck = true;
    this.advanceEnd(worker);
  }

  /**
   * The worker is replaced. Unless it serves on until the next one is ready it leaves at once: an app that can run only once, since
   * its import opens a port, boots when it has.
   */
  private giveUp(worker: Worker, reason: Reason, servesOn: boolean): void {
    this.wish(worker, reason);
    if (servesOn) return;
    this.drain(worker, reason);
    this.plan();
  }

  // ---- the life of a worker

  /** At the start: workers for the seats that have had none, all of them or, with --stagger, the next. */
  private startNext(): void {
    for (const seat of this.seats.filter((one) => !one.begun)) {
      if (this.options.stagger && this.seats.some((one) => one.next !== null)) return;
      seat.begun = true;
      seat.next = this.spawn(seat, 'boot');
    }
  }

  private spawn(seat: Seat, reason: Reason): Worker {
    const serial = ++this.lastSerial;
    const { maxRequests, maxRequestsJitter, maxLifetimeMs, maxLifetimeJitterMs } = this.options.recycling;
    const worker: Worker = {
      serial,
      number: seat.number,
      seat,
      startedAt: now(),
      reached: [],
      state: 'starting',
      process: null,
      readyAt: null,
      reason,
      wish: null,
      end: null,
      served: 0,
      requestLimit: withJitter(maxRequests, maxRequestsJitter, Math.random()),
      lifetimeMs: withJitter(maxLifetimeMs, maxLifetimeJitterMs, Math.random()),
      stuck: false,
      pingedAt: null,
      answeredAt: 0,
      until: Number.POSITIVE_INFINITY,
      abortedAt: null,
      cancelLook: () => {},
    };
    this.bySerial.set(serial, worker);
    this.handler.spawned(serial, seat.number, reason);
    worker.process = this.handler.startWorker(worker);
    return worker;
  }

  /** Ends a worker that is not ready and is not wanted any more. */
  private discard(worker: Worker, reason: Reason): void {
    worker.end = reason;
    if (!worker.process?.accepts) {
      worker.process?.kill();
      return;
    }
    worker.seat.next = null; // nobody waits for its clients
    this.finish(worker);
  }

  private drain(worker: Worker, reason: Reason): void {
    if (worker.state !== 'ready') return;
    worker.end ??= reason;
    this.finish(worker);
  }

  /** It runs what it has begun, then it leaves. */
  private finish(worker: Worker): void {
    worker.state = 'draining';
    worker.process?.drain();
    this.limitEnd(worker, this.options.gracefulTimeoutMs);
  }

  private leave(worker: Worker, limitMs = this.options.gracefulTimeoutMs): void {
    if (worker.state !== 'leaving') {
      worker.state = 'leaving';
      worker.process?.leave(this.quick);
    }
    this.limitEnd(worker, limitMs);
  }

  private limitEnd(worker: Worker, limitMs: number): void {
    worker.until = Math.min(worker.until, now() + limitMs);
    this.advanceEnd(worker);
  }

  /** Has a worker that is to go do so. */
  private advanceEnd(worker: Worker): void {
    worker.cancelLook();
    const { state, stuck, until, abortedAt } = worker;
    if (state !== 'draining' && state !== 'leaving') return;
    const step = endStep({ state, stuck, until, abortedAt }, now());
    if (step.kind === 'wait') worker.cancelLook = after(step.ms, () => this.advanceEnd(worker));
    else if (step.kind === 'kill') worker.process?.kill();
    else {
      worker.abortedAt = now();
      worker.process?.abort();
      this.advanceEnd(worker);
    }
  }

  private logEnd(worker: Worker, code: number | null, signal: NodeJS.Signals | null): void {
    const pid = worker.process?.pid ?? null;
    if (pid === null) return; // it was never there: whoever could not start it has said why
    if (worker.readyAt === null) {
      const how = signal === null ? howEnded(code) : `was sent ${signal}`;
      const when = bootReport(worker.startedAt, worker.reached);
      this.log.error(`Worker ${worker.number} (pid:${pid}) did not boot: it ${how} ${when}`);
    } else if (signal === 'SIGKILL') this.log.error(`Worker (pid:${pid}) was sent SIGKILL! Perhaps out of memory?`);
    else if (signal !== null) this.log.warning(`Worker (pid:${pid}) was sent ${signal}!`);
    else this.log.error(`Worker (pid:${pid}) ${howEnded(code)}.`);
  }

  private replaceDead(worker: Worker, end: Reason, code: number | null, hasBegun: boolean): void {
    if (!this.everReady) {
      this.unbootable(code);
      return;
    }
    const { seat } = worker;
    const diedAt = now();
    const delayMs = seat.backoff.delayAfter({ startedAt: worker.startedAt, readyAt: worker.readyAt, hasBegun, diedAt });
    seat.notBefore = diedAt + delayMs;
    if (seat.current?.state === 'ready') {
      this.replacementFailed(seat, seat.current);
      return;
    }
    if (delayMs > 0) this.log.warning(`Worker ${seat.number} is started again in ${delayMs / 1000} s`);
    this.fill(seat, end, delayMs);
  }

  /** An app that fails as soon as it serves will do so again: its worker is replaced after a while only. */
  private holdBack({ seat, startedAt, readyAt, served }: Worker): void {
    const time = now();
    const delayMs = seat.backoff.delayAfter({ startedAt, readyAt, hasBegun: served > 0, diedAt: time });
    if (delayMs === 0) return;
    this.log.warning(`Worker ${seat.number} is started again in ${delayMs / 1000} s`);
    seat.notBefore = time + delayMs;
    after(delayMs, () => this.plan());
  }

  /** What replaces `seat`'s worker did not boot. */
  private replacementFailed(seat: Seat, worker: Worker): void {
    // Whatever else the worker of before was to be replaced for.
    const isReload = worker.serial <= this.serialBefore;
    // The code that does not boot will not do so for the others either.
    if (isReload) for (const { current } of this.seats) if (current?.wish === 'reload') current.wish = null;
    this.log.error(`The replacement of worker ${seat.number} did not boot: the worker stays${staysHow(worker)}`);
    if (isReload) this.handler.reloadFailed();
  }

  /** Puts a worker on an empty seat. */
  private fill(seat: Seat, reason: Reason, delayMs: number): void {
    const served = seat.current?.state === 'ready';
    if (served || seat.next !== null || seat.restart !== null || !this.seats.includes(seat)) return;
    seat.restart = setTimeout(() => {
      seat.restart = null;
      if (seat.next === null) seat.next = this.spawn(seat, reason);
    }, delayMs);
  }

  private checkAllGone(): void {
    if (this.bySerial.size === 0) this.handler.allGone();
  }
}

/** `code` is null where nobody was there to see it. */
function howEnded(code: number | null): string {
  return code === null ? 'ended, how is not known' : `exited with code ${code}`;
}

/** Of a worker whose replacement did not boot. */
function staysHow({ wish }: Worker): string {
  if (wish === null) return '';
  return wish === 'timeout' ? ' for now, without the threads whose requests ran into --timeout' : ' for now';
}

/** Why a worker is gone. */
function endOf(worker: Worker): Reason {
  return worker.end ?? (worker.readyAt === null ? 'boot_failed' : 'crash');
}
