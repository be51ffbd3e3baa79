/**
 * Whether the figures are true: rates, utilisation and where the time of a request goes, as a real Prometheus has them, beside
 * what the load and the app know of themselves (bench/apps/known_mix.py, lock_waits.c).
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { constantRate, freePort, untilAnswered } from '../loads.ts';
import { Program, runToEnd } from '../programs.ts';
import { ROOT } from '../servers.ts';
import { PYTHON, start, targetOf } from './servers.ts';

interface Mix {
  readonly what: string;
  readonly lockedMs: number;
  readonly waitMs: number;
  /** The work under the lock is cut into so many; between them it sleeps. */
  readonly pieces: number;
  readonly perSecond: number;
}

const THREADS = 4;
/** Two at a time, each with a server and a Prometheus of its own. */
const MIXES: readonly (readonly Mix[])[] = [
  [
    { what: 'sleeps', lockedMs: 0, waitMs: 40, pieces: 2, perSecond: 50 },
    { what: 'both, often waits for the lock', lockedMs: 14, waitMs: 20, pieces: 3, perSecond: 60 },
  ],
  [
    { what: 'computes', lockedMs: 10, waitMs: 0, pieces: 1, perSecond: 50 },
    { what: 'both, seldom waits for the lock', lockedMs: 6, waitMs: 20, pieces: 3, perSecond: 50 },
  ],
];
/** What a wait that was found counts for, about: how often the master looks while something runs. */
const SAMPLE_SECONDS = 0.02;

/** Sums, in seconds. `thread_...`: in the app and around it. */
interface Truth {
  readonly requests: number;
  readonly wall: number;
  readonly cpu: number;
  readonly cpu_wait: number;
  readonly gil_wait: number;
  readonly sleep: number;
  readonly thread_cpu: number;
  readonly thread_cpu_wait: number;
  readonly thread_gil_wait: number;
}

const SETTLE_MS = 12_000; // Prometheus begins 5 s after its start

