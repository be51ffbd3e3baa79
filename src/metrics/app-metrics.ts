/** The app's own metrics (nunicorn_worker/metrics.py), added up over the workers that live and those that are gone. */
import type { ForeignMetric } from './exposition.ts';
import type { Sample } from './samples.ts';

/** As a worker reports it. */
export interface AppMetric {
  readonly name: string;
  readonly kind: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels: readonly string[];
  /** Label values and a number; of a histogram a list: a number for each bucket, then the sum. */
  readonly series: readonly (readonly [labels: readonly string[], value: number | readonly number[]])[];
  /** Of a gauge. */
  readonly across?: 'sum' | 'max' | 'min';
  /** Of a histogram: upper bounds. */
  readonly buckets?: readonly number[];
}

interface Shown extends Omit<AppMetric, 'series'> {
  /** By the label values as JSON. */
  readonly values: Map<string, readonly number[]>;
}

/** Sets of label values that are kept of one metric for workers that are gone: each worker may have had MAX_SERIES of metrics.py. */
export const MAX_GONE_SERIES = 10_000;

export class AppMetrics {
  private readonly full: (name: string) => void;
  /** Metrics of which it was told. */
  private readonly fullTold = new Set<string>();
  /** What workers that are gone had counted, and masters before this one. */
  private readonly gone = new Map<string, Shown>();
  private readonly living = new Map<number, readonly AppMetric[]>();
  /** What the other master has of this: because it was told, or has told it. */
  private readonly known = new Map<string, Shown>();

  /** `full`: called once for a metric of which no more sets of label values are kept. */
  constructor(full: (name: string) => void) {
    this.full = full;
  }

  heard(serial: number, metrics: readonly AppMetric[]): void {
    this.living.set(serial, metrics);
  }

  /** Its counters stay, its gauges do not. */
  ended(serial: number): void {
    const metrics = this.living.get(serial) ?? [];
    this.living.delete(serial);
    this.goOn(metrics);
  }

  /** The other master is another one, that has nothing of this. */
  newOther(): void {
    this.known.clear();
  }

  /** For the other master: counters as far as it does not have them yet. What is now stays here. */
  handOver(): readonly AppMetric[] {
    const more = Array.from(this.shown().values())
      .filter(({ kind }) => kind !== 'gauge')
      .map(({ values, ...facts }) => {
        const before = this.known.get(facts.name)?.values;
        return {
          ...facts,
          series: Array.from(values, ([key, now]) => [JSON.parse(key), less(now, before?.get(key))] as const),
        };
      });
    for (const metric of more) add(this.known, metric);
    return more;
  }

  /** What the other master has counted. */
  takeOver(metrics: readonly AppMetric[]): void {
    this.goOn(metrics);
    for (const metric of metrics) add(this.known, metric);
  }

  /** Counters stay, gauges end with those who set them. */
  private goOn(metrics: readonly AppMetric[]): void {
    for (const metric of metrics) {
      if (metric.kind === 'gauge' || add(this.gone, metric, MAX_GONE_SERIES) || this.fullTold.has(metric.name))
        continue;
      this.fullTold.add(metric.name);
      this.full(metric.name);
    }
  }

  metrics(): readonly ForeignMetric[] {
    return Array.from(this.shown().values(), (metric) => ({
      name: metric.name,
      kind: metric.kind,
      help: metric.help,
      samples: Array.from(metric.values).flatMap(([key, values]) => samplesOf(metric, JSON.parse(key), values)),
    }));
  }

  private shown(): Map<string, Shown> {
    const shown = new Map<string, Shown>();
    for (const metric of this.gone.values()) shown.set(metric.name, { ...metric, values: new Map(metric.values) });
    for (const metrics of this.living.values()) for (const metric of metrics) add(shown, metric);
    return shown;
  }
}

function less(now: readonly number[], before: readonly number[] = []): readonly number[] {
  return now.map((value, at) => value - (before[at] ?? 0));
}

/**
 * A metric of the same name that is of another kind is left out: the first one counts. So are sets of label values beyond
 * `maxSeries`; then it gives false.
 */
function add(
  all: Map<string, Shown>,
  { series, ...facts }: AppMetric,
  maxSeries: number = Number.POSITIVE_INFINITY,
): boolean {
  let shown = all.get(facts.name);
  if (shown === undefined) {
    shown = { ...facts, values: new Map() };
    all.set(facts.name, shown);
  }
  if (
    JSON.stringify([shown.kind, shown.labels, shown.buckets]) !==
    JSON.stringify([facts.kind, facts.labels, facts.buckets])
  )
    return true;
  let isRoom = true;
  for (const [labels, value] of series) {
    const key = JSON.stringify(labels);
    const values = typeof value === 'number' ? [value] : value;
    const before = shown.values.get(key);
    if (before !== undefined)
      shown.values.set(
        key,
        before.map((one, at) => join(facts, one, values[at] ?? 0)),
      );
    else if (shown.values.size < maxSeries) shown.values.set(key, values);
    else isRoom = false;
  }
  return isRoom;
}

function join({ across = 'sum' }: Pick<AppMetric, 'across'>, one: number, other: number): number {
  if (across === 'sum') return one + other;
  return across === 'max' ? Math.max(one, other) : Math.min(one, other);
}

function samplesOf(
  { name, kind, labels: names, buckets = [] }: Shown,
  labelValues: string[],
  values: readonly number[],
): Sample[] {
  const labels = Object.fromEntries(names.map((label, at) => [label, labelValues[at] ?? '']));
  if (kind !== 'histogram') return [{ labels, value: values[0] ?? 0 }];
  let count = 0;
  const samples: Sample[] = [...buckets, '+Inf' as const].map((le, at) => {
    count += values[at] ?? 0;
    return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: count };
  });
  samples.push({ metricName: `${name}_sum`, labels, value: values.at(-1) ?? 0 });
  samples.push({ metricName: `${name}_count`, labels, value: count });
  return samples;
}
