/**
 * `npm run bench:node`: Node apps under nunicorn beside bare node:cluster and PM2, what a thread costs a request, and what
 * threads give to handlers that need the processor. Writes bench/results/node.md and node.json. Method: bench/README.md.
 */

import { join } from 'node:path';
import { commandLine, pick, positive } from '../command-line.ts';
import { constantRate, freePort, fullSpeed, type Outcome, type Target, untilAnswered } from '../loads.ts';
import { chooseCores, pinThisProcess, requirePrograms, watchRun } from '../machine.ts';
import { renderPage, writePage } from '../page.ts';
import { Program, runToEnd, scratchFolder } from '../programs.ts';
import type { Sample } from '../report.ts';
import { quiet, rotate, Windows } from '../windows.ts';
import {
  CASES,
  type Case,
  CEILING,
  CONNECTIONS,
  HEALTH_PER_SECOND,
  type Variant,
  WORK_CLIENTS,
  WORK_MS,
} from './cases.ts';
import { HEALTH, type Results, toMarkdown, verdicts } from './report.ts';
import { commandOf, install, NODE_APPS, versions } from './servers.ts';

const USAGE = `  --cases a,b         ${CASES.map(({ id }) => id).join(',')}
  --rounds N          5
  --seconds S         2, of each window; of 'compute' twice that
  --out NAME          bench/results/NAME.md and .json ('node' for all cases in 5 rounds, else 'node-partial')
  --server-cores C    as taskset takes them
  --load-cores C
  --render NAME       write NAME.md anew from NAME.json, measure nothing`;

const { cases, rounds, seconds, ...options } = commandLine(
  'bench:node',
  USAGE,
  {
    cases: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    out: { type: 'string' },
    'server-cores': { type: 'string' },
    'load-cores': { type: 'string' },
    render: { type: 'string' },
  },
  (values) => {
    const wanted = pick(
      'cases',
      values.cases,
      CASES.map(({ id }) => id),
    );
    return {
      ...values,
      cases: CASES.filter(({ id }) => wanted.has(id)),
      rounds: positive('rounds', values.rounds),
      seconds: positive('seconds', values.seconds),
    };
  },
);

/** Of a run that may replace the published page. */
const MIN_ROUNDS = 5;
/** For windows that are measured again: see Windows. */
const LIMIT_MS = 8 * 60_000;
const cores = chooseCores(options['server-cores'], options['load-cores']);
const windows = new Windows(cores, LIMIT_MS);
const PAGE = { toMarkdown, verdicts };
const samples: Sample[] = [];
const notes: string[] = [];

if (options.render !== undefined) renderPage(PAGE, options.render);
else await main();

async function main(): Promise<void> {
  const variants = cases.flatMap((each) => each.variants);
  requirePrograms(['wrk', 'taskset']);
  install(variants);
  scratchFolder();
  pinThisProcess(cores);
  const about = watchRun(cores, seconds);
  const steps = cases.some(({ load }) => load === 'compute') ? await calibrate() : 0;
  for (let round = 0; round < rounds; round++) {
    for (const each of cases) await measureCase(round, each, steps);
  }
  const results: Results = { about: about(rounds), versions: versions(variants), notes, samples };
  const whole = cases.length === CASES.length && rounds >= MIN_ROUNDS;
  writePage(PAGE, options.out ?? (whole ? 'node' : 'node-partial'), results);
}

/** All variants once, one at a time, in another order each round. */
async function measureCase(round: number, each: Case, steps: number): Promise<void> {
  for (const variant of rotate(each.variants, round)) {
    try {
      if (each.load === 'hello') await measureHello(round, each, variant);
      else await measureCompute(round, each, variant, steps);
    } catch (error) {
      note(`round ${round + 1}, ${variant.id} in ${each.id}: ${error instanceof Error ? error.message : error}`);
    }
  }
  if (each.load === 'compute') await measureCeiling(round, each, steps);
}

async function measureHello(round: number, each: Case, variant: Variant): Promise<void> {
  await withServer(variant, cores.server, {}, async (program, port) => {
    const target: Target = { port, path: '/', bodyBytes: undefined, cores: cores.load };
    // Each thread compiles the app for itself.
    await fullSpeed(target, { connections: CONNECTIONS, seconds: variant.threads === null ? 1 : 2 });
    const window = await windows.measure(
      program,
      () => fullSpeed(target, { connections: CONNECTIONS, seconds }),
      (seen, again) => print(sample(round, each.id, variant.id, seen), again),
    );
    samples.push(sample(round, each.id, variant.id, window));
  });
}

