/** Writes docs/metrics.md from the table of metrics: `npm run docs`. */
import { realpathSync, writeFileSync } from 'node:fs';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { REASONS } from '../policy/reasons.ts';
import { BOUNDS_MS, CODE_CLASSES, type Outcome } from './counters.ts';
import type { SlotState, WorkerState } from './status.ts';
import { METRICS } from './table.ts';

const OUTCOMES: Readonly<Record<Outcome, string>> = {
  answered: "the app's answer was sent, whatever its status",
  app_error: 'the app raised an error: 500',
  timeout: 'it ran into `--timeout`: 504, or its answer was cut',
  queue_timeout: 'it waited for `--queue-timeout`: 504',
  queue_full: '`--max-queue` requests were waiting: 503',
  shutdown: 'the server stopped before it was answered: 503',
  worker_lost: 'its worker died: 502',
  refused:
    'it did not reach the app, being malformed, too large or too slow, or since there was no room for it: 4xx or 5xx',
  client_left: 'the client left before it had its answer',
  cut: 'the app failed in the middle of its answer, which was cut',
};

const SLOTS: Readonly<Record<SlotState, string>> = {
  idle: 'free',
  busy: 'runs a request',
  reserved: 'idle, although requests wait: no processor has time for them',
  draining: 'gets no more requests: its worker drains, or its last one ran into `--timeout`',
  stuck: 'its request is over its time limit',
  lost: 'its connection to the front broke, and is being made anew',
};

const WORKERS: Readonly<Record<WorkerState, string>> = {
  starting: 'boots',
  ready: 'serves',
  draining: 'gets no more requests, finishes those that it has',
  leaving: 'has none any more and ends',
};

const LABELS: readonly (readonly [title: string, values: Readonly<Record<string, string>>])[] = [
  ['`outcome` of `nunicorn_requests_total`', OUTCOMES],
  [
    '`reason` of `nunicorn_queue_rejected_total`',
    { full: OUTCOMES.queue_full, timeout: OUTCOMES.queue_timeout, shutdown: OUTCOMES.shutdown },
  ],
  ['`state` of `nunicorn_slots`', SLOTS],
  ['`state` of `nunicorn_workers`', WORKERS],
  [
    '`reason` of `nunicorn_worker_spawns_total` and `nunicorn_worker_exits_total`: why a worker was started or has gone. A replacement is started for the reason for which the worker before it goes',
    Object.fromEntries(Object.entries(REASONS).map(([reason, { text }]) => [reason, text])),
  ],
];

export function metricsPage(): string {
  const rows = Object.entries(METRICS).map(([name, metric]) => {
    const { kind, labels, help, when } = { when: undefined, ...metric };
    const only = when === undefined ? '' : ` Only: ${when}.`;
    return `| \`${name}\` | ${kind} | ${labels.map((label) => `\`${label}\``).join(', ')} | ${help}${only} |`;
  });
  const values = LABELS.map(([title, meanings]) => {
    const list = Object.entries(meanings).map(([value, meaning]) => `| \`${value}\` | ${meaning} |`);
    return `${title}:\n\n| Value | Meaning |\n| --- | --- |\n${list.join('\n')}\n`;
  });
  return [
    HEAD,
    `| Name | Kind | Labels | Meaning |\n| --- | --- | --- | --- |\n${rows.join('\n')}\n`,
    VALUES_HEAD,
    ...values,
  ].join('\n');
}

const HEAD = `# Metrics

Made from the table in \`src/metrics/table.ts\` by \`npm run docs\`. Shown at \`/metrics\` of \`--admin-bind\`, as Prometheus text or
OpenMetrics, whichever the scraper prefers. What each is good for, and how to ask Prometheus for it, is in
[deploying.md](deploying.md#metrics).

Labels are of few values, known from the start and [listed below](#values-of-labels): \`worker\` is a number from 1 to N
that a worker hands on to its replacement, never a process id. No counter goes back while the server runs: not when workers
are recycled, not at a reload, and a front that is killed takes at most its last second with it.
`;

const STATUS_CLASSES = CODE_CLASSES.filter((name) => name !== 'none').map((name) => `\`${name}\``);

const VALUES_HEAD = `## Values of labels

- \`code_class\`: ${STATUS_CLASSES.join(', ')}, or \`none\` where no status was sent.
- \`process\`: \`master\`, \`front\`, for memory also \`mold\`; of a Node app \`master\` and \`worker\`. All fronts count as one,
  and so do all workers.
- \`le\`, the bounds of the buckets of every histogram, in seconds: ${BOUNDS_MS.map((ms) => ms / 1000).join(', ')}.
`;

export const METRICS_DOC = fileURLToPath(new URL('../../../docs/metrics.md', import.meta.url));

if (argv[1] !== undefined && realpathSync(argv[1]) === fileURLToPath(import.meta.url))
  writeFileSync(METRICS_DOC, metricsPage());
