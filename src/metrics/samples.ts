/** The values of all metrics at one moment, in the names of table.ts. */
import { REASONS, type Reason } from '../policy/reasons.ts';
import {
  BOUNDS_MS,
  CODE_CLASSES,
  FRONT_AT,
  HISTOGRAM_CELLS,
  OUTCOME,
  OUTCOMES,
  type Outcome,
  WORKER_AT,
} from './counters.ts';
import type { MemoryStatus, SlotState, WorkerState } from './status.ts';
import { SLOT_STATES } from './status.ts';
import type { MetricName } from './table.ts';
import type { Totals } from './totals.ts';
import type { WorkerView } from './view.ts';

export interface Sample {
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
  /** Of histograms. */
  readonly metricName?: string;
}

export type Samples = ReadonlyMap<MetricName, readonly Sample[]>;

/** What is true now, beside the totals. */
export interface Present {
  readonly version: string;
  readonly utilization: number;
  readonly queueDepth: number;
  readonly queueLimit: number;
  readonly connections: number;
  readonly slots: Readonly<Record<SlotState, number>>;
  readonly workers: readonly WorkerPresent[];
  readonly masterCpuMs: number;
  readonly masterMemory: MemoryStatus;
  /** Without a mold nothing is known of its memory. */
  readonly moldMemory: MemoryStatus;
  /** Which kind of process serves the clients. */
  readonly clientsProcess: 'front' | 'worker';
  /** Of all of that kind. */
  readonly clientsMemory: MemoryStatus;
  readonly cowSaved: number | null;
  readonly backlog: number | null;
}

export interface WorkerPresent extends WorkerView {
  readonly memory: MemoryStatus;
  /** Unix time, seconds. */
  readonly startedAt: number | null;
}

/** Shown from the start, so that their first occurrence is not lost to rate(). */
const EXPECTED: readonly (readonly [(typeof CODE_CLASSES)[number], Outcome])[] = [
  ['2xx', 'answered'],
  ['3xx', 'answered'],
  ['4xx', 'answered'],
  ['5xx', 'answered'],
  ['5xx', 'app_error'],
  ['5xx', 'timeout'],
  ['5xx', 'queue_timeout'],
  ['5xx', 'queue_full'],
  ['5xx', 'shutdown'],
  ['5xx', 'worker_lost'],
  ['4xx', 'refused'],
  ['none', 'client_left'],
];

const REJECTIONS: Readonly<Record<string, Outcome>> = {
  full: 'queue_full',
  timeout: 'queue_timeout',
  shutdown: 'shutdown',
};

const WORKER_STATES: readonly WorkerState[] = ['starting', 'ready', 'draining', 'leaving'];

