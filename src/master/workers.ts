/**
 * The Python workers. There are --workers seats, numbered from 1; on each sits one worker. Whatever the reason, a worker is
 * changed in one way: the next one is started, and when it is ready the one before it is drained and leaves.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { unlink } from 'node:fs';
import { join } from 'node:path';
import { EXIT } from '../errors.ts';
import type { WorkerAddress } from '../front/messages.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { Backoff } from '../policy/backoff.ts';
import { REASONS, type Reason, rank } from '../policy/reasons.ts';
import { seatsToReplace, withJitter } from '../policy/replacement.ts';
import { PYTHON_PACKAGE_DIR } from '../settings/python.ts';
import type { ControlConnection, FromPython } from './control-server.ts';

/** Settings of a Python process, as `nunicorn_worker` takes them. */
export interface PythonConfig {
  readonly app: string;
  readonly threads: number;
  readonly workers: number;
  readonly chdir: string;
  readonly pythonpath: string | null;
  readonly umask: number;
  readonly uid: number | null;
  readonly gid: number | null;
  readonly errorlog: string;
  readonly loglevel: string;
  readonly software: string;
  readonly argv: readonly string[];
  readonly token: string;
}

export interface WorkersOptions {
  readonly count: number;
  readonly python: string;
  readonly env: Readonly<Record<string, string>>;
  readonly config: PythonConfig;
  readonly preload: boolean;
  /** The server's private folder. */
  readonly folder: string;
  readonly controlPath: string;
  /** `nunicorn: worker 1 [app]` of a role and a number. */
  title(role: string): string;
  readonly gracefulTimeoutMs: number;
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
  ready(address: WorkerAddress): void;
  /** The fronts shall send no more to this worker; `drained` is called when it runs nothing. */
  drain(serial: number): void;
  /** A worker's process is started. */
  spawned(serial: number, number: number, reason: Reason): void;
  /** It is gone. */
  exited(serial: number, number: number, reason: Reason): void;
  /** No worker has ever been ready, and none will. */
  bootFailed(exitCode: 3 | 4): void;
  /** After `stop`: the last one is gone. */
  allGone(): void;
}

type State = 'starting' | 'ready' | 'draining' | 'leaving';

interface Worker {
  readonly serial: number;
  readonly seat: Seat;
  readonly startedAt: number;
  state: State;
  pid: number | null;
  child: ChildProcess | null;
  /** The mold it is a child of. */
  mold: Mold | null;
  control: ControlConnection | null;
  readyAt: number | null;
  /** Why it was started. */
  readonly reason: Reason;
  /** Why it is to be replaced. */
  wish: Reason | null;
  /** Why it was told to go, or killed. */
  end: Reason | null;
  /** Requests it has answered, as its front said last. */
  served: number;
  /** With its jitter. 0: none. */
  readonly requestLimit: number;
  readonly lifetimeMs: number;
  /** A thread is stuck in a request: it cannot leave by itself. */
  stuck: boolean;
  timers: NodeJS.Timeout[];
}

interface Seat {
  readonly number: number;
  readonly backoff: Backoff;
  current: Worker | null;
  /** The replacement of `current`, not ready yet. */
  next: Worker | null;
  restart: NodeJS.Timeout | null;
  /** A replacement did not boot: not before this another one. */
  notBefore: number;
}

interface Mold {
  readonly serial: number;
  readonly child: ChildProcess;
  readonly startedAt: number;
  control: ControlConnection | null;
  ready: boolean;
}

function newSeat(number: number): Seat {
  return { number, backoff: new Backoff(), current: null, next: null, restart: null, notBefore: 0 };
}

/** The memory that holds a process's arguments is what its title can fill. */
const TITLE_ROOM = ' '.repeat(120);
/** From SIGABRT to SIGKILL. */
const ABORT_MS = 1000;
/** How often the workers are looked at. */
const TICK_MS = 1000;

export class Workers {
  private readonly options: WorkersOptions;
  private readonly handler: WorkersHandler;
  private readonly log: ErrorLog;
  private readonly seats: Seat[] = [];
  private readonly bySerial = new Map<number, Worker>();
  private mold: Mold | null = null;
  private readonly moldBackoff = new Backoff();
  private lastSerial = 0;
  private everReady = false;
  private ticker: NodeJS.Timeout | null = null;
  private moldEnd: Reason = 'mold';
  private stopping = false;
  private released = false;
  private readonly waitingForRelease: (() => void)[] = [];

