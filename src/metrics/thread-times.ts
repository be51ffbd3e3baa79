/**
 * Where the time of a worker's threads goes, read from outside by the master, so that no request pays for it and a worker whose
 * interpreter stands still can be read too. Linux only.
 *
 * Processor time, and time without a processor, are exact: /proc/PID/task/TID/schedstat counts both in nanoseconds.
 *
 * The wait for the interpreter's lock is sampled. A thread that waits for it sleeps in futex(2) at an address inside the lock,
 * which the worker finds out at its start (nunicorn_worker/gil.py); /proc/PID/task/TID/syscall shows the address a thread
 * sleeps at. A sample stands for half of the time since the one before and half of that until the next; they come at random
 * intervals, so that they do not beat with what the app does. While nothing runs they are seldom. How long an interval is was
 * decided before the sample at its beginning was taken: that would favour what it found.
 *
 * The kernel lets only an ancestor with the same user, or root, look: without it there is no such metric.
 */
import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import type { ThreadTimes, Totals } from './totals.ts';

/** The worker's threads that run requests, and where its interpreter's lock is. */
export interface WorkerThreads {
  readonly serial: number;
  readonly number: number;
  readonly pid: number;
  readonly threadIds: readonly number[];
  /** Null: not to be told apart from other sleeps, or nothing to wait for. */
  readonly gilAddress: bigint | null;
}

/** The condition variables and mutexes of the lock lie together. */
const GIL_BYTES = 512n;
/** Between two samples, in the mean. */
const BUSY_INTERVAL_MS = 20;
const IDLE_INTERVAL_MS = 200;
/** What the kernel says of a thread that does not sleep. */
const RUNNING = 'running\n';
/** Threads looked at in a second, at most: each costs some 10 us. */
const MAX_LOOKS_PER_SECOND = 400;

interface Thread {
  readonly worker: WorkerThreads;
  readonly schedstat: number;
  readonly syscall: number | null;
  cpuMs: number;
  cpuWaitMs: number;
  /** The last sample: where it slept, and whether that is inside the lock. */
  sleep: string;
  waits: boolean;
}

export class ThreadSampler {
  private readonly totals: Totals;
  private readonly unreadable: (pid: number) => void;
  private readonly threads = new Map<number, readonly Thread[]>();
  private timer: NodeJS.Timeout | null = null;
  private sampledAt = 0;
  /** Whether a thread had moved, at the last sample. */
  private moved = true;
  private readonly buffer = Buffer.alloc(256);

  /** `unreadable`: the wait for the lock cannot be measured for this worker. */
  constructor(totals: Totals, unreadable: (pid: number) => void) {
    this.totals = totals;
    this.unreadable = unreadable;
  }

  /** Also when it has other threads than before. */
  add(worker: WorkerThreads): void {
    this.read();
    this.remove(worker.serial);
    const times = this.timesOf(worker.number);
    const readable = worker.gilAddress !== null && this.canSeeSleep(worker);
    if (readable) times.gilWaitMs ??= 0;
    else if (worker.gilAddress !== null && isThere(worker)) this.unreadable(worker.pid);
    const threads: Thread[] = [];
    for (const id of worker.threadIds) {
      const folder = `/proc/${worker.pid}/task/${id}`;
      try {
        const schedstat = openSync(`${folder}/schedstat`, 'r');
        const [cpuMs, cpuWaitMs] = this.readSchedstat(schedstat);
        threads.push({
          worker,
          schedstat,
          syscall: readable ? openSync(`${folder}/syscall`, 'r') : null,
          cpuMs,
          cpuWaitMs,
          sleep: '',
          waits: false,
        });
      } catch {
        // It is gone already, or the system has no such file.
      }
    }
    this.threads.set(worker.serial, threads);
    if (readable && this.timer === null) {
      this.sampledAt = performance.now();
      this.next();
    }
  }

  remove(serial: number): void {
    for (const { schedstat, syscall } of this.threads.get(serial) ?? []) {
      closeSync(schedstat);
      if (syscall !== null) closeSync(syscall);
    }
    this.threads.delete(serial);
  }

  stop(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    for (const serial of [...this.threads.keys()]) this.remove(serial);
  }

