/**
 * The sums over all processes, kept by the master. Fronts report their counters since their start; what a front that died had
 * not reported is lost, at most a second of it. So no sum ever goes back: not when a worker or a front is replaced, and not
 * when another master goes on with the `snapshot` of this one.
 */
import type { Reason } from '../policy/reasons.ts';
import { cellsOf, FRONT_CELLS, LAYOUT } from './counters.ts';
import type { FrontReport } from './report.ts';

/** Where the time of a worker's threads goes, in milliseconds. */
export interface ThreadTimes {
  cpuMs: number;
  cpuWaitMs: number;
  /** Null: it cannot be measured here. */
  gilWaitMs: number | null;
  /** What was shown last, since it is a difference of estimates and must not go back. */
  ioMs: number;
}

/** A snapshot as JSON. */
export interface TotalsSnapshot {
  /** Of `front` and `workers`. */
  readonly layout: string;
  readonly startedAt: number;
  readonly front: readonly number[];
  /** By worker number. */
  readonly workers: Readonly<Record<string, readonly number[]>>;
  readonly threads: Readonly<Record<string, ThreadTimes>>;
  readonly spawns: Readonly<Record<string, number>>;
  readonly exits: Readonly<Record<string, number>>;
  readonly frontRestarts: number;
  readonly slotMs: number;
  readonly masterCpuMs: number;
  readonly masterLag: readonly number[];
}

interface Last {
  readonly cells: readonly number[];
  readonly workers: ReadonlyMap<number, readonly number[]>;
}

const NOTHING: Last = { cells: [], workers: new Map() };

export class Totals {
  /** Unix time, seconds. */
  startedAt: number;
  readonly front = new Float64Array(FRONT_CELLS);
  /** By worker number. */
  readonly workers = new Map<number, Float64Array>();
  readonly threads = new Map<number, ThreadTimes>();
  readonly spawns = new Map<Reason, number>();
  readonly exits = new Map<Reason, number>();
  frontRestarts = 0;
  /** Time that slots of ready workers, and busy ones of those that leave, were there. */
  slotMs = 0;
  /** Of masters before this one. */
  masterCpuMs = 0;
  readonly masterLag: Float64Array;
  private readonly last = new Map<number, Last>();

  constructor(startedAt: number, lagCells: number) {
    this.startedAt = startedAt;
    this.masterLag = new Float64Array(lagCells);
  }

  merge(front: number, report: Pick<FrontReport, 'cells' | 'workers'>): void {
    const last = this.last.get(front) ?? NOTHING;
    addDifference(this.front, report.cells, last.cells);
    for (const { number, cells } of report.workers)
      addDifference(this.worker(number), cells, last.workers.get(number) ?? []);
    this.last.set(front, {
      cells: report.cells,
      workers: new Map(report.workers.map(({ number, cells }) => [number, cells])),
    });
  }

  /** The next report is of another process. */
  frontEnded(front: number): void {
    this.last.delete(front);
  }

  worker(number: number): Float64Array {
    return cellsOf(this.workers, number);
  }

  count(kind: 'spawns' | 'exits', reason: Reason): void {
    this[kind].set(reason, (this[kind].get(reason) ?? 0) + 1);
  }

  /** The same sum of one cell over all workers. */
  overWorkers(at: number): number {
    let sum = 0;
    for (const cells of this.workers.values()) sum += cells[at] ?? 0;
    return sum;
  }

  snapshot(): TotalsSnapshot {
    return {
      layout: LAYOUT,
      startedAt: this.startedAt,
      front: Array.from(this.front),
      workers: Object.fromEntries(Array.from(this.workers, ([number, cells]) => [number, Array.from(cells)])),
      threads: Object.fromEntries(Array.from(this.threads, ([number, times]) => [number, { ...times }])),
      spawns: Object.fromEntries(this.spawns),
      exits: Object.fromEntries(this.exits),
      frontRestarts: this.frontRestarts,
      slotMs: this.slotMs,
      masterCpuMs: this.masterCpuMs,
      masterLag: Array.from(this.masterLag),
    };
  }

  /** Adds what another master had counted before this one, or counts on beside it. False: it counts otherwise, being of another version. */
  restore(before: TotalsSnapshot): boolean {
    if (before.layout !== LAYOUT) return false;
    this.startedAt = Math.min(this.startedAt, before.startedAt);
    addDifference(this.front, before.front, []);
    for (const [number, cells] of Object.entries(before.workers)) addDifference(this.worker(Number(number)), cells, []);
    for (const [number, times] of Object.entries(before.threads)) {
      const present = this.threads.get(Number(number));
      if (present === undefined) this.threads.set(Number(number), { ...times });
      else {
        present.cpuMs += times.cpuMs;
        present.cpuWaitMs += times.cpuWaitMs;
        present.ioMs += times.ioMs;
        if (times.gilWaitMs !== null) present.gilWaitMs = (present.gilWaitMs ?? 0) + times.gilWaitMs;
      }
    }
    for (const kind of ['spawns', 'exits'] as const) {
      for (const [reason, number] of Object.entries(before[kind]))
        this[kind].set(reason as Reason, (this[kind].get(reason as Reason) ?? 0) + number);
    }
    this.frontRestarts += before.frontRestarts;
    this.slotMs += before.slotMs;
    this.masterCpuMs += before.masterCpuMs;
    addDifference(this.masterLag, before.masterLag, []);
    return true;
  }
}

/** Adds `now - before` to `sums`. A cell that is missing counts as 0. */
function addDifference(sums: Float64Array, now: readonly number[], before: readonly number[]): void {
  for (let at = 0; at < sums.length; at++) (sums[at] as number) += (now[at] ?? 0) - (before[at] ?? 0);
}

/** What `later` has more than `earlier`, of the same server. */
export function difference(later: TotalsSnapshot, earlier: TotalsSnapshot): TotalsSnapshot {
  return { ...(subtract(later, earlier) as TotalsSnapshot), startedAt: later.startedAt };
}

/** Numbers of plain data, wherever they stand in it. */
function subtract(later: unknown, earlier: unknown): unknown {
  if (typeof later === 'number') return later - (typeof earlier === 'number' ? earlier : 0);
  if (Array.isArray(later)) {
    const before = Array.isArray(earlier) ? earlier : [];
    return later.map((value, at) => subtract(value, before[at]));
  }
  if (typeof later !== 'object' || later === null) return later;
  const before = (earlier ?? {}) as Readonly<Record<string, unknown>>;
  return Object.fromEntries(Object.entries(later).map(([name, value]) => [name, subtract(value, before[name])]));
}
