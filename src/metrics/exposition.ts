/** Samples as text for Prometheus. Loaded when somebody scrapes. */
import { type Metric, Registry, type RegistryContentType } from 'prom-client';
import type { Sample, Samples } from './samples.ts';
import { METRICS } from './table.ts';

export type Format = 'prometheus' | 'openmetrics';

/** A metric that is not one of ours: the app's own. */
export interface ForeignMetric {
  readonly name: string;
  readonly kind: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly samples: readonly Sample[];
}

export const CONTENT_TYPE: Readonly<Record<Format, RegistryContentType>> = {
  prometheus: Registry.PROMETHEUS_CONTENT_TYPE,
  openmetrics: Registry.OPENMETRICS_CONTENT_TYPE,
};

/** `more`: text in the same format that is put behind, without an end mark. */
export async function expose(
  samples: Samples,
  foreign: readonly ForeignMetric[],
  more: string,
  format: Format,
): Promise<string> {
  const registry: Registry<RegistryContentType> = new Registry();
  registry.setContentType(CONTENT_TYPE[format]);
  for (const [name, list] of samples) register(registry, name, METRICS[name].kind, METRICS[name].help, list);
  for (const { name, kind, help, samples } of foreign) register(registry, name, kind, help, samples);
  const text = await registry.metrics();
  if (more === '') return text;
  const end = '# EOF\n';
  return format === 'openmetrics' ? text.slice(0, -end.length) + more + end : `${text}\n${more}`;
}

/** The registry asks for a metric's `name` and `get()` only; for OpenMetrics it changes the name. Its types want a whole Metric. */
function register(
  registry: Registry<RegistryContentType>,
  name: string,
  type: ForeignMetric['kind'],
  help: string,
  values: readonly Sample[],
): void {
  const metric = { name, type, get: async () => ({ name: metric.name, type, help, values, aggregator: 'sum' }) };
  registry.registerMetric(metric as unknown as Metric);
}
