/** `npm run bench`: nunicorn beside other servers, in one run. Method and options: bench/README.md. */

import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { memoryOfSameProgram, memoryOfTree } from '../src/size/proc.ts';
import { type Case, MEMORY_TARGETS, MIN_BURST_TRIALS, SITES, type Site, SLEEP_SECONDS, type Variant } from './cases.ts';
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
import { chooseCores, pinThisProcess, requirePrograms, watchRun } from './machine.ts';
import { options } from './options.ts';
import { renderPage, writePage } from './page.ts';
import { Program, runToEnd, scratchFolder } from './programs.ts';
import { type MemorySample, type Results, type Sample, toMarkdown, verdicts } from './report.ts';
import {
  APPS,
  bareThreadsCommand,
  ensureVenv,
  fillDatabaseCommand,
  MODULES,
  pythonVersion,
  SERVERS,
  type ServerId,
} from './servers.ts';
import { quiet, rotate, type Window, Windows } from './windows.ts';

const FULL_RUN_LIMIT_MS = 30 * 60_000;
const QUICK_RUN_LIMIT_MS = 4 * 60_000;
/** Of the limit, kept for ending the last server and writing the page. */
const RESERVE_MS = 20_000;
/** Of a run that may replace the published page. */
const MIN_ROUNDS = 5;
/** A compiler settles after some thousand requests: a server that was started a second ago is not what one runs. */
const WARM_UP_REQUESTS = 6000;
const MAX_WARM_UP_SECONDS = 10;
/** V8 gives back what a start has left behind when it has had nothing to do for 8 s. */
const REST_MS = 12_000;

const { rounds, seconds } = options;
const limitMs = (options.quick ? QUICK_RUN_LIMIT_MS : FULL_RUN_LIMIT_MS) - RESERVE_MS;
const stopAt = Date.now() + limitMs;
const cores = chooseCores(options.serverCores, options.loadCores);
const windows = new Windows(cores, limitMs);
const PAGE = { toMarkdown, verdicts };
const samples: Sample[] = [];
const memory: MemorySample[] = [];
const skipped: string[] = [];
const notes: string[] = [];

if (options.render !== undefined) renderPage(PAGE, options.render);
else await main();

async function main(): Promise<void> {
  const scratch = scratchFolder();
  requirePrograms(['wrk', 'nginx', 'taskset', 'python3']);
  ensureVenv();
  const versions = findVersions();
  pinThisProcess(cores);

  const env = { SHOP_DATABASE: join(scratch, 'shop.sqlite3'), PYTHONPATH: MODULES, PYTHONDONTWRITEBYTECODE: '1' };
  await runToEnd(fillDatabaseCommand(), { cores: undefined, env, cwd: APPS, timeoutMs: 60_000 });
  const about = watchRun(cores, seconds);
  const done = await runRounds(env, versions);
  const results: Results = {
    about: about(done),
    versions: { node: process.version, python: pythonVersion(), ...versions },
    skipped,
    notes,
    samples,
    memory,
  };
  writePage(PAGE, options.out ?? (options.whole && done >= MIN_ROUNDS ? 'latest' : 'partial'), results);
}

/** Rounds outermost, servers innermost and in another order each round. Returns how many rounds were finished. */
async function runRounds(env: Environment, versions: Versions): Promise<number> {
  const halfRates = new Map<string, number>();
  for (let round = 0; round < rounds; round++) {
    for (const site of SITES) {
      const cases = site.cases.filter(({ id }) => options.cases.has(id));
      const variants = site.variants.filter(({ server }) => server === 'python-threads' || server in versions);
      if (cases.some(({ load }) => load.kind === 'rate' && load.perSecond === 'half') && !halfRates.has(site.id))
        halfRates.set(site.id, await halfRate(site, env));
      for (const variant of rotate(variants, round)) {
        const own = cases.filter(({ only }) => only === undefined || only.includes(variant.id));
        if (own.length === 0) continue;
        if (Date.now() > stopAt) {
          note(`stopped in round ${round + 1} at ${variant.id} on ${site.id}: the time was up`);
          return round;
        }
        await measureVariant({ round, site, variant, cases: own, env, halfRate: halfRates.get(site.id) ?? 0 });
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
  readonly halfRate: number;
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
      if (site.id === 'hello' && variant.id === MEMORY_TARGETS.variant) await delay(REST_MS);
      remember('idle');
      await warmUp(site, target);
      for (const each of cases) {
        samples.push(await measure(turn, each, program, target));
      }
      remember('after load');
      await verify(site, target, program);
    });
  } catch (error) {
    note(`round ${round + 1}, ${variant.id} on ${site.id}: ${error instanceof Error ? error.message : error}`);
  }
}

