/** `npm run bench`: nunicorn beside other servers, in one run. Method and options: bench/README.md. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { type Case, MIN_BURST_TRIALS, SITES, type Site, SLEEP_SECONDS, type Variant } from './cases.ts';
import {
  behindNginx,
  burst,
  constantRate,
  freePort,
  fullSpeed,
  type Outcome,
  type Target,
  untilAnswered,
} from './loads.ts';
import { coresBusyNs, cpuNs, killAll, memoryOfSameProgram, memoryOfTree, Program, runToEnd } from './processes.ts';
import { type MemorySample, type Results, type Sample, toMarkdown, verdicts } from './report.ts';
import {
  APPS,
  bareThreadsCommand,
  ensureVenv,
  fillDatabaseCommand,
  pythonVersion,
  ROOT,
  SERVERS,
  type ServerId,
} from './servers.ts';

const FULL_RUN_LIMIT_MS = 25 * 60_000;
const QUICK_RUN_LIMIT_MS = 4 * 60_000;
/** Of the limit, kept for ending the last server and writing the page. */
const RESERVE_MS = 20_000;
const QUICK_SERVERS = 'nunicorn,gunicorn-sync,gunicorn-gthread,node-http';
const RESULTS = join(ROOT, 'bench', 'results');

const { values: options } = parseArgs({
  options: {
    cases: { type: 'string' },
    servers: { type: 'string' },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    quick: { type: 'boolean', default: false },
    out: { type: 'string' },
    'server-cores': { type: 'string' },
    'load-cores': { type: 'string' },
    render: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

const rounds = positive('rounds', options.rounds ?? (options.quick ? '2' : '5'));
const seconds = positive('seconds', options.seconds ?? (options.quick ? '1' : '3'));
const caseIds = SITES.flatMap(({ cases }) => cases.map(({ id }) => id));
const wantedCases = pick('cases', options.cases, caseIds);
const wantedServers = pick(
  'servers',
  options.servers ?? (options.quick ? QUICK_SERVERS : undefined),
  Object.keys(SERVERS),
);
/** Only a whole run may replace the published page. */
const isWhole = !options.quick && rounds >= 5 && options.cases === undefined && options.servers === undefined;
/** Before this process is pinned itself. */
const coreCount = availableParallelism();
const cores = chooseCores();
const serverCores = coreSet(cores.server);

const samples: Sample[] = [];
const memory: MemorySample[] = [];
const skipped: string[] = [];
const notes: string[] = [];

if (options.help) usage();
else if (options.render !== undefined) render(options.render);
else await main();

async function main(): Promise<void> {
  process.on('exit', killAll);
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => process.exit(130));
  const startedAt = Date.now();
  requirePrograms();
  ensureVenv();
  const versions = findVersions();
  if (cores.load !== undefined)
    execFileSync('taskset', ['-a', '-cp', cores.load, `${process.pid}`], { stdio: 'ignore' });

  const scratch = mkdtempSync(join(tmpdir(), 'nunicorn-bench-'));
  const env = { BENCH_DATABASE: join(scratch, 'shop.sqlite3'), PYTHONDONTWRITEBYTECODE: '1' };
  try {
    await runToEnd(fillDatabaseCommand(), { cores: undefined, env, cwd: APPS, timeoutMs: 60_000 });
    const limit = startedAt + (options.quick ? QUICK_RUN_LIMIT_MS : FULL_RUN_LIMIT_MS) - RESERVE_MS;
    const steal = stealShare();
    const done = await runRounds(env, versions, limit);
    const results: Results = {
      about: about(startedAt, done, steal()),
      versions: { node: process.version, python: pythonVersion(), ...versions },
      skipped,
      notes,
      samples,
      memory,
    };
    write(results, options.out ?? (isWhole && done === rounds ? 'latest' : 'partial'));
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

/** Rounds outermost, servers innermost and in another order each round. Returns how many rounds were finished. */
async function runRounds(env: Environment, versions: Versions, limit: number): Promise<number> {
  const halfRates = new Map<string, number>();
  for (let round = 0; round < rounds; round++) {
    for (const site of SITES) {
      const cases = site.cases.filter(({ id }) => wantedCases.has(id));
      const variants = site.variants.filter(({ server }) => server === 'python-threads' || server in versions);
      if (cases.some(({ load }) => load.kind === 'rate' && load.perSecond === 'half') && !halfRates.has(site.id))
        halfRates.set(site.id, await halfRate(site, env));
      for (const variant of rotate(variants, round)) {
        const own = cases.filter(({ only }) => only === undefined || only.includes(variant.id));
        if (own.length === 0) continue;
        if (Date.now() > limit) {
          note(`stopped in round ${round + 1} at ${variant.id} on ${site.id}: the time was up`);
          return round;
        }
        await measureVariant({ round, site, variant, cases: own, env, halfRate: halfRates.get(site.id) });
      }
    }
  }
  return rounds;
}

interface Turn {
  readonly round: number;
  readonly site: Site;
  readonly variant: Variant;
  readonly cases: readonly Case[];
  readonly env: Environment;
  readonly halfRate: number | undefined;
}

/** One start of one server: every load of its site, with CPU time and memory. */
async function measureVariant(turn: Turn): Promise<void> {
  const { round, site, variant, cases } = turn;
  if (variant.server === 'python-threads') return measureBareThreads(round, variant);
  try {
    await withServer(site, variant, turn.env, async (program, target) => {
      const remember = (when: MemorySample['when']): void => {
        if (site.id !== 'hello') return;
        const own = variant.server === 'nunicorn' ? { masterAndFronts: memoryOfSameProgram(program.pid) } : {};
        memory.push({ round, variant: variant.id, when, tree: memoryOfTree(program.pid), ...own });
      };
      remember('idle');
      await fullSpeed(target, { connections: 32, seconds: 1 });
      for (const each of cases) {
        await quiet(program);
        const before = cpuNs(program.pid);
        const busyBefore = coresBusyNs(serverCores);
        const outcome = await putLoad(each, target, turn.halfRate ?? 0);
        // At once: what clients left behind when they hung up is work that no counted request pays for.
        const usedNs = cpuNs(program.pid) - before;
        const othersNs = Math.max(0, coresBusyNs(serverCores) - busyBefore - usedNs);
        add(round, each.id, variant.id, outcome, { usedNs, othersNs });
      }
      remember('after load');
      await verify(site, target, program);
    });
  } catch (error) {
    note(`round ${round + 1}, ${variant.id} on ${site.id}: ${error instanceof Error ? error.message : error}`);
  }
}

function putLoad({ load }: Case, target: Target, halfRate: number): Promise<Outcome> {
  switch (load.kind) {
    case 'full': {
      const { connections, newConnections, postBytes } = load;
      const run = (to: Target): Promise<Outcome> => fullSpeed(to, { connections, seconds, newConnections, postBytes });
      return load.nginx ? behindNginx(target, run) : run(target);
    }
    case 'rate': {
      const perSecond = load.perSecond === 'half' ? halfRate : load.perSecond;
      return constantRate(target, { perSecond, connections: load.connections, seconds });
    }
    case 'burst':
      return burst(target, load.requests, Math.ceil(MIN_BURST_TRIALS / rounds));
  }
}

async function measureBareThreads(round: number, { id, threads }: Variant): Promise<void> {
  const command = bareThreadsCommand(threads, SLEEP_SECONDS, seconds);
  const output = await runToEnd(command, { cores: cores.server, timeoutMs: seconds * 1000 + 10_000 });
  const [count = 0, took = 1] = output.trim().split(' ').map(Number);
  const ms = SLEEP_SECONDS * 1000;
  add(round, 'sleep', id, { requests: count, seconds: took, p50Ms: ms, p99Ms: ms, remarks: [] });
}

/** Half of what gunicorn gthread reaches on the site at full speed: measured once, so that it is the same for all. */
async function halfRate(site: Site, env: Environment): Promise<number> {
  const variant = site.variants.find(({ server }) => server === 'gunicorn-gthread');
  if (variant === undefined) throw new Error(`no gunicorn gthread on ${site.id}`);
  const full = await withServer(site, variant, env, async (_program, target) => {
    await fullSpeed(target, { connections: 32, seconds: 1 });
    return fullSpeed(target, { connections: 32, seconds: Math.max(2, seconds) });
  });
  const rate = Math.round(full.requests / full.seconds / 2);
  note(`${site.id}: half of gunicorn gthread's full speed was taken as ${rate}/s`);
  return rate;
}

async function withServer<T>(
  site: Site,
  variant: Variant,
  env: Environment,
  work: (program: Program, target: Target) => Promise<T>,
): Promise<T> {
  if (variant.server === 'python-threads') throw new Error('not a server');
  const { app } = site;
  const { workers, threads } = variant;
  const port = await freePort();
  const program = new Program(SERVERS[variant.server].command({ app, workers, threads, port }), {
    cores: cores.server,
    env,
    cwd: APPS,
  });
  try {
    await untilAnswered(port, site.path, program);
    // The first worker has answered; the others may still be importing the app.
    await quiet(program);
    const bodyBytes = 'bytes' in site.expect ? site.expect.bytes : undefined;
    const target = { port, path: site.path, bodyBytes, cores: cores.load };
    await verify(site, target, program);
    return await work(program, target);
  } finally {
    const killed = await program.stop();
    if (killed > 0) note(`${variant.id} on ${site.id}: ${killed} processes outlived SIGTERM by 10 s and were killed`);
  }
}

async function verify(site: Site, { port }: Target, program: Program): Promise<void> {
  const wrong = (what: string): Error => new Error(`wrong answer: ${what}`);
  if (site.id === 'echo') {
    const sent = 'x'.repeat(10_240);
    const answer = await fetch(`http://127.0.0.1:${port}${site.path}`, { method: 'POST', body: sent });
    if (answer.status !== 200 || (await answer.text()) !== sent) throw wrong(`status ${answer.status}`);
    return;
  }
  const body = await untilAnswered(port, site.path, program);
  const { expect } = site;
  const isRight = 'bytes' in expect ? body.length === expect.bytes : body.includes(expect.contains);
  if (!isRight) throw wrong(body.slice(0, 200));
}

/** Waits until the server has nothing left to do: its tree uses less than 2 % of a core, twice in a row. */
async function quiet(program: Program): Promise<void> {
  const stepMs = 50;
  let calm = 0;
  for (let tries = 0; tries < 100 && calm < 2; tries++) {
    const before = cpuNs(program.pid);
    await sleep(stepMs);
    calm = cpuNs(program.pid) - before < stepMs * 1e6 * 0.02 ? calm + 1 : 0;
  }
}

function add(
  round: number,
  caseId: string,
  variant: string,
  outcome: Outcome,
  cpu?: { readonly usedNs: number; readonly othersNs: number },
): void {
  const { requests, seconds } = outcome;
  const share = (ns: number): number => ns / 1e9 / seconds;
  const sample: Sample = {
    round,
    case: caseId,
    variant,
    rps: requests / seconds,
    ...(cpu === undefined
      ? {}
      : { cpuUs: cpu.usedNs / 1000 / Math.max(1, requests), busy: share(cpu.usedNs), others: share(cpu.othersNs) }),
    ...outcome,
  };
  samples.push(sample);
  const cells = [
    `${round + 1}/${rounds}`,
    caseId.padEnd(12),
    variant.padEnd(22),
    `${sample.rps.toFixed(0).padStart(6)}/s`,
    `p99 ${sample.p99Ms.toFixed(2).padStart(7)} ms`,
    sample.cpuUs === undefined ? '' : `${sample.cpuUs.toFixed(1).padStart(7)} µs`,
    sample.busy === undefined ? '' : `${(sample.busy * 100).toFixed(0).padStart(3)} %`,
    sample.others !== undefined && sample.others > 0.03 ? `others ${(sample.others * 100).toFixed(0)} %` : '',
    sample.remarks.join(', '),
  ];
  console.log(cells.join('  '));
}

function note(text: string): void {
  notes.push(text);
  console.log(`note: ${text}`);
}

function write(results: Results, name: string): void {
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(join(RESULTS, `${name}.json`), `${JSON.stringify(results, null, 1)}\n`);
  render(name);
  for (const { text, limit, measured, met } of verdicts(results))
    console.log(`${met === undefined ? '  ?' : met ? ' ok' : ' NO'}  ${text}: ${measured}, limit ${limit}`);
  console.log(`Written: bench/results/${name}.md and ${name}.json`);
}

/** The page anew from the raw data. */
function render(name: string): void {
  const results = JSON.parse(readFileSync(join(RESULTS, `${name}.json`), 'utf8')) as Results;
  writeFileSync(join(RESULTS, `${name}.md`), toMarkdown(results));
}

type Environment = Readonly<Record<string, string>>;
type Versions = Readonly<Partial<Record<ServerId, string>>>;

/** Of the wanted servers those that are installed; the others are noted as skipped. */
function findVersions(): Versions {
  const versions: Partial<Record<ServerId, string>> = {};
  for (const [id, { version, missing, title }] of Object.entries(SERVERS)) {
    if (!wantedServers.has(id)) continue;
    try {
      versions[id as ServerId] = version();
    } catch {
      skipped.push(`${title}: ${missing}`);
      console.log(`skipped: ${title}: ${missing}`);
    }
  }
  return versions;
}

function requirePrograms(): void {
  const packages = { wrk: 'wrk', nginx: 'nginx-light', taskset: 'util-linux', python3: 'python3-venv' };
  const missing = Object.entries(packages).filter(([program]) => {
    try {
      execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' });
      return false;
    } catch {
      return true;
    }
  });
  if (missing.length === 0) return;
  console.error(`Not found: ${missing.map(([program]) => program).join(', ')}.`);
  console.error(`On Debian: apt-get install ${missing.map(([, name]) => name).join(' ')}`);
  process.exit(1);
}

/** The upper half of the cores for the server, the lower, where interrupts usually go, for the load. */
function chooseCores(): { readonly server: string | undefined; readonly load: string | undefined } {
  const half = Math.floor(coreCount / 2);
  const range = (from: number, to: number): string | undefined => (half === 0 ? undefined : `${from}-${to}`);
  return {
    server: options['server-cores'] ?? range(half, coreCount - 1),
    load: options['load-cores'] ?? range(0, half - 1),
  };
}

function about(startedAt: number, done: number, steal: number): Record<string, string> {
  return {
    date: new Date(startedAt).toISOString().slice(0, 16).replace('T', ' '),
    duration: `${((Date.now() - startedAt) / 60_000).toFixed(1)} min, ${done} rounds of ${seconds} s windows`,
    machine: `${cpus()[0]?.model ?? 'unknown'}, ${coreCount} cores, Linux ${release()}`,
    cores: `server on ${cores.server ?? 'any'}, load and nginx on ${cores.load ?? 'any'}`,
    steal: `${(steal * 100).toFixed(1)} % of the time was taken by the hypervisor`,
  };
}

/** proc_stat(5): share of all time since the call that was stolen. */
function stealShare(): () => number {
  const now = (): { all: number; stolen: number } => {
    const fields = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '').split(/ +/).slice(1, 9).map(Number);
    return { all: fields.reduce((sum, value) => sum + value, 0), stolen: fields[7] ?? 0 };
  };
  const start = now();
  return () => {
    const end = now();
    return (end.stolen - start.stolen) / Math.max(1, end.all - start.all);
  };
}

/** `0-2,5` as taskset takes it. */
function coreSet(cores: string | undefined): ReadonlySet<number> {
  const set = new Set<number>();
  for (const range of cores?.split(',') ?? []) {
    const [from = 0, to = from] = range.split('-').map(Number);
    for (let core = from; core <= to; core++) set.add(core);
  }
  return set;
}

function rotate<T>(list: readonly T[], by: number): T[] {
  const at = list.length === 0 ? 0 : by % list.length;
  return [...list.slice(at), ...list.slice(0, at)];
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} takes a whole number from 1, not ${text}`);
  return value;
}

function pick(name: string, text: string | undefined, known: readonly string[]): ReadonlySet<string> {
  const wanted = text?.split(',') ?? known;
  const unknown = wanted.filter((each) => !known.includes(each));
  if (unknown.length > 0) throw new Error(`--${name}: no ${unknown.join(', ')}; there are ${known.join(', ')}`);
  return new Set(wanted);
}

function usage(): void {
  console.log(`npm run bench -- [options]
  --cases a,b         ${caseIds.join(',')}
  --servers a,b       ${Object.keys(SERVERS).join(',')}
  --rounds N          5
  --seconds S         3, of each window
  --quick             2 rounds of 1 s windows, ${QUICK_SERVERS}: for a look, not for publishing
  --out NAME          bench/results/NAME.md and .json ('latest' for a whole run, else 'partial')
  --server-cores C    as taskset takes them
  --load-cores C
  --render NAME       write NAME.md anew from NAME.json, measure nothing`);
}