export async function truths(seconds: number): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'known-mix-'));
  try {
    const python = await preloadedPython(folder);
    const rows: string[] = [];
    for (const [at, together] of MIXES.entries())
      rows.push(
        ...(await Promise.all(
          together.map((mix, of) => compare(mix, { seconds, python, folder: join(folder, `${at}-${of}`) })),
        )),
      );
    return page(rows, seconds);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A Python in which lock_waits.c measures. Not the front and the master: they would measure themselves too. */
async function preloadedPython(folder: string): Promise<string> {
  const library = join(folder, 'lock_waits.so');
  const source = join(ROOT, 'bench', 'apps', 'lock_waits.c');
  const command = ['cc', '-O2', '-shared', '-fPIC', '-o', library, source, '-ldl'];
  await runToEnd(command, { cores: undefined, timeoutMs: 30_000 });
  const python = join(folder, 'python');
  writeFileSync(python, `#!/bin/sh\nLD_PRELOAD=${library} exec ${PYTHON} "$@"\n`, { mode: 0o755 });
  return python;
}

interface Comparison {
  readonly seconds: number;
  readonly python: string;
  /** Made here. */
  readonly folder: string;
}

async function compare(mix: Mix, { seconds, python, folder }: Comparison): Promise<string> {
  const args = ['-w', '1', '--threads', `${THREADS}`, '--admin-bind', 'ADMIN'];
  const env = { LOCKED_MS: `${mix.lockedMs}`, WAIT_MS: `${mix.waitMs}`, PIECES: `${mix.pieces}` };
  const { port, admin, program } = await start('known_mix:application', { args, env, python });
  mkdirSync(folder);
  const prometheus = await freePort();
  const scraper = startPrometheus(folder, prometheus, admin);
  try {
    await untilAnswered(prometheus, '/-/ready', scraper);
    const load = constantRate(targetOf(port), {
      perSecond: mix.perSecond,
      connections: 32,
      seconds: seconds + SETTLE_MS / 1000 + 3,
      spin: false,
    });
    await sleep(SETTLE_MS);
    const from = Date.now() / 1000;
    const before = await truthOf(port);
    await sleep(seconds * 1000);
    const to = Date.now() / 1000;
    const after = await truthOf(port);
    await load;
    await sleep(1500);
    const span = to - from;
    const rate = async (metric: string): Promise<number> =>
      ask(prometheus, `sum(rate(${metric}[${Math.round(span)}s]))`, to);
    const figures = {
      requests: await rate('nunicorn_app_duration_seconds_count'),
      busy: await rate('nunicorn_busy_seconds_total'),
      slots: await rate('nunicorn_slot_seconds_total'),
      cpu: await rate('nunicorn_cpu_seconds_total'),
      cpuWait: await rate('nunicorn_cpu_wait_seconds_total'),
      gilWait: await rate('nunicorn_gil_wait_seconds_total'),
      io: await rate('nunicorn_io_seconds_total'),
    };
    const line = row(mix, figures, span, (name) => (after[name] - before[name]) / span);
    console.error(line);
    return line;
  } finally {
    await scraper.stop();
    await program.stop();
  }
}

function startPrometheus(folder: string, port: number, admin: number): Program {
  const config = join(folder, 'prometheus.yml');
  const target = `static_configs: [{ targets: ['127.0.0.1:${admin}'] }]`;
  writeFileSync(config, `global: { scrape_interval: 1s }\nscrape_configs: [{ job_name: nunicorn, ${target} }]\n`);
  const command = ['prometheus', `--config.file=${config}`, `--storage.tsdb.path=${folder}/data`];
  return new Program([...command, `--web.listen-address=127.0.0.1:${port}`], { cores: undefined });
}

interface Figures {
  readonly requests: number;
  readonly busy: number;
  readonly slots: number;
  readonly cpu: number;
  readonly cpuWait: number;
  readonly gilWait: number;
  readonly io: number;
}

/** `truth`: for each second. */
function row(mix: Mix, figures: Figures, span: number, truth: (name: keyof Truth) => number): string {
  const perRequest = (seconds: number): number => (seconds / truth('requests')) * 1000;
  const beside = (measured: number, ...known: readonly number[]): string =>
    [measured, ...known].map((value) => value.toFixed(2)).join(' / ');
  const around =
    truth('thread_cpu') +
    truth('thread_cpu_wait') +
    truth('thread_gil_wait') -
    truth('cpu') -
    truth('cpu_wait') -
    truth('gil_wait');
  // As many were found as the sum is worth, give or take the square root.
  const error = perRequest(Math.sqrt(figures.gilWait * span * SAMPLE_SECONDS) / span);
  const cells = [
    `${mix.what}: ${mix.lockedMs} + ${mix.waitMs} ms, ${mix.perSecond}/s`,
    beside(figures.requests, truth('requests')),
    beside(
      (figures.busy / figures.slots) * 100,
      (truth('wall') / THREADS) * 100,
      ((truth('wall') + around) / THREADS) * 100,
    ),
    beside(perRequest(figures.cpu), perRequest(truth('cpu')), perRequest(truth('thread_cpu'))),
    beside(perRequest(figures.io), perRequest(truth('sleep'))),
    `${beside(perRequest(figures.gilWait), perRequest(truth('gil_wait')), perRequest(truth('thread_gil_wait')))} ± ${error.toFixed(2)}`,
    beside(perRequest(figures.cpuWait), perRequest(truth('cpu_wait')), perRequest(truth('thread_cpu_wait'))),
  ];
  return `| ${cells.join(' | ')} |`;
}

async function ask(prometheus: number, query: string, at: number): Promise<number> {
  const url = `http://127.0.0.1:${prometheus}/api/v1/query?time=${at}&query=${encodeURIComponent(query)}`;
  const { data } = (await (await fetch(url)).json()) as { data: { result: { value: [number, string] }[] } };
  return Number(data.result[0]?.value[1] ?? Number.NaN);
}

async function truthOf(port: number): Promise<Truth> {
  const sums = (await (await fetch(`http://127.0.0.1:${port}/truth`)).json()) as Partial<Truth>;
  return {
    thread_cpu: 0,
    thread_cpu_wait: 0,
    thread_gil_wait: 0,
    requests: 0,
    wall: 0,
    cpu: 0,
    cpu_wait: 0,
    gil_wait: 0,
    sleep: 0,
    ...sums,
  };
}

function page(rows: readonly string[], seconds: number): string[] {
  return [
    '## Whether the figures are true',
    '',
    `Prometheus scrapes each second; 1 worker x ${THREADS} threads, ${seconds} s of a constant rate, two servers at a time. Each cell: what`,
    'Prometheus has / what the app measured of itself / the same with what its threads did around the app. Times',
    'in ms for each request. The waits for the lock are measured at their root, in pthread_cond_timedwait (`bench/apps/lock_waits.c`).',
    'The metric of them is an estimate from some 50 samples a second; ±: the standard error of that.',
    '',
    '| work under the lock + sleep, rate | requests/s | busy threads % | processor (C) | waiting (Z) | interpreter lock | without a processor |',
    '| --- | --- | --- | --- | --- | --- | --- |',
    ...rows,
    '',
  ];
}