async function measure(turn: Turn, each: Case, program: Program, target: Target): Promise<Sample> {
  const sample = (window: Window): Sample => toSample(turn.round, each.id, turn.variant.id, window);
  return sample(
    await windows.measure(
      program,
      () => putLoad(each, target, turn.halfRate),
      (window, again) => print(sample(window), again ? 'again' : ''),
    ),
  );
}

/** Lets compilers and caches settle. Not at full speed where requests sleep long: clients that leave would fill the queue. */
async function warmUp(site: Site, target: Target): Promise<void> {
  const bursts = site.cases.flatMap(({ load }) => (load.kind === 'burst' ? [load.requests] : []));
  if (bursts[0] !== undefined) await burst(target, bursts[0], 1);
  else {
    let requests = 0;
    for (let passed = 0; requests < WARM_UP_REQUESTS && passed < MAX_WARM_UP_SECONDS; passed++)
      requests += (await fullSpeed(target, { connections: 32, seconds: 1 })).requests;
  }
}

function putLoad({ load, timesLonger = 1 }: Case, target: Target, halfRate: number): Promise<Outcome> {
  const seconds = options.seconds * timesLonger;
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
  const sample = toSample(round, 'sleep', id, { requests: count, seconds: took, p50Ms: ms, p99Ms: ms, remarks: [] });
  print(sample);
  samples.push(sample);
}

/** Half of what gunicorn gthread reaches on the site at full speed: measured once, so that it is the same for all. */
async function halfRate(site: Site, env: Environment): Promise<number> {
  const variant = site.variants.find(({ server }) => server === 'gunicorn-gthread');
  if (variant === undefined) throw new Error(`no gunicorn gthread on ${site.id}`);
  const full = await withServer(site, variant, env, async (_program, target) => {
    await warmUp(site, target);
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

function toSample(round: number, caseId: string, variant: string, outcome: Outcome): Sample {
  return { round, case: caseId, variant, rps: outcome.requests / outcome.seconds, ...outcome };
}

function print(sample: Sample, remark = ''): void {
  const percent = (share: number): string => `${(share * 100).toFixed(0)} %`;
  const cells = [
    `${sample.round + 1}/${rounds}`,
    sample.case.padEnd(12),
    sample.variant.padEnd(22),
    `${sample.rps.toFixed(0).padStart(6)}/s`,
    `p99 ${sample.p99Ms.toFixed(2).padStart(7)} ms`,
    sample.cpuUs === undefined ? '' : `${sample.cpuUs.toFixed(1).padStart(7)} µs`,
    sample.busy === undefined ? '' : percent(sample.busy).padStart(5),
    sample.others === undefined ? '' : `others ${percent(sample.others)}`,
    sample.remarks.join(', '),
    remark,
  ];
  console.log(cells.join('  ').trimEnd());
}

function note(text: string): void {
  notes.push(text);
  console.log(`note: ${text}`);
}

type Environment = Readonly<Record<string, string>>;
type Versions = Readonly<Partial<Record<ServerId, string>>>;

/** Of the wanted servers those that are installed; the others are noted as skipped. */
function findVersions(): Versions {
  const versions: Partial<Record<ServerId, string>> = {};
  for (const [id, { version, missing, title }] of Object.entries(SERVERS)) {
    if (!options.servers.has(id)) continue;
    try {
      versions[id as ServerId] = version();
    } catch {
      skipped.push(`${title}: ${missing}`);
      console.log(`skipped: ${title}: ${missing}`);
    }
  }
  return versions;
}
