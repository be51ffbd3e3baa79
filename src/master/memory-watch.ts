/** Looks at the memory of each worker once a second and has those replaced or killed that use too much. */
import { readFile } from 'node:fs/promises';
import { now } from '../clock.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { readMemoryUse } from '../machine.ts';
import { CgroupWatch, type MemoryLimits, megabytes, WorkerMemory } from '../policy/memory.ts';
import type { Reason } from '../policy/reasons.ts';
import { residentMemory } from '../resident.ts';

export interface MemoryWatchOptions extends MemoryLimits {
  /** The workers share the memory of a mold: what is shared counts in parts, where that decides. */
  readonly shared: boolean;
}

/** A worker that serves. */
export interface WatchedWorker {
  readonly serial: number;
  readonly number: number;
  readonly pid: number;
  readonly served: number;
}

export interface MemoryWatchHandler {
  workers(): readonly WatchedWorker[];
  recycle(serial: number, reason: Reason): void;
  kill(serial: number, reason: Reason): void;
}

const INTERVAL_MS = 1000;
/** PSS takes the kernel 20 ms per GiB: where it was below the limit it is not read again for so long. */
const SHARED_PAUSE_MS = 10_000;

interface Watched {
  readonly memory: WorkerMemory;
  /** RSS is over the limit but PSS is not: to be read again then. */
  sharedUntil: number;
  wished: boolean;
}

export class MemoryWatch {
  private options: MemoryWatchOptions;
  private readonly handler: MemoryWatchHandler;
  private readonly log: ErrorLog;
  private readonly watched = new Map<number, Watched>();
  private readonly cgroup = new CgroupWatch();
  private running = false;
  /** A cgroup limits the server's memory: asked at the start, and at each reload. */
  private grouped = false;
  private timer: NodeJS.Timeout | null = null;

  constructor(options: MemoryWatchOptions, handler: MemoryWatchHandler, log: ErrorLog) {
    this.options = options;
    this.handler = handler;
    this.log = log;
  }

  /** Begins, unless nothing limits memory. */
  start(): void {
    this.grouped = readMemoryUse() !== null;
    this.running = true;
    this.next();
  }

  set limits(options: MemoryWatchOptions) {
    this.options = options;
    this.grouped = readMemoryUse() !== null;
    if (this.running && this.timer === null) this.next();
  }

  stop(): void {
    this.running = false;
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }

  private next(): void {
    this.timer = null;
    const { soft, hard } = this.options;
    if (!this.running || (soft === 0 && hard === 0 && !this.grouped)) return;
    this.timer = setTimeout(() => void this.look().then(() => this.next()), INTERVAL_MS);
  }

  private async look(): Promise<void> {
    const { soft, hard } = this.options;
    const group = this.grouped ? readMemoryUse() : null;
    const time = now();
    const groupIsFull = group !== null && this.cgroup.isDue(group.used, group.limit, time);
    const groupFills = group !== null && this.cgroup.isFilling(group.used, group.limit);
    if (soft === 0 && hard === 0 && !groupFills) return;
    const workers = this.handler.workers();
    const serials = new Set(workers.map(({ serial }) => serial));
    for (const serial of this.watched.keys()) if (!serials.has(serial)) this.watched.delete(serial);
    const resident = await residentMemory(workers.map(({ pid }) => pid));
    for (const worker of workers) {
      const bytes = resident.get(worker.pid);
      if (bytes !== undefined) await this.judge(worker, bytes);
    }
    if (!groupIsFull) return;
    const memories = new Map([...this.watched].map(([serial, { memory }]) => [serial, memory]));
    const fattest = this.cgroup.choose(memories, time);
    const worker = workers.find(({ serial }) => serial === fattest);
    if (worker === undefined) return;
    const [used, limit] = [group.used, group.limit].map((bytes) => megabytes(bytes).toFixed(0));
    this.log.warning(
      `${used} MB of the ${limit} MB that the server's cgroup may have are used. ` +
        `Worker ${worker.number} (pid:${worker.pid}) has most: ${memories.get(worker.serial)?.describe()}`,
    );
    this.handler.recycle(worker.serial, 'cgroup_memory');
  }

  private async judge(worker: WatchedWorker, resident: number): Promise<void> {
    const { serial, number, pid, served } = worker;
    let watched = this.watched.get(serial);
    if (watched === undefined) {
      watched = { memory: new WorkerMemory(), sharedUntil: 0, wished: false };
      this.watched.set(serial, watched);
    }
    const bytes = this.options.shared ? await this.withoutShared(watched, pid, resident) : resident;
    const step = watched.memory.sample(bytes, served, this.options);
    const { soft, hard } = this.options;
    const text = `Worker ${number} (pid:${pid}) uses ${watched.memory.describe()}`;
    if (step === 'kill') {
      this.log.error(`${text}, over --memory-limit-hard ${megabytes(hard)} MB: killed`);
      this.handler.kill(serial, 'memory_hard');
    } else if (step === 'recycle' && !watched.wished) {
      watched.wished = true;
      this.log.warning(`${text}, over --memory-limit ${megabytes(soft)} MB`);
      this.handler.recycle(serial, 'memory');
    }
  }

  /** PSS instead of RSS, where RSS is over a limit: it counts a shared page as a part of one (Linux). */
  private async withoutShared(watched: Watched, pid: number, resident: number): Promise<number> {
    const limit = Math.min(...[this.options.soft, this.options.hard].filter((one) => one > 0));
    if (resident <= limit) return resident;
    if (now() < watched.sharedUntil) return watched.memory.bytes;
    try {
      const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'latin1');
      const kibibytes = /^Pss:\s+(\d+) kB$/m.exec(rollup)?.[1];
      if (kibibytes === undefined) return resident;
      const bytes = Number(kibibytes) * 1024;
      if (bytes <= limit) watched.sharedUntil = now() + SHARED_PAUSE_MS;
      return bytes;
    } catch {
      return resident; // another system, or it has just ended
    }
  }
}