  /** Brings processor times up to date. */
  read(): void {
    for (const thread of this.all()) {
      try {
        const [cpuMs, cpuWaitMs] = this.readSchedstat(thread.schedstat);
        const times = this.timesOf(thread.worker.number);
        times.cpuMs += cpuMs - thread.cpuMs;
        times.cpuWaitMs += cpuWaitMs - thread.cpuWaitMs;
        thread.cpuMs = cpuMs;
        thread.cpuWaitMs = cpuWaitMs;
      } catch {
        // The thread has ended; its worker is about to be removed.
      }
    }
  }

  private *all(): Generator<Thread> {
    for (const threads of this.threads.values()) yield* threads;
  }

  private next(): void {
    let count = 0;
    for (const { syscall } of this.all()) if (syscall !== null) count++;
    this.timer = setTimeout(() => this.sample(), intervalMs(this.moved, count, Math.random()));
    this.timer.unref();
  }

  private sample(): void {
    this.next(); // before the threads are looked at
    const time = performance.now();
    const elapsedMs = time - this.sampledAt;
    this.sampledAt = time;
    this.moved = false;
    for (const thread of this.all()) {
      if (thread.syscall === null) continue;
      const waited = thread.waits;
      this.look(thread, thread.syscall);
      const waitedMs = betweenSamplesMs(elapsedMs, waited, thread.waits);
      if (waitedMs === 0) continue;
      const times = this.timesOf(thread.worker.number);
      times.gilWaitMs = (times.gilWaitMs ?? 0) + waitedMs;
    }
  }

  private look(thread: Thread, syscall: number): void {
    const sleep = this.readText(syscall);
    if (sleep === thread.sleep && sleep !== RUNNING) return;
    this.moved = true;
    thread.sleep = sleep;
    thread.waits = waitsAt(sleep, thread.worker.gilAddress);
  }

  private canSeeSleep(worker: WorkerThreads): boolean {
    try {
      const fd = openSync(`/proc/${worker.pid}/task/${worker.threadIds[0]}/syscall`, 'r');
      try {
        return this.readText(fd) !== '';
      } finally {
        closeSync(fd);
      }
    } catch {
      return false;
    }
  }

  /** Empty: it cannot be read. */
  private readText(fd: number): string {
    try {
      return this.buffer.toString('latin1', 0, readSync(fd, this.buffer, 0, this.buffer.length, 0));
    } catch {
      return '';
    }
  }

  /** Processor time and time without a processor, in milliseconds. */
  private readSchedstat(fd: number): [number, number] {
    const bytes = readSync(fd, this.buffer, 0, this.buffer.length, 0);
    const [cpuNs, waitNs] = this.buffer.toString('latin1', 0, bytes).split(' ');
    return [Number(cpuNs) / 1e6, Number(waitNs) / 1e6];
  }

  private timesOf(number: number): ThreadTimes {
    let times = this.totals.threads.get(number);
    if (times === undefined) {
      times = { cpuMs: 0, cpuWaitMs: 0, gilWaitMs: null, ioMs: 0 };
      this.totals.threads.set(number, times);
    }
    return times;
  }
}

/** From the sample that is now to the next. `moved`: a thread had, at the one before this. `random`: 0 to 1. */
export function intervalMs(moved: boolean, threads: number, random: number): number {
  const leastMs = moved ? BUSY_INTERVAL_MS : IDLE_INTERVAL_MS;
  return Math.max(leastMs, (1000 * threads) / MAX_LOOKS_PER_SECOND) * (0.5 + random);
}

/** How long a thread has waited between two samples that found it waiting or not. */
export function betweenSamplesMs(elapsedMs: number, before: boolean, after: boolean): number {
  return (elapsedMs * (Number(before) + Number(after))) / 2;
}

/** `text`: `NUMBER ARGUMENT ...` of the system call that a thread sleeps in, or `running`. */
export function waitsAt(text: string, gilAddress: bigint | null): boolean {
  const argument = text.split(' ', 2)[1];
  if (gilAddress === null || argument === undefined || !argument.startsWith('0x')) return false;
  const distance = BigInt(argument) - gilAddress;
  return distance < GIL_BYTES && distance > -GIL_BYTES;
}

/** A worker may have ended before the master hears that it was ready. */
function isThere({ pid, threadIds: [id] }: WorkerThreads): boolean {
  return existsSync(`/proc/${pid}/task/${id}`);
}
