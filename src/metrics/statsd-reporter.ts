/** What the master sends to statsd, once a second: Gunicorn's `gunicorn.workers` and `gunicorn.backlog`, and nunicorn's own. */
import type { MasterMetrics } from './master-metrics.ts';
import type { Samples } from './samples.ts';
import type { Statsd } from './statsd.ts';
import type { MetricName } from './table.ts';

const PERIOD_MS = 1000;
/** A gauge is sent again after so long, changed or not: some servers forget gauges that are silent. */
const REPEAT_GAUGE_MS = 10_000;

/** Of the metrics of table.ts: those that statsd gets, each with its name there. A label's value is put behind it. */
const GAUGES: Readonly<Partial<Record<MetricName, string>>> = {
  nunicorn_queue_depth: 'nunicorn.queue.depth',
  nunicorn_slots: 'nunicorn.slots',
  nunicorn_capacity_utilization_ratio: 'nunicorn.capacity.utilization',
  nunicorn_client_connections: 'nunicorn.client.connections',
};
const COUNTERS: Readonly<Partial<Record<MetricName, string>>> = {
  nunicorn_queue_rejected_total: 'nunicorn.queue.rejected',
  nunicorn_worker_spawns_total: 'nunicorn.worker.spawns',
  nunicorn_worker_exits_total: 'nunicorn.worker.exits',
  nunicorn_client_disconnects_total: 'nunicorn.client.disconnects',
  nunicorn_killed_innocent_requests_total: 'nunicorn.requests.killed_innocent',
  nunicorn_front_restarts_total: 'nunicorn.front.restarts',
};

export class StatsdReporter {
  private readonly metrics: MasterMetrics;
  private readonly statsd: Statsd;
  private readonly timer: NodeJS.Timeout;
  private readonly gauges = new Map<string, { readonly value: number; readonly at: number }>();
  private readonly counters = new Map<string, number>();

  constructor(metrics: MasterMetrics, statsd: Statsd) {
    this.metrics = metrics;
    this.statsd = statsd;
    // What cannot be read now may be a second later; no figure is worth the master.
    this.timer = setInterval(() => this.report().catch(() => {}), PERIOD_MS);
    this.timer.unref();
  }

  close(): void {
    clearInterval(this.timer);
  }

  private async report(): Promise<void> {
    this.send(await this.metrics.samples(), performance.now());
  }

  /** `time`: milliseconds. */
  send(samples: Samples, time: number): void {
    const workers = (samples.get('nunicorn_workers') ?? []).reduce((sum, { value }) => sum + value, 0);
    this.gauge('gunicorn.workers', workers, time);
    for (const { value } of samples.get('nunicorn_backlog') ?? []) this.statsd.histogram('gunicorn.backlog', value);
    for (const [name, value] of named(samples, GAUGES)) this.gauge(name, value, time);
    for (const [name, value] of named(samples, COUNTERS)) {
      const more = value - (this.counters.get(name) ?? 0);
      this.counters.set(name, value);
      if (more > 0) this.statsd.count(name, more);
    }
  }

  private gauge(name: string, value: number, time: number): void {
    const last = this.gauges.get(name);
    if (last?.value === value && time - last.at < REPEAT_GAUGE_MS) return;
    this.gauges.set(name, { value, at: time });
    this.statsd.gauge(name, value);
  }
}

function* named(
  samples: Samples,
  names: Readonly<Partial<Record<MetricName, string>>>,
): Generator<readonly [string, number]> {
  for (const [metric, name] of Object.entries(names)) {
    for (const { labels, value } of samples.get(metric as MetricName) ?? [])
      yield [[name, ...Object.values(labels)].join('.'), value];
  }
}
