/**
 * The highest rate that a cell carries within the SLO: where to look next, and what the windows so far say about it.
 *
 * Looking: up after a window within the SLO, down after one outside, with steps that halve at each turn (a staircase, Dixon and
 * Mood 1948). One disturbed window costs one step, where a bisection would be lost for good.
 *
 * Saying: a logistic curve through all windows, pass against rate, whose middle is the answer. Windows are few and each says only
 * yes or no, but what a cell can do at full speed is known far better. So the answer is looked for as a share of that, near the
 * share that all cells together show; the more windows a cell has, the more its own count.
 */
import { randomOf } from './load/load.ts';
import { type Interval, median, quantile, resample } from './statistics.ts';

/** What a window at some rate said. */
export interface Trial {
  readonly perSecond: number;
  readonly within: boolean;
}

export interface RateSearch {
  /** The rate to try next. */
  readonly nextPerSecond: number;
  /** Windows from the first turn on: those near the answer. */
  readonly near: number;
}

/** As shares of the cell's capacity. */
const FIRST = 0.85;
const FIRST_STEP = 0.12;
const LAST_STEP = 0.03;
const HIGHEST = 1.1;
const LOWEST = 0.05;

export function rateSearch(capacity: number, trials: readonly Trial[]): RateSearch {
  let share = FIRST;
  let step = FIRST_STEP;
  let near = 0;
  for (const [i, { within }] of trials.entries()) {
    const before = trials[i - 1];
    if (before !== undefined && before.within !== within) {
      step = Math.max(step / 2, LAST_STEP);
      near++;
    } else if (near > 0) near++;
    // Far off: an application whose latency leaves the SLO long before its throughput ends.
    else if (!within && i > 0) step *= 1.5;
    share = Math.min(HIGHEST, Math.max(LOWEST, share + (within ? step : -step)));
  }
  return { nextPerSecond: share * capacity, near };
}

/** One cell's windows. */
export interface Evidence {
  readonly name: string;
  /** At full speed, in requests per second. */
  readonly capacities: readonly number[];
  readonly trials: readonly Trial[];
}

export interface Estimate {
  readonly perSecond: number;
  readonly interval: Interval;
  /** The same, from resampled windows: to compare cells with. */
  readonly draws: readonly number[];
}

/** How wide the rates are at which the same window now passes and now does not, as a share of capacity. */
const SLOPE = 0.04;
/** How far the shares of cells lie apart. */
const SPREAD = 0.06;
/** What is thought before any window. */
const USUAL = { share: 0.85, spread: 0.3 } as const;
const SHARES = Array.from({ length: 220 }, (_, i) => 0.05 + i * 0.005);
const DRAWS = 400;

/**
 * What each cell carries within the SLO. A cell that has no window within it is left out.
 *
 * @param variation standard deviation of repeated measurements, as a share
 * @param draws how many resamples the intervals rest on
 */
export function estimateRates(
  cells: readonly Evidence[],
  variation: number,
  draws = DRAWS,
): ReadonlyMap<string, Estimate> {
  const searched = cells.filter(
    ({ trials, capacities }) => capacities.length > 0 && trials.some(({ within }) => within),
  );
  const shared = bestShare(
    searched.flatMap(({ capacities, trials }) => relative(trials, median(capacities))),
    USUAL,
  );
  return new Map(searched.map((cell) => [cell.name, estimate(cell, shared, variation, draws)]));
}

function estimate({ name, capacities, trials }: Evidence, shared: number, variation: number, count: number): Estimate {
  const capacity = median(capacities);
  const near = { share: shared, spread: SPREAD };
  const random = randomOf(seedOf(name));
  const uncertain = Number.isFinite(variation) ? variation / Math.sqrt(capacities.length) : 0;
  const draws = Array.from({ length: count }, () => {
    const share = bestShare(relative(resample(trials, random), capacity), {
      ...near,
      share: shared + (SPREAD / 3) * normal(random),
    });
    return share * capacity * (1 + uncertain * normal(random));
  });
  return {
    perSecond: bestShare(relative(trials, capacity), near) * capacity,
    interval: { low: Math.max(0, quantile(draws, 0.025)), high: quantile(draws, 0.975) },
    draws,
  };
}

function relative(trials: readonly Trial[], capacity: number): readonly Trial[] {
  return trials.map(({ perSecond, within }) => ({ perSecond: perSecond / capacity, within }));
}

/** Maximum a posteriori of the middle of the logistic curve. */
function bestShare(trials: readonly Trial[], before: { readonly share: number; readonly spread: number }): number {
  let best = before.share;
  let most = Number.NEGATIVE_INFINITY;
  for (const share of SHARES) {
    let likelihood = -(((share - before.share) / before.spread) ** 2) / 2;
    for (const { perSecond, within } of trials) {
      const beyond = ((perSecond - share) / SLOPE) * (within ? 1 : -1);
      likelihood -= beyond > 30 ? beyond : Math.log1p(Math.exp(beyond));
    }
    if (likelihood > most) {
      most = likelihood;
      best = share;
    }
  }
  return best;
}

/** Of how much `a` is above `b`, as a share of `b`: 95 % interval. */
export function gain(a: Estimate, b: Estimate, level = 0.95): Interval {
  const ratios = a.draws.map((draw, i) => draw / (b.draws[i] ?? Number.NaN) - 1);
  return { low: quantile(ratios, (1 - level) / 2), high: quantile(ratios, (1 + level) / 2) };
}

function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** Each cell resamples in its own way, and always in the same. */
function seedOf(name: string): number {
  let seed = 0;
  for (const character of name) seed = (Math.imul(seed, 31) + (character.codePointAt(0) ?? 0)) >>> 0;
  return seed;
}
