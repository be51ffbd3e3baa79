/** Medians and spreads. Pure. */

export interface Interval {
  readonly low: number;
  readonly high: number;
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

export function mean(values: readonly number[]): number {
  return values.length === 0 ? Number.NaN : sum(values) / values.length;
}

/** Linear between the two nearest; NaN of nothing. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const below = sorted[Math.floor(at)];
  const above = sorted[Math.ceil(at)];
  if (below === undefined || above === undefined) return Number.NaN;
  return below + (above - below) * (at - Math.floor(at));
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/**
 * How much repeated measurements of the same thing differ, as a share of their median: the standard deviation within groups,
 * pooled over all groups of two and more. NaN where nothing was repeated.
 */
export function pooledVariation(groups: readonly (readonly number[])[]): number {
  let squares = 0;
  let freedom = 0;
  for (const group of groups) {
    if (group.length < 2) continue;
    const middle = mean(group);
    if (middle === 0) continue;
    squares += sum(group.map((value) => (value / middle - 1) ** 2));
    freedom += group.length - 1;
  }
  return freedom === 0 ? Number.NaN : Math.sqrt(squares / freedom);
}

export function resample<T>(values: readonly T[], random: () => number): T[] {
  return values.map((value) => values[Math.floor(random() * values.length)] ?? value);
}

export function shuffled<T>(values: readonly T[], random: () => number): T[] {
  const list = [...values];
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const [a, b] = [list[i], list[j]];
    if (a === undefined || b === undefined) continue;
    list[i] = b;
    list[j] = a;
  }
  return list;
}