/** The load is light but for what it asks for, so that the server has all cores. Requests are few: the window is longer. */
async function measureCompute(round: number, each: Case, variant: Variant, steps: number): Promise<void> {
  const long = 2 * seconds;
  await withServer(variant, allCores(), { STEPS: String(steps) }, async (program, port) => {
    const target = (path: string): Target => ({ port, path, bodyBytes: undefined, cores: undefined });
    const work = (): Promise<Outcome> => fullSpeed(target('/work'), { connections: WORK_CLIENTS, seconds: long });
    const health = (): Promise<Outcome> =>
      constantRate(target('/health'), {
        perSecond: HEALTH_PER_SECOND,
        connections: 32,
        seconds: long - 0.5,
        spin: false,
      });
    await fullSpeed(target('/work'), { connections: WORK_CLIENTS, seconds: 1 });
    let checks: Outcome | undefined;
    const window = await windows.measure(
      program,
      async () => {
        const [worked, checked] = await Promise.all([work(), health()]);
        checks = checked;
        return worked;
      },
      (seen, again) => print(sample(round, each.id, variant.id, seen), again),
    );
    samples.push(sample(round, each.id, variant.id, window));
    if (checks === undefined) return;
    samples.push(sample(round, HEALTH, variant.id, checks));
    print(sample(round, HEALTH, variant.id, checks), false);
  });
}

/** What the machine can do of the work when nothing else runs: two processes, as there are two cores to the target. */
async function measureCeiling(round: number, each: Case, steps: number): Promise<void> {
  const outputs = await Promise.all([1, 2].map(() => computing(steps, allCores())));
  const rps = outputs.reduce((sum, { perSecond }) => sum + perSecond, 0);
  const outcome = { requests: Math.round(rps * seconds), seconds, p50Ms: WORK_MS, p99Ms: WORK_MS, remarks: [] };
  samples.push({ ...sample(round, each.id, CEILING, outcome), rps });
  print({ ...sample(round, each.id, CEILING, outcome), rps }, false);
}

/** How many steps take 20 ms on the server's cores. */
async function calibrate(): Promise<number> {
  const steps = 10_000_000;
  const { perSecond } = await computing(steps, cores.server);
  const found = Math.round((steps * perSecond * WORK_MS) / 1000);
  note(`${WORK_MS} ms are ${found} steps of bench/apps/node/compute.cjs`);
  return found;
}

async function computing(steps: number, on: string | undefined): Promise<{ perSecond: number }> {
  const command = [process.execPath, join(NODE_APPS, 'computing.cjs'), `${steps}`, `${seconds}`];
  const output = await runToEnd(command, { cores: on, timeoutMs: seconds * 1000 + 20_000 });
  const [times = 0, took = 1] = output.trim().split(' ').map(Number);
  return { perSecond: times / took };
}

async function withServer(
  variant: Variant,
  on: string | undefined,
  env: Readonly<Record<string, string>>,
  work: (program: Program, port: number) => Promise<void>,
): Promise<void> {
  const port = await freePort();
  const { command, env: own } = commandOf(variant, port);
  const program = new Program(command, { cores: on, env: { ...own, ...env } });
  try {
    await untilAnswered(port, '/', program);
    await quiet(program);
    await work(program, port);
    await untilAnswered(port, '/', program);
  } finally {
    const killed = await program.stop();
    if (killed > 0) note(`${variant.id}: ${killed} processes outlived SIGTERM by 10 s and were killed`);
  }
}

/** This process is pinned, and what it starts would be too. */
function allCores(): string | undefined {
  return cores.server === undefined || cores.load === undefined ? undefined : `${cores.server},${cores.load}`;
}

function sample(round: number, caseId: string, variant: string, outcome: Outcome): Sample {
  return { round, case: caseId, variant, rps: outcome.requests / outcome.seconds, ...outcome };
}

function print(one: Sample, again: boolean): void {
  const cells = [
    `${one.round + 1}/${rounds}`,
    one.case.padEnd(8),
    one.variant.padEnd(30),
    `${one.rps.toFixed(one.rps < 1000 ? 1 : 0).padStart(7)}/s`,
    `p99 ${one.p99Ms.toFixed(2).padStart(7)} ms`,
    one.cpuUs === undefined ? '' : `${one.cpuUs.toFixed(2).padStart(9)} µs`,
    one.others === undefined ? '' : `others ${(one.others * 100).toFixed(0)} %`,
    one.remarks.join(', '),
    again ? 'again' : '',
  ];
  console.log(cells.join('  ').trimEnd());
}

function note(text: string): void {
  notes.push(text);
  console.log(`note: ${text}`);
}
