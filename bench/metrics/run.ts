/**
 * `npm run bench:metrics`: what counting costs a request, and whether the figures are true: rates, utilisation and where the time
 * of a request goes, as a real Prometheus has them after two minutes, beside what the load and the app know; and how long
 * health checks take while every worker holds the interpreter's lock. Writes bench/results/metrics.md.
 * `--rounds 7 --seconds 3 --soak 120`.
 */

import { createSocket } from 'node:dgram';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { cpuNsOf, readTree } from '../../src/size/proc.ts';
import { median } from '../../src/size/statistics.ts';
import { constantRate, freePort, fullSpeed, untilAnswered } from '../loads.ts';
import { killAll, Program } from '../programs.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const APPS = join(ROOT, 'bench', 'apps');
const PYTHON = process.env.PYTHON ?? join(ROOT, '.test', 'venv', 'bin', 'python');
const RESULT = join(ROOT, 'bench', 'results', 'metrics.md');

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '7' },
    seconds: { type: 'string', default: '3' },
    soak: { type: 'string', default: '120' },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
const soakSeconds = Number(values.soak);

interface Running {
  readonly port: number;
  readonly admin: number;
  readonly program: Program;
}

async function start(app: string, args: readonly string[], env: Record<string, string> = {}): Promise<Running> {
  const [port, admin] = [await freePort(), await freePort()];
  const more = args.map((argument) => argument.replace('ADMIN', `127.0.0.1:${admin}`));
  const command = [process.execPath, join(ROOT, 'bin', 'nunicorn.js'), '-b', `127.0.0.1:${port}`];
  const program = new Program([...command, '--python', PYTHON, '--chdir', APPS, ...more, app], {
    cores: undefined,
    env,
  });
  await untilAnswered(port, app.startsWith('known_mix') ? '/truth' : '/', program);
  return { port, admin, program };
}

// ---- what counting costs

/** Processor time of one kind of process for each request, in microseconds. */
interface Cost {
  readonly front: number;
  readonly worker: number;
}

function titleOf(pid: number): string {
  return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
}

async function cost(args: readonly string[], scraped: boolean): Promise<Cost> {
  const { port, admin, program } = await start('hello:application', ['-w', '1', '--threads', '4', ...args]);
  const target = { port, path: '/', bodyBytes: undefined, cores: undefined };
  await fullSpeed(target, { connections: 32, seconds: 1 });
  const tree = readTree(program.pid);
  const kinds = {
    front: tree.filter(({ pid }) => titleOf(pid).includes(': front')),
    worker: tree.filter(({ pid }) => titleOf(pid).includes(': worker')),
  };
  const read = (): Record<keyof typeof kinds, number> => ({
    front: cpuNsOf(kinds.front),
    worker: cpuNsOf(kinds.worker),
  });
  const scraper = scraped
    ? setInterval(() => void fetch(`http://127.0.0.1:${admin}/metrics`).catch(() => {}), 1000)
    : null;
  const before = read();
  const { requests } = await fullSpeed(target, { connections: 32, seconds });
  const after = read();
  if (scraper !== null) clearInterval(scraper);
  await program.stop();
  const each = (kind: keyof typeof kinds): number => (after[kind] - before[kind]) / 1000 / requests;
  return { front: each('front'), worker: each('worker') };
}