export function samplesOf(totals: Totals, present: Present): Samples {
  const samples = new Map<MetricName, Sample[]>();
  const put = (name: MetricName, value: number | null, labels: Sample['labels'] = {}): void => {
    if (value === null) return;
    const list = samples.get(name) ?? [];
    list.push({ labels, value });
    samples.set(name, list);
  };
  const front = (at: number): number => totals.front[at] ?? 0;
  const histogram = (name: MetricName, cells: Float64Array, at: number, labels: Sample['labels'] = {}): void => {
    const list = samples.get(name) ?? [];
    list.push(...histogramSamples(name, cells, at, labels));
    samples.set(name, list);
  };

  put('nunicorn_build_info', 1, { version: present.version });
  put('nunicorn_start_time_seconds', totals.startedAt);
  requestSamples(totals, put);
  histogram('nunicorn_request_duration_seconds', totals.front, FRONT_AT.whole);
  histogram('nunicorn_queue_duration_seconds', totals.front, FRONT_AT.queue);
  histogram('nunicorn_app_duration_seconds', totals.front, FRONT_AT.app);
  histogram('nunicorn_body_read_seconds', totals.front, FRONT_AT.body);

  put('nunicorn_queue_depth', present.queueDepth);
  put('nunicorn_queue_limit', present.queueLimit);
  for (const [reason, outcome] of Object.entries(REJECTIONS))
    put('nunicorn_queue_rejected_total', ofOutcome(totals, outcome), { reason });

  for (const state of SLOT_STATES) put('nunicorn_slots', present.slots[state], { state });
  put('nunicorn_capacity_utilization_ratio', present.utilization);
  put('nunicorn_busy_seconds_total', totals.overWorkers(WORKER_AT.busyMs) / 1000);
  put('nunicorn_reserved_seconds_total', front(FRONT_AT.reservedMs) / 1000);
  put('nunicorn_slot_seconds_total', totals.slotMs / 1000);

  for (const [worker, cells] of byNumber(totals.workers)) {
    put('nunicorn_worker_requests_total', cells[WORKER_AT.requests] ?? 0, { worker });
    put('nunicorn_worker_busy_seconds_total', (cells[WORKER_AT.busyMs] ?? 0) / 1000, { worker });
  }
  for (const [worker, times] of byNumber(totals.threads)) {
    put('nunicorn_cpu_seconds_total', times.cpuMs / 1000, { worker });
    put('nunicorn_cpu_wait_seconds_total', times.cpuWaitMs / 1000, { worker });
    put('nunicorn_gil_wait_seconds_total', times.gilWaitMs === null ? null : times.gilWaitMs / 1000, { worker });
    put('nunicorn_io_seconds_total', times.ioMs / 1000, { worker });
  }

  for (const state of WORKER_STATES)
    put('nunicorn_workers', present.workers.filter((worker) => worker.state === state).length, { state });
  for (const reason of Object.keys(REASONS) as Reason[]) {
    put('nunicorn_worker_spawns_total', totals.spawns.get(reason) ?? 0, { reason });
    put('nunicorn_worker_exits_total', totals.exits.get(reason) ?? 0, { reason });
  }
  // Of two in one seat, while one replaces the other, the one that serves.
  for (const worker of present.workers.filter(({ state }) => state === 'ready')) {
    const labels = { worker: worker.number };
    put('nunicorn_worker_boot_seconds', worker.bootMs === null ? null : worker.bootMs / 1000, labels);
    put('nunicorn_worker_start_time_seconds', worker.startedAt, labels);
    put('nunicorn_worker_rss_bytes', worker.memory.rss, labels);
    put('nunicorn_worker_pss_bytes', worker.memory.pss, labels);
  }
  put('nunicorn_cow_saved_bytes', present.cowSaved);

  const clients = { process: present.clientsProcess };
  put('nunicorn_process_cpu_seconds_total', present.masterCpuMs / 1000, { process: 'master' });
  put('nunicorn_process_cpu_seconds_total', front(FRONT_AT.cpuMs) / 1000, clients);
  put('nunicorn_process_rss_bytes', present.masterMemory.rss, { process: 'master' });
  put('nunicorn_process_rss_bytes', present.clientsMemory.rss, clients);
  put('nunicorn_process_rss_bytes', present.moldMemory.rss, { process: 'mold' });
  put('nunicorn_process_pss_bytes', present.masterMemory.pss, { process: 'master' });
  put('nunicorn_process_pss_bytes', present.clientsMemory.pss, clients);
  put('nunicorn_process_pss_bytes', present.moldMemory.pss, { process: 'mold' });
  histogram('nunicorn_event_loop_lag_seconds', totals.masterLag, 0, { process: 'master' });
  histogram('nunicorn_event_loop_lag_seconds', totals.front, FRONT_AT.lag, clients);
  put('nunicorn_front_restarts_total', totals.frontRestarts);

  put('nunicorn_client_connections', present.connections);
  put('nunicorn_client_connections_accepted_total', front(FRONT_AT.connections));
  put('nunicorn_client_disconnects_total', front(FRONT_AT.clientDisconnects));
  put('nunicorn_killed_innocent_requests_total', front(FRONT_AT.killedInnocent));
  put('nunicorn_access_log_lines_dropped_total', front(FRONT_AT.accessLinesDropped));
  put('nunicorn_backlog', present.backlog);
  return samples;
}

function requestSamples(
  totals: Totals,
  put: (name: MetricName, value: number, labels: Sample['labels']) => void,
): void {
  for (const [index, code_class] of CODE_CLASSES.entries()) {
    for (const outcome of OUTCOMES) {
      const value = totals.front[FRONT_AT.requests + index * OUTCOMES.length + OUTCOME[outcome]] ?? 0;
      const expected = EXPECTED.some(([one, other]) => one === code_class && other === outcome);
      if (value > 0 || expected) put('nunicorn_requests_total', value, { code_class, outcome });
    }
  }
}

/** All requests with this outcome. */
export function ofOutcome(totals: Totals, outcome: Outcome): number {
  let sum = 0;
  for (let index = 0; index < CODE_CLASSES.length; index++)
    sum += totals.front[FRONT_AT.requests + index * OUTCOMES.length + OUTCOME[outcome]] ?? 0;
  return sum;
}

/** All requests with a status of this class. */
export function ofCodeClass(totals: Totals, codeClass: (typeof CODE_CLASSES)[number]): number {
  const at = FRONT_AT.requests + CODE_CLASSES.indexOf(codeClass) * OUTCOMES.length;
  return totals.front.subarray(at, at + OUTCOMES.length).reduce((sum, cell) => sum + cell, 0);
}

function histogramSamples(name: string, cells: Float64Array, at: number, labels: Sample['labels']): Sample[] {
  let count = 0;
  const list: Sample[] = [];
  for (const [index, bound] of [...BOUNDS_MS, Number.POSITIVE_INFINITY].entries()) {
    count += cells[at + index] ?? 0;
    const le = Number.isFinite(bound) ? bound / 1000 : '+Inf';
    list.push({ metricName: `${name}_bucket`, labels: { ...labels, le }, value: count });
  }
  const sum = (cells[at + HISTOGRAM_CELLS - 1] ?? 0) / 1000;
  list.push({ metricName: `${name}_sum`, labels, value: sum }, { metricName: `${name}_count`, labels, value: count });
  return list;
}

function byNumber<T>(map: ReadonlyMap<number, T>): [number, T][] {
  return [...map].sort(([one], [other]) => one - other);
}
