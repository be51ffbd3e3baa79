/** Every metric, once: its name, kind, text and labels. /metrics and docs/metrics.md are made from this table. */

export interface MetricFacts {
  readonly kind: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  /** `worker` is a number from 1 to N, never a pid: a worker and its replacement have the same. */
  readonly labels: readonly string[];
  /** When it is there, if it is not always. */
  readonly when?: string;
}

const LINUX = 'Linux';

const FACTS = {
  nunicorn_build_info: { kind: 'gauge', help: 'Always 1; the version is a label.', labels: ['version'] },
  nunicorn_start_time_seconds: { kind: 'gauge', help: 'When the server was started, as Unix time.', labels: [] },

  nunicorn_requests_total: {
    kind: 'counter',
    help: 'Requests that are over, by the class of their status and what became of them.',
    labels: ['code_class', 'outcome'],
  },
  nunicorn_request_duration_seconds: {
    kind: 'histogram',
    help: 'From the head of a request to the end of its answer.',
    labels: [],
  },
  nunicorn_queue_duration_seconds: {
    kind: 'histogram',
    help: 'From the last byte of a request to the thread that runs it.',
    labels: [],
  },
  nunicorn_app_duration_seconds: { kind: 'histogram', help: 'Time in the app, measured by the worker.', labels: [] },
  nunicorn_body_read_seconds: {
    kind: 'histogram',
    help: 'From the head of a request to the last byte of its body. Requests without a body are not counted.',
    labels: [],
  },

  nunicorn_queue_depth: { kind: 'gauge', help: 'Requests that wait for a thread.', labels: [] },
  nunicorn_queue_limit: { kind: 'gauge', help: 'How many may wait in all fronts together.', labels: [] },
  nunicorn_queue_rejected_total: {
    kind: 'counter',
    help: 'Requests that waited, or were to wait, and were not run.',
    labels: ['reason'],
  },

  nunicorn_slots: { kind: 'gauge', help: 'Threads that run requests, by state.', labels: ['state'] },
  nunicorn_capacity_utilization_ratio: {
    kind: 'gauge',
    help: 'Share of the threads that were busy or kept in reserve, over the last 15 seconds: 0 to 1.',
    labels: [],
  },
  nunicorn_busy_seconds_total: { kind: 'counter', help: 'Time that threads had a request, summed.', labels: [] },
  nunicorn_reserved_seconds_total: {
    kind: 'counter',
    help: 'Time that idle threads were kept in reserve though requests waited, summed: no processor had time for them.',
    labels: [],
  },
  nunicorn_slot_seconds_total: {
    kind: 'counter',
    help: 'Time that threads were there, summed: of ready workers, and of those that leave while they have a request. Busy and reserved seconds by this are the utilisation.',
    labels: [],
  },

  nunicorn_worker_requests_total: { kind: 'counter', help: 'Requests that a worker answered.', labels: ['worker'] },
  nunicorn_worker_busy_seconds_total: {
    kind: 'counter',
    help: 'Time that threads of a worker had a request, summed.',
    labels: ['worker'],
  },
  nunicorn_cpu_seconds_total: {
    kind: 'counter',
    help: "Processor time of a worker's request threads.",
    labels: ['worker'],
    when: LINUX,
  },
  nunicorn_cpu_wait_seconds_total: {
    kind: 'counter',
    help: "Time that a worker's request threads could have run but had no processor.",
    labels: ['worker'],
    when: LINUX,
  },
  nunicorn_gil_wait_seconds_total: {
    kind: 'counter',
    help: "Time that a worker's request threads waited for the interpreter's lock (GIL), in the app and around it. Estimated by samples.",
    labels: ['worker'],
    when: 'Linux with glibc, and a master that may look at its workers',
  },
  nunicorn_io_seconds_total: {
    kind: 'counter',
    help: 'Time that threads had a request, less all these: waiting for databases, files, other locks, sleep.',
    labels: ['worker'],
    when: LINUX,
  },

  nunicorn_workers: { kind: 'gauge', help: 'Worker processes, by state.', labels: ['state'] },
  nunicorn_worker_spawns_total: { kind: 'counter', help: 'Workers started, by reason.', labels: ['reason'] },
  nunicorn_worker_exits_total: { kind: 'counter', help: 'Workers that are gone, by reason.', labels: ['reason'] },
  nunicorn_worker_boot_seconds: {
    kind: 'gauge',
    help: 'What the present worker took from its start to the moment it was ready.',
    labels: ['worker'],
  },
  nunicorn_worker_start_time_seconds: {
    kind: 'gauge',
    help: 'When the present worker was started, as Unix time.',
    labels: ['worker'],
  },
  nunicorn_worker_rss_bytes: {
    kind: 'gauge',
    help: "A worker's resident memory. Memory that processes share is counted in each.",
    labels: ['worker'],
  },
  nunicorn_worker_pss_bytes: {
    kind: 'gauge',
    help: "A worker's memory, what it shares with others divided among them.",
    labels: ['worker'],
    when: LINUX,
  },
  nunicorn_cow_saved_bytes: {
    kind: 'gauge',
    help: 'Memory that --preload saves: what workers still share with the mold and each other since the fork.',
    labels: [],
    when: 'Linux, --preload',
  },

  nunicorn_process_cpu_seconds_total: {
    kind: 'counter',
    help: 'Processor time of the master and of the fronts; of a Node app, which has none, of the workers.',
    labels: ['process'],
  },
  nunicorn_process_rss_bytes: {
    kind: 'gauge',
    help: 'Resident memory of the master, the mold and the fronts, or of the workers of a Node app.',
    labels: ['process'],
  },
  nunicorn_process_pss_bytes: {
    kind: 'gauge',
    help: 'Memory of the master, the mold and the fronts, or of the workers of a Node app, shared memory divided.',
    labels: ['process'],
    when: LINUX,
  },
  nunicorn_event_loop_lag_seconds: {
    kind: 'histogram',
    help: 'How late the event loop of a process came round to its timer.',
    labels: ['process'],
  },
  nunicorn_front_restarts_total: { kind: 'counter', help: 'Fronts that died and were started again.', labels: [] },

  nunicorn_client_connections: { kind: 'gauge', help: 'Connections of clients that are open.', labels: [] },
  nunicorn_client_connections_accepted_total: {
    kind: 'counter',
    help: 'Connections of clients that were accepted.',
    labels: [],
  },
  nunicorn_client_disconnects_total: {
    kind: 'counter',
    help: 'Clients that left before their request was answered.',
    labels: [],
  },
  nunicorn_killed_innocent_requests_total: {
    kind: 'counter',
    help: 'Requests that were lost because another one of their worker ran into --timeout.',
    labels: [],
  },
  nunicorn_access_log_lines_dropped_total: {
    kind: 'counter',
    help: 'Lines of the access log that its destination did not take.',
    labels: [],
  },
  nunicorn_backlog: {
    kind: 'gauge',
    help: 'Connections that wait in the kernel to be accepted, at TCP addresses.',
    labels: [],
    when: 'Linux, --enable-backlog-metric',
  },
} as const satisfies Readonly<Record<string, MetricFacts>>;

export type MetricName = keyof typeof FACTS;

export const METRICS: Readonly<Record<MetricName, MetricFacts>> = FACTS;