async function costs(): Promise<string[]> {
  const sink = createSocket('udp4');
  sink.bind(0, '127.0.0.1');
  await new Promise((bound) => sink.once('listening', bound));
  const variants = {
    'without metrics': { args: [], scraped: false },
    '`--admin-bind`, scraped each second': { args: ['--admin-bind', 'ADMIN'], scraped: true },
    '`--statsd-host`': { args: ['--statsd-host', `127.0.0.1:${sink.address().port}`], scraped: false },
  };
  const found = new Map<string, Cost[]>();
  for (let round = 0; round < rounds; round++) {
    for (const [name, { args, scraped }] of Object.entries(variants)) {
      const one = await cost(args, scraped);
      found.set(name, [...(found.get(name) ?? []), one]);
      console.error(`${round + 1}/${rounds} ${name}: front ${one.front.toFixed(2)} us`);
    }
  }
  sink.close();
  const column = (list: readonly Cost[], kind: keyof Cost): string => {
    const all = list.map((one) => one[kind]);
    return `${median(all).toFixed(2)} (${Math.min(...all).toFixed(2)}-${Math.max(...all).toFixed(2)})`;
  };
  return [
    '## What counting costs',
    '',
    `Processor time for each request in µs, hello world, 1 worker x 4 threads, 32 connections at full speed; median of ${rounds} interleaved rounds of ${seconds} s (least-most).`,
    '',
    '| | front | worker |',
    '| --- | --- | --- |',
    ...Array.from(found, ([name, list]) => `| ${name} | ${column(list, 'front')} | ${column(list, 'worker')} |`),
    '',
  ];
}

// ---- whether the figures are true

interface Mix {
  readonly lockedMs: number;
  readonly waitMs: number;
  readonly perSecond: number;
}

const THREADS = 4;
const MIXES: readonly Mix[] = [
  { lockedMs: 3, waitMs: 20, perSecond: 50 },
  { lockedMs: 8, waitMs: 20, perSecond: 45 },
  { lockedMs: 2, waitMs: 0, perSecond: 150 },
];

interface Truth {
  readonly requests: number;
  readonly wall: number;
  readonly cpu: number;
  readonly cpu_wait: number;
  readonly gil_wait: number;
  readonly sleep: number;
  readonly probes: number;
  readonly probe_wait: number;
}

async function ask(prometheus: number, query: string, at: number): Promise<number> {
  const url = `http://127.0.0.1:${prometheus}/api/v1/query?time=${at}&query=${encodeURIComponent(query)}`;
  const { data } = (await (await fetch(url)).json()) as { data: { result: { value: [number, string] }[] } };
  return Number(data.result[0]?.value[1] ?? Number.NaN);
}

async function truthOf(port: number): Promise<Truth> {
  return (await (await fetch(`http://127.0.0.1:${port}/truth`)).json()) as Truth;
}

