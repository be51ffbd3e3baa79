import { EXIT, NunicornError } from '../errors.ts';
import type { LoadResult } from './load/load.ts';

/** What is promised to clients: so many of 100 requests are answered within so many milliseconds. */
export interface Slo {
  readonly percentile: 50 | 90 | 99;
  readonly ms: number;
}

/** Of the offered rate; below it the server falls behind. */
const ACHIEVED = 0.98;
/** The window may miss or gain so many answers at its ends without that saying anything. */
const EDGE = 3;

/**
 * @param text e.g. `p99<300ms`, `p90 < 0.5s`
 * @throws {NunicornError} if it is of another form
 */
export function parseSlo(text: string): Slo {
  const match = /^\s*p(50|90|99)\s*<=?\s*(\d+(?:\.\d+)?)\s*(ms|s)\s*$/.exec(text);
  const percentile = ([50, 90, 99] as const).find((known) => String(known) === match?.[1]);
  const ms = Number(match?.[2]) * (match?.[3] === 's' ? 1000 : 1);
  if (percentile === undefined || !(ms > 0))
    throw new NunicornError(
      `--slo '${text}': a percentile and a time are needed, such as p99<300ms, p90<0.5s or p50<20ms`,
      EXIT.USAGE,
    );
  return { percentile, ms };
}

export function showSlo({ percentile, ms }: Slo): string {
  return `p${percentile}<${ms >= 10 ? Math.round(ms) : ms}ms`;
}

/** An SLO for who names none: ten times the time an unhindered request takes, at least 100 ms. */
export function defaultSlo(unhinderedMs: number): Slo {
  const ms = Math.max(100, 10 * unhinderedMs);
  const digits = 10 ** Math.floor(Math.log10(ms));
  return { percentile: 99, ms: Math.ceil((ms / digits) * 2) * (digits / 2) };
}

/** Whether a window at a set rate kept the promise: latency, nothing failed, and the server did not fall behind. */
export function isWithin(
  slo: Slo,
  {
    latency,
    failures,
    intended,
    completed,
    seconds,
  }: Pick<LoadResult, 'latency' | 'failures' | 'intended' | 'completed' | 'seconds'>,
): boolean {
  const at = { 50: latency.p50Ms, 90: latency.p90Ms, 99: latency.p99Ms }[slo.percentile];
  const failed = Object.values(failures).some((count) => count > 0);
  // Those that are under way when the window ends are no sign of falling behind.
  const underWay = (intended / seconds) * (latency.p50Ms / 1000);
  return !failed && at <= slo.ms && completed + underWay >= ACHIEVED * intended - EDGE;
}
