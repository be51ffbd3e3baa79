/** The last seconds, from copies of the totals: rates, percentiles and the utilisation that /status and /metrics show. */
import { BOUNDS_MS, CODE_CLASSES, FRONT_AT, HISTOGRAM_CELLS, OUTCOMES, REQUEST_CELLS, WORKER_AT } from './counters.ts';
import type { Percentiles, PerRequest, RecentStatus } from './status.ts';
import type { Totals } from './totals.ts';

/** Over how much is averaged. */
export const WINDOW_MS = 15_000;

interface Copy {
  readonly at: number;
  readonly front: Float64Array;
  readonly busyMs: number;
  readonly slotMs: number;
  readonly answered: number;
  readonly cpuMs: number;
  readonly cpuWaitMs: number;
  readonly gilWaitMs: number | null;
}

export class Recent {
  private readonly copies: Copy[] = [];

  /** To be called once a second. `time`: milliseconds. */
  keep(totals: Totals, time: number): void {
    this.copies.push(copyOf(totals, time));
    while (this.copies.length > 1 && time - (this.copies[1]?.at ?? 0) >= WINDOW_MS) this.copies.shift();
  }

  /** The last WINDOW_MS up to now. */
  status(totals: Totals, time: number): RecentStatus {
    const now = copyOf(totals, time);
    const then = this.copies[0] ?? now;
    const cells = now.front.map((value, at) => value - (then.front[at] ?? 0));
    const seconds = (now.at - then.at) / 1000;
    let requests = 0;
    let errors = 0;
    for (let at = 0; at < REQUEST_CELLS; at++) {
      const count = cells[FRONT_AT.requests + at] ?? 0;
      requests += count;
      if (CODE_CLASSES[Math.floor(at / OUTCOMES.length)] === '5xx') errors += count;
    }
    return {
      seconds,
      requestsPerSecond: seconds > 0 ? requests / seconds : 0,
      errorRatio: requests > 0 ? errors / requests : 0,
      utilization: utilization(now, then),
      latency: percentiles(cells, FRONT_AT.whole),
      queueTime: percentiles(cells, FRONT_AT.queue),
      appTime: percentiles(cells, FRONT_AT.app),
      perRequest: perRequest(now, then),
    };
  }
}

function copyOf(totals: Totals, at: number): Copy {
  const sums = { cpuMs: 0, cpuWaitMs: 0, gilWaitMs: null as number | null };
  for (const times of totals.threads.values()) {
    sums.cpuMs += times.cpuMs;
    sums.cpuWaitMs += times.cpuWaitMs;
    if (times.gilWaitMs !== null) sums.gilWaitMs = (sums.gilWaitMs ?? 0) + times.gilWaitMs;
  }
  return {
    at,
    front: totals.front.slice(),
    busyMs: totals.overWorkers(WORKER_AT.busyMs),
    slotMs: totals.slotMs,
    answered: totals.overWorkers(WORKER_AT.requests),
    ...sums,
  };
}

/** A slot that is kept in reserve is used up: there is no processor for it. */
function utilization(now: Copy, then: Copy): number {
  const slotMs = now.slotMs - then.slotMs;
  const usedMs = now.busyMs - then.busyMs + reservedMs(now) - reservedMs(then);
  return slotMs > 0 ? Math.min(1, Math.max(0, usedMs / slotMs)) : 0;
}

function reservedMs({ front }: Copy): number {
  return front[FRONT_AT.reservedMs] ?? 0;
}

function perRequest(now: Copy, then: Copy): PerRequest | null {
  const requests = now.answered - then.answered;
  const cpuMs = now.cpuMs - then.cpuMs;
  if (requests <= 0 || now.cpuMs === 0) return null;
  const cpuWaitMs = now.cpuWaitMs - then.cpuWaitMs;
  const gilWaitMs = now.gilWaitMs === null ? null : now.gilWaitMs - (then.gilWaitMs ?? 0);
  const ioMs = Math.max(0, now.busyMs - then.busyMs - cpuMs - cpuWaitMs - (gilWaitMs ?? 0));
  const each = (milliseconds: number): number => milliseconds / 1000 / requests;
  return {
    cpu: each(cpuMs),
    gilWait: gilWaitMs === null ? null : each(gilWaitMs),
    cpuWait: each(cpuWaitMs),
    io: each(ioMs),
  };
}

/** Percentiles of the histogram at `at`, in seconds, spread evenly within a bucket. Null: it is empty. */
export function percentiles(cells: Float64Array, at: number): Percentiles | null {
  const buckets = cells.subarray(at, at + BOUNDS_MS.length + 1);
  const count = buckets.reduce((sum, bucket) => sum + bucket, 0);
  if (count <= 0) return null;
  const quantile = (share: number): number => {
    let left = share * count;
    for (const [index, bucket] of buckets.entries()) {
      const low = BOUNDS_MS[index - 1] ?? 0;
      const high = BOUNDS_MS[index] ?? low;
      if (left <= bucket) return (low + ((high - low) * left) / Math.max(bucket, 1)) / 1000;
      left -= bucket;
    }
    return (BOUNDS_MS.at(-1) ?? 0) / 1000;
  };
  const sumMs = cells[at + HISTOGRAM_CELLS - 1] ?? 0;
  return { mean: sumMs / count / 1000, p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99) };
}