  constructor(options: WorkersOptions, handler: WorkersHandler, log: ErrorLog) {
    this.options = options;
    this.handler = handler;
    this.log = log;
  }

  /** Starts the interpreters. They get their settings, and so import the app, when `release` is called. */
  start(): void {
    for (let number = 1; number <= this.options.count; number++) {
      this.seats.push(newSeat(number));
    }
    if (this.options.preload) this.startMold();
    else for (const seat of this.seats) seat.next = this.spawn(seat, 'boot');
    this.ticker = setInterval(() => this.tick(), TICK_MS);
  }

  release(): void {
    this.released = true;
    for (const answer of this.waitingForRelease.splice(0)) answer();
  }

  /** The workers that are ready: for a front that has just begun. */
  addresses(): WorkerAddress[] {
    return [...this.bySerial.values()]
      .filter((worker) => worker.state === 'ready')
      .map((worker) => this.address(worker));
  }

  /** A request ran into --timeout and its thread has not come back: no more for this worker, and another one. */
  stuck(serial: number): void {
    const worker = this.bySerial.get(serial);
    if (worker !== undefined) this.giveUp(worker, 'timeout');
  }

  /** The worker has answered as many requests as its address allows. */
  requestLimitReached(serial: number): void {
    const worker = this.bySerial.get(serial);
    if (worker !== undefined) this.wish(worker, 'max_requests');
  }

  /** How many requests a worker has answered by now. */
  served(serial: number, requests: number): void {
    const worker = this.bySerial.get(serial);
    if (worker !== undefined) worker.served = requests;
  }

  /** The fronts have nothing more running in this worker. */
  drained(serial: number): void {
    const worker = this.bySerial.get(serial);
    if (worker === undefined || worker.state !== 'draining') return;
    this.leave(worker);
  }

