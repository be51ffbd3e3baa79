/**
 * Finds the highest rate that a cell carries within the SLO, one window at a time: up after a window within it, down after one
 * outside, with steps that halve at each turn (a staircase, Dixon and Mood 1948). One disturbed window moves the answer by one
 * step only, where a bisection would be lost for good.
 */

/** What a window at some rate said. */
export interface Trial {
  readonly perSecond: number;
  readonly within: boolean;
}

export interface RateSearch {
  /** The rate to try next. */
  readonly nextPerSecond: number;
  /** What the search believed after each window from the first turn on; empty before it. */
  readonly beliefs: readonly number[];
  /** The size of the last step, in requests per second. */
  readonly step: number;
}

/** As shares of the cell's capacity. */
const FIRST = 0.85;
const FIRST_STEP = 0.12;
const LAST_STEP = 0.02;
const HIGHEST = 1.1;
const LOWEST = 0.05;

export function rateSearch(capacity: number, trials: readonly Trial[]): RateSearch {
  let next = FIRST * capacity;
  let step = FIRST_STEP * capacity;
  let turned = false;
  const beliefs: number[] = [];
  for (const [i, { within }] of trials.entries()) {
    const before = trials[i - 1];
    if (before !== undefined && before.within !== within) {
      turned = true;
      step = Math.max(step / 2, LAST_STEP * capacity);
    } else if (!turned && !within && i > 0) {
      // Far off: an app whose latency leaves the SLO long before its throughput ends.
      step *= 1.5;
    }
    next = Math.min(HIGHEST * capacity, Math.max(LOWEST * capacity, next + (within ? step : -step)));
    if (turned) beliefs.push(next);
  }
  return { nextPerSecond: next, beliefs, step };
}

/**
 * Rates that the cell may carry within the SLO, a sample to take mean and interval of; empty if it has met it nowhere.
 *
 * @param elsewhere windows at rates that the search has not chosen: what stands in while it has not turned yet
 */
export function carriedRates(
  capacity: number,
  trials: readonly Trial[],
  elsewhere: readonly Trial[] = [],
): readonly number[] {
  const { beliefs } = rateSearch(capacity, trials);
  if (beliefs.length > 0) return beliefs;
  // No turn yet: it is as good as its best window, or has no good one.
  const kept = [...trials, ...elsewhere].filter(({ within }) => within).map(({ perSecond }) => perSecond);
  return kept.length === 0 ? [] : [Math.min(Math.max(...kept), capacity)];
}