async function compare({ lockedMs, waitMs, perSecond }: Mix): Promise<string> {
  const args = ['-w', '1', '--threads', `${THREADS}`, '--admin-bind', 'ADMIN'];
  const env = { LOCKED_MS: `${lockedMs}`, WAIT_MS: `${waitMs}` };
  const { port, admin, program } = await start('known_mix:application', args, env);
  const folder = mkdtempSync(join(tmpdir(), 'prometheus-'));
  const prometheus = await freePort();
  const config = join(folder, 'prometheus.yml');
  writeFileSync(
    config,
    `global: { scrape_interval: 1s }\nscrape_configs: [{ job_name: nunicorn, static_configs: [{ targets: ['127.0.0.1:${admin}'] }] }]\n`,
  );
  const scraper = new Program(
    [
      'prometheus',
      `--config.file=${config}`,
      `--storage.tsdb.path=${folder}/data`,
      `--web.listen-address=127.0.0.1:${prometheus}`,
    ],
    { cores: undefined },
  );
  try {
    await untilAnswered(prometheus, '/-/ready', scraper);
    const target = { port, path: '/', bodyBytes: undefined, cores: undefined };
    const load = constantRate(target, { perSecond, connections: 16, seconds: soakSeconds + 15 });
    await sleep(12_000); // Prometheus begins 5 s after its start
    const from = Date.now() / 1000;
    const before = await truthOf(port);
    await sleep(soakSeconds * 1000);
    const to = Date.now() / 1000;
    const after = await truthOf(port);
    await load;
    await sleep(1500);
    const window = Math.round(to - from);
    const span = to - from;
    const rate = (query: string): Promise<number> => ask(prometheus, `sum(rate(${query}[${window}s]))`, to);
    const [requests, busy, slots, cpu, gil, io] = [
      await rate('nunicorn_app_duration_seconds_count'),
      await rate('nunicorn_busy_seconds_total'),
      await rate('nunicorn_slot_seconds_total'),
      await rate('nunicorn_cpu_seconds_total'),
      await rate('nunicorn_gil_wait_seconds_total'),
      await rate('nunicorn_io_seconds_total'),
    ];
    const count = after.requests - before.requests;
    const each = (name: keyof Truth): number => ((after[name] - before[name]) / count) * 1000;
    const beside = (measured: number, truth: number): string => `${measured.toFixed(2)} / ${truth.toFixed(2)}`;
    const probe = ((after.probe_wait - before.probe_wait) / (after.probes - before.probes)) * 1000;
    // In the app, and twice outside: when the request has come, and when it has been answered.
    const gilTruth = each('gil_wait') + 2 * probe;
    const utilization = ((after.wall - before.wall) / span / THREADS) * 100;
    return `| ${lockedMs} + ${waitMs} ms, ${perSecond}/s | ${beside(requests, count / span)} | ${beside((busy / slots) * 100, utilization)} | ${beside((cpu / requests) * 1000, each('cpu'))} | ${beside((io / requests) * 1000, each('sleep'))} | ${beside((gil / requests) * 1000, gilTruth)} | ${each('cpu_wait').toFixed(2)} |`;
  } finally {
    await scraper.stop();
    await program.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function truths(): Promise<string[]> {
  const rows: string[] = [];
  for (const mix of MIXES) {
    rows.push(await compare(mix));
    console.error(rows.at(-1));
  }
  return [
    '## Whether the figures are true',
    '',
    `Prometheus scrapes each second; 1 worker x ${THREADS} threads under a constant rate for ${soakSeconds} s. Each cell: what Prometheus has / what the load and the app themselves measured. Times in ms for each request.`,
    '',
    'Where processors were short (last column), threads had a request for longer than their app: its way over the bridge waits too. What threads wait for the lock outside the app is reckoned by a probe in the app.',
    '',
    '| work under the lock + sleep, rate | requests/s | busy threads % | processor (C) | waiting (Z) | interpreter lock | without a processor |',
    '| --- | --- | --- | --- | --- | --- | --- |',
    ...rows,
    '',
  ];
}

// ---- while every worker holds the lock

async function stuck(): Promise<string[]> {
  const { port, admin, program } = await start('known_mix:application', ['-w', '2', '--admin-bind', 'ADMIN']);
  const held = [1, 2].map(() => fetch(`http://127.0.0.1:${port}/hold-lock`).catch(() => {}));
  const waiting = Array.from({ length: 20 }, () => fetch(`http://127.0.0.1:${port}/`).catch(() => {}));
  await sleep(1000);
  const rows: string[] = [];
  for (const path of ['/livez', '/readyz', '/status', '/requests', '/metrics']) {
    const times: number[] = [];
    for (let turn = 0; turn < 40; turn++) {
      const began = performance.now();
      const response = await fetch(`http://127.0.0.1:${admin}${path}`);
      await response.text();
      if (response.status !== 200) throw new Error(`${path}: ${response.status}`);
      times.push(performance.now() - began);
    }
    rows.push(`| \`${path}\` | ${median(times).toFixed(1)} | ${Math.max(...times).toFixed(1)} |`);
  }
  await program.stop();
  await Promise.all([...held, ...waiting]);
  return [
    '## While every worker holds the interpreter lock in C',
    '',
    '2 workers, 20 requests wait. Milliseconds of 40 requests, one after the other.',
    '',
    '| | median | most |',
    '| --- | --- | --- |',
    ...rows,
    '',
  ];
}

try {
  const page = ['# Metrics: what they cost and whether they are true', '', 'Made by `npm run bench:metrics`.', ''];
  page.push(...(await stuck()), ...(await costs()), ...(await truths()));
  writeFileSync(RESULT, `${page.join('\n').trimEnd()}\n`);
  console.log(page.join('\n'));
} finally {
  killAll();
}