  /** Ends all of them, by force after `limitMs`. */
  stop(limitMs: number): void {
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
      if (worker.state === 'starting') this.kill(worker, 'SIGKILL');
      else this.leave(worker, limitMs);
    }
    this.checkAllGone();
  }

  /** Replaces the workers in turn, each when the next one is ready. If one does not boot, the rest stay. */
  reload(): void {
    this.moldEnd = 'reload';
    for (const seat of this.seats) {
      if (seat.current !== null) this.wish(seat.current, 'reload');
      // It may have imported the code of before, or hang in it.
      if (seat.next !== null) this.discard(seat.next, 'reload');
    }
    this.mold?.control?.say({ op: 'leave' }); // the next mold replaces its workers
  }

  /** One worker more. */
  add(): void {
    const number = 1 + Math.max(0, ...this.seats.map((seat) => seat.number));
    const seat = newSeat(number);
    this.seats.push(seat);
    seat.next = this.spawn(seat, 'scale_up');
  }

  /** One worker less, the one with the highest number; the last one stays. */
  remove(): void {
    const seat = this.seats.at(-1);
    if (seat === undefined || this.seats.length < 2) return;
    this.seats.pop();
    if (seat.restart !== null) clearTimeout(seat.restart);
    if (seat.next !== null) this.discard(seat.next, 'scale_down');
    if (seat.current !== null) this.drain(seat.current, 'scale_down');
  }

  reopenLogs(): void {
    for (const worker of this.bySerial.values()) worker.control?.say({ op: 'reopen' });
  }

  killAll(): void {
    for (const worker of this.bySerial.values()) this.kill(worker, 'SIGKILL');
    this.mold?.child.kill('SIGKILL');
  }

  // ---- what Python processes say

  called(serial: number, pid: number, connection: ControlConnection): void {
    const answer = (): void => this.introduce(serial, pid, connection);
    if (this.released) answer();
    else this.waitingForRelease.push(answer);
  }

  said(serial: number, message: FromPython): void {
    if (this.mold?.serial === serial) {
      this.moldSaid(this.mold, message);
      return;
    }
    const worker = this.bySerial.get(serial);
    if (worker === undefined) return;
    if (message.op === 'ready') this.ready(worker);
    else if (message.op === 'leaving') this.askedToLeave(worker, message.signal);
  }

  hungUp(serial: number): void {
    const worker = this.bySerial.get(serial);
    // A worker whose mold is dead has nobody else to tell of its end.
    if (worker !== undefined && worker.child === null && worker.pid !== null && worker.mold !== this.mold) {
      this.ended(worker, null, null);
    }
  }

  private introduce(serial: number, pid: number, connection: ControlConnection): void {
    if (this.mold?.serial === serial) {
      this.mold.control = connection;
      connection.say({ ...this.options.config, role: 'mold', title: this.options.title('mold'), preloaded: false });
      return;
    }
    const worker = this.bySerial.get(serial);
    if (worker === undefined) return;
    worker.pid = pid;
    worker.control = connection;
    connection.say({
      ...this.options.config,
      role: 'worker',
      title: this.options.title(`worker ${worker.seat.number}`),
      preloaded: this.options.preload,
      socket_path: this.socketPath(serial),
      begun_path: this.begunPath(serial),
      stacks_path: this.stacksPath(serial),
    });
  }

  private ready(worker: Worker): void {
    if (this.stopping || worker.state !== 'starting') return;
    const { seat } = worker;
    worker.state = 'ready';
    worker.readyAt = performance.now();
    this.everReady = true;
    const before = seat.current;
    seat.current = worker;
    if (seat.next === worker) seat.next = null;
    this.handler.ready(this.address(worker));
    if (before !== null) this.drain(before, before.wish ?? worker.reason);
    this.plan();
  }

  private askedToLeave(worker: Worker, signal: string): void {
    this.log.info(`Worker (pid:${worker.pid}) was sent ${signal}: it finishes what it runs and is replaced`);
    this.wish(worker, 'signal');
  }

  // ---- who is replaced

  private tick(): void {
    const now = performance.now();
    for (const worker of this.bySerial.values()) {
      const { readyAt, lifetimeMs } = worker;
      if (lifetimeMs > 0 && readyAt !== null && now - readyAt >= lifetimeMs) this.wish(worker, 'max_lifetime');
    }
    this.plan();
  }

  /** The worker is to be replaced, when it is its turn. */
  private wish(worker: Worker, reason: Reason): void {
    if (worker.state !== 'ready' || worker.seat.current !== worker) return;
    if (worker.wish !== null && rank(worker.wish) <= rank(reason)) return;
    worker.wish = reason;
    this.plan();
  }

  private plan(): void {
    if (this.stopping || (this.options.preload && !this.mold?.ready)) return;
    const views = this.seats.map((seat) => ({
      number: seat.number,
      wish: seat.current?.wish ?? null,
      readyAt: seat.current?.readyAt ?? null,
      replacing: seat.next !== null,
      notBefore: seat.notBefore,
    }));
    for (const number of seatsToReplace(views, this.options.recycling.minWorkerLifetimeMs, performance.now())) {
      const seat = this.seats.find((one) => one.number === number);
      const wish = seat?.current?.wish;
      if (seat === undefined || seat.next !== null || !wish) continue;
      this.log.info(`Worker ${number} (pid:${seat.current?.pid}) is replaced: ${REASONS[wish].text}`);
      seat.next = this.spawn(seat, wish);
    }
  }

  /** The worker gets nothing more from now on, and another one takes its seat. */
  private giveUp(worker: Worker, reason: Reason): void {
    if (worker.stuck) return;
    worker.stuck = true;
    this.wish(worker, reason);
    this.drain(worker, reason);
  }

  // ---- the life of a worker

  private spawn(seat: Seat, reason: Reason): Worker {
    const serial = ++this.lastSerial;
    const { maxRequests, maxRequestsJitter, maxLifetimeMs, maxLifetimeJitterMs } = this.options.recycling;
    const worker: Worker = {
      serial,
      seat,
      startedAt: performance.now(),
      state: 'starting',
      pid: null,
      child: null,
      mold: null,
      control: null,
      readyAt: null,
      reason,
      wish: null,
      end: null,
      served: 0,
      requestLimit: withJitter(maxRequests, maxRequestsJitter, Math.random()),
      lifetimeMs: withJitter(maxLifetimeMs, maxLifetimeJitterMs, Math.random()),
      stuck: false,
      timers: [],
    };
    this.bySerial.set(serial, worker);
    this.handler.spawned(serial, seat.number, reason);
    if (this.options.preload) {
      if (this.mold?.ready) this.mold.control?.say({ op: 'fork', serial });
      return worker;
    }
    const child = this.spawnPython(serial);
    worker.child = child;
    child.on('error', (error) => {
      this.log.error(`Python could not be started: ${error.message}`);
      if (child.pid === undefined) this.ended(worker, null, null);
    });
    child.on('exit', (code, signal) => this.ended(worker, code, signal));
    return worker;
  }

  private spawnPython(serial: number): ChildProcess {
    return spawn(this.options.python, [join(PYTHON_PACKAGE_DIR, 'start_worker.py'), TITLE_ROOM], {
      // A group of its own, so that it can be killed with all that the app starts, and Ctrl-C reaches the master alone.
      detached: true,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: {
        ...this.options.env,
        NUNICORN_CONTROL: this.options.controlPath,
        NUNICORN_TOKEN: this.options.config.token,
        NUNICORN_SERIAL: String(serial),
      },
    });
  }

  /** Ends a worker that is not ready and is not wanted any more. */
  private discard(worker: Worker, reason: Reason): void {
    worker.end = reason;
    if (worker.pid === null && worker.child === null)
      this.ended(worker, null, null); // not even forked
    else this.kill(worker, 'SIGKILL');
  }

  private drain(worker: Worker, reason: Reason): void {
    if (worker.state !== 'ready') return;
    worker.end ??= reason;
    worker.state = 'draining';
    this.handler.drain(worker.serial);
    // Only a stuck thread, or a request that takes long, keeps it from being drained.
    worker.timers.push(setTimeout(() => this.abort(worker), this.options.gracefulTimeoutMs));
  }

  private leave(worker: Worker, limitMs = this.options.gracefulTimeoutMs): void {
    if (worker.state !== 'leaving') {
      worker.state = 'leaving';
      worker.control?.say({ op: 'leave' });
    }
    worker.timers.push(setTimeout(() => this.abort(worker), worker.stuck ? 0 : limitMs));
  }

  private abort(worker: Worker): void {
    this.kill(worker, 'SIGABRT');
    worker.timers.push(setTimeout(() => this.kill(worker, 'SIGKILL'), ABORT_MS));
  }

  private kill(worker: Worker, signal: NodeJS.Signals): void {
    const pid = worker.pid ?? worker.child?.pid;
    if (pid === undefined) return;
    try {
      process.kill(signal === 'SIGKILL' ? -pid : pid, signal);
    } catch {
      // It is gone already.
    }
  }

  private ended(worker: Worker, code: number | null, signal: NodeJS.Signals | null): void {
    if (!this.bySerial.delete(worker.serial)) return;
    for (const timer of worker.timers) clearTimeout(timer);
    this.kill(worker, 'SIGKILL'); // what the app has left in its group
    const { seat } = worker;
    if (seat.current === worker) seat.current = null;
    if (seat.next === worker) seat.next = null;
    this.handler.exited(worker.serial, seat.number, endOf(worker));
    const { serial } = worker;
    for (const path of [this.socketPath(serial), this.begunPath(serial), this.stacksPath(serial)])
      unlink(path, () => {});
    if (this.stopping) {
      this.checkAllGone();
      return;
    }
    const end = endOf(worker);
    if (worker.end === null || worker.state === 'draining') this.logEnd(worker, code, signal);
    if (REASONS[end].failure) this.replaceDead(worker, end, code);
    else this.fill(seat, end, 0);
    this.plan();
  }

  private logEnd(worker: Worker, code: number | null, signal: NodeJS.Signals | null): void {
    const pid = worker.pid ?? worker.child?.pid;
    if (signal === 'SIGKILL') this.log.error(`Worker (pid:${pid}) was sent SIGKILL! Perhaps out of memory?`);
    else if (signal !== null) this.log.warning(`Worker (pid:${pid}) was sent ${signal}!`);
    else this.log.error(`Worker (pid:${pid}) exited with code ${code}.`);
  }

  private replaceDead(worker: Worker, end: Reason, code: number | null): void {
    if (!this.everReady) {
      this.handler.bootFailed(code === EXIT.APP_LOAD_ERROR ? code : EXIT.WORKER_BOOT_ERROR);
      return;
    }
    const { seat } = worker;
    const diedAt = performance.now();
    const delayMs = seat.backoff.delayAfter({ startedAt: worker.startedAt, readyAt: worker.readyAt, diedAt });
    if (seat.current?.state === 'ready') {
      this.replacementFailed(seat, worker.reason, diedAt + delayMs);
      return;
    }
    if (delayMs > 0) this.log.warning(`Worker ${seat.number} is started again in ${delayMs / 1000} s`);
    this.fill(seat, end, delayMs);
  }

  /** What replaces `seat`'s worker did not boot. */
  private replacementFailed(seat: Seat, reason: Reason, notBefore: number): void {
    seat.notBefore = notBefore;
    if (reason !== 'reload') {
      this.log.error(`The replacement of worker ${seat.number} did not boot: the worker stays for now`);
      return;
    }
    this.log.error(`The replacement of worker ${seat.number} did not boot: the worker stays`);
    // The code that does not boot will not do so for the others either.
    for (const { current } of this.seats) if (current?.wish === 'reload') current.wish = null;
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
    if (this.bySerial.size > 0) return;
    if (this.mold === null) this.handler.allGone();
    else if (this.mold.control === null) this.mold.child.kill('SIGKILL');
    else this.mold.control.say({ op: 'leave' });
  }

  // ---- the mold

  private startMold(): void {
    const serial = ++this.lastSerial;
    const child = this.spawnPython(serial);
    const mold: Mold = { serial, child, startedAt: performance.now(), control: null, ready: false };
    this.mold = mold;
    child.on('error', (error) => {
      this.log.error(`Python could not be started: ${error.message}`);
      if (child.pid === undefined) this.moldEnded(mold, null);
    });
    child.on('exit', (code) => this.moldEnded(mold, code));
  }

  private moldSaid(mold: Mold, message: FromPython): void {
    if (message.op === 'ready') {
      mold.ready = true;
      for (const { next } of this.seats) {
        if (next !== null && next.pid === null) mold.control?.say({ op: 'fork', serial: next.serial });
      }
      for (const seat of this.seats) {
        if (seat.current === null && seat.next === null) this.fill(seat, 'boot', 0);
        else if (seat.current !== null) this.wish(seat.current, this.moldEnd);
      }
      this.moldEnd = 'mold';
      this.plan();
    } else if (message.op === 'forked') {
      const worker = this.bySerial.get(message.serial);
      if (worker !== undefined) {
        worker.pid = message.pid;
        worker.mold = mold;
      }
    } else if (message.op === 'exited') {
      const worker = [...this.bySerial.values()].find((one) => one.pid === message.pid);
      if (worker !== undefined) this.ended(worker, message.code, message.signal);
    }
  }

  private moldEnded(mold: Mold, code: number | null): void {
    this.mold = null;
    if (this.stopping) {
      this.checkAllGone();
      return;
    }
    if (!this.everReady) {
      this.handler.bootFailed(code === EXIT.APP_LOAD_ERROR ? code : EXIT.WORKER_BOOT_ERROR);
      return;
    }
    const delayMs = this.moldBackoff.delayAfter({
      startedAt: mold.startedAt,
      readyAt: mold.ready ? mold.startedAt : null,
      diedAt: performance.now(),
    });
    if (code === 0) {
      this.startMold(); // it was told to go: a reload
      return;
    }
    this.log.error(`The mold (pid:${mold.child.pid}) has died; its workers go on until a new one replaces them`);
    setTimeout(() => {
      if (!this.stopping) this.startMold();
    }, delayMs);
  }

  // ----

  private address(worker: Worker): WorkerAddress {
    return {
      serial: worker.serial,
      number: worker.seat.number,
      pid: worker.pid ?? 0,
      threads: this.options.config.threads,
      served: worker.served,
      requestLimit: worker.requestLimit,
      socketPath: this.socketPath(worker.serial),
      begunPath: this.begunPath(worker.serial),
      stacksPath: this.stacksPath(worker.serial),
    };
  }

  private socketPath(serial: number): string {
    return join(this.options.folder, `worker-${serial}.sock`);
  }

  private stacksPath(serial: number): string {
    return join(this.options.folder, `worker-${serial}.stacks`);
  }

  private begunPath(serial: number): string {
    return join(this.options.folder, `worker-${serial}.begun`);
  }
}

/** Why a worker is gone. */
function endOf(worker: Worker): Reason {
  return worker.end ?? (worker.readyAt === null ? 'boot_failed' : 'crash');
}
