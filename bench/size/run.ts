/**
 * `npm run bench:size`: how often `nunicorn size` is right. Applications of known cost, whose best setting follows from the maths; the
 * same beside a noise maker; and the Django example against an exhaustive grid. Writes bench/results/size.md and size.json.
 *
 *   npm run bench:size -- [--only accuracy,noise,grid] [--runs 20] [--noise-runs 10] [--budget 45s] [--grid-budget 90s]
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Cell, stepsBetween } from '../../src/size/cell.ts';
import { size } from '../../src/size/command.ts';
import { type Costs, kneeThreads, kneeWorkers } from '../../src/size/model.ts';
import { parseSizeOptions } from '../../src/size/options.ts';
import type { Report } from '../../src/size/report.ts';
import { median } from '../../src/size/statistics.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const APPS = join(ROOT, 'bench', 'apps');
const EXAMPLES = join(ROOT, 'examples');
const RESULTS = join(ROOT, 'bench', 'results');
const PYTHON = process.env.PYTHON ?? join(ROOT, '.test', 'venv', 'bin', 'python');
const NUNICORN = join(ROOT, 'bin', 'nunicorn.js');
/** Of the measured throughput: how far a prediction before the knee may be off. */
const PREDICTION_WITHIN = 0.15;

interface Known {
  readonly lockedMs: number;
  readonly freeMs: number;
  readonly waitMs: number;
  readonly cpus: number;
}

/** On one core and on all; waiting much and little, computing under the lock and outside it. */
const APPLICATIONS: readonly Known[] = [
  { lockedMs: 5, freeMs: 0, waitMs: 20, cpus: 1 },
  { lockedMs: 4, freeMs: 0, waitMs: 40, cpus: 1 },
  { lockedMs: 8, freeMs: 0, waitMs: 0, cpus: 1 },
  { lockedMs: 6, freeMs: 0, waitMs: 12, cpus: 1 },
  { lockedMs: 8, freeMs: 0, waitMs: 0, cpus: 2 },
  { lockedMs: 2, freeMs: 10, waitMs: 0, cpus: 2 },
];

interface Run {
  readonly known: Known;
  readonly expected: string;
  readonly got: string;
  readonly kind: string;
  readonly right: boolean;
  readonly predictions: readonly { readonly name: string; readonly predicted: number; readonly measured: number }[];
  readonly variation: number | null;
  readonly othersShare: number;
  readonly seconds: number;
}

interface Grid {
  readonly recommended: string;
  readonly best: string;
  readonly share: number;
  readonly seconds: number;
  readonly gridSeconds: number;
  readonly cells: readonly { readonly name: string; readonly perSecond: number | undefined }[];
}

interface Results {
  at?: string;
  machine?: string;
  accuracy?: readonly Run[];
  noise?: readonly Run[];
  grid?: Grid;
}

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: 'accuracy,noise,grid' },
    runs: { type: 'string', default: '20' },
    'noise-runs': { type: 'string', default: '10' },
    budget: { type: 'string', default: '45s' },
    'grid-budget': { type: 'string', default: '90s' },
  },
});

const parts = new Set(values.only.split(','));
const file = join(RESULTS, 'size.json');
const results: Results = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Results) : {};
mkdirSync(RESULTS, { recursive: true });
if (parts.has('accuracy')) results.accuracy = accuracy(Number(values.runs), 'accuracy');
if (parts.has('noise')) results.noise = await withNoise(() => accuracy(Number(values['noise-runs']), 'noise'));
if (parts.has('grid')) results.grid = await grid();
results.at = new Date().toISOString().slice(0, 16).replace('T', ' ');
writeFileSync(file, `${JSON.stringify(results, undefined, 1)}\n`);
writeFileSync(join(RESULTS, 'size.md'), toMarkdown(results));
console.log(`\n${toMarkdown(results)}`);

function accuracy(runs: number, what: string): Run[] {
  const fitting = APPLICATIONS.filter(({ cpus }) => cpus <= availableParallelism());
  return Array.from({ length: runs }, (_, i) => {
    const known = fitting[i % fitting.length] ?? APPLICATIONS[0];
    if (known === undefined) throw new Error('no application');
    const run = judge(known, sizeOnce(known));
    console.log(
      `${what} ${i + 1}/${runs}: C ${known.lockedMs} G ${known.freeMs} Z ${known.waitMs} on ${known.cpus}: ${run.kind}, ${run.got} (expected ${run.expected}) ${run.right ? '' : '  <-'}`,
    );
    return run;
  });
}

/** Through the command line, as a user would. */
function sizeOnce({ lockedMs, freeMs, waitMs, cpus }: Known): Report {
  const folder = mkdtempSync(join(tmpdir(), 'nunicorn-bench-size-'));
  const json = join(folder, 'report.json');
  const words = [
    'size',
    '--cpus',
    `${cpus}`,
    '--budget',
    values.budget,
    '--path',
    '/',
    '--json',
    json,
    '--python',
    PYTHON,
  ];
  const env = { ...process.env, LOCKED_MS: `${lockedMs}`, FREE_MS: `${freeMs}`, WAIT_MS: `${waitMs}` };
  try {
    execFileSync(process.execPath, [NUNICORN, ...words, 'synthetic'], { cwd: APPS, env, stdio: 'ignore' });
  } catch {
    // Exit code 1: nothing recommended. The report says why.
  }
  try {
    return JSON.parse(readFileSync(json, 'utf8')) as Report;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Expected from the costs that are known, with those of front and generator as measured. */
function judge(known: Known, report: Report): Run {
  const { recommendation, verdict, costs: measured, variation, othersShare, cells, usedMs } = report;
  const costs: Costs = {
    ...known,
    kind: 'python',
    blockedMs: 0,
    frontMs: measured?.frontMs ?? 0,
    generatorMs: measured?.generatorMs ?? 0,
    workerMb: 0,
    threadMb: 0,
    baseMb: 0,
  };
  const workers = kneeWorkers(costs, known.cpus);
  const threads = kneeThreads(costs, workers, known.cpus);
  const { workers: gotWorkers = 0, threads: gotThreads = 0 } = recommendation ?? {};
  const predictions = cells.flatMap(({ name, why, predicted, capacity, cell }) =>
    predicted.limit === 'threads' && why !== 'control' && capacity !== undefined && cell.server === 'nunicorn'
      ? [{ name, predicted: predicted.perSecond, measured: capacity }]
      : [],
  );
  return {
    known,
    expected: `${workers}x${threads}`,
    got: recommendation?.name ?? 'nothing',
    kind: verdict.kind,
    right:
      verdict.kind !== 'too noisy to say' &&
      Math.abs(gotWorkers - workers) <= 1 &&
      gotThreads > 0 &&
      stepsBetween(gotThreads, threads) <= 1,
    predictions,
    variation,
    othersShare,
    seconds: usedMs / 1000,
  };
}

/** One disturbing process for each core. */
async function withNoise<T>(work: () => T): Promise<T> {
  const child = spawn(PYTHON, [join(APPS, 'noise.py'), `${availableParallelism()}`], {
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  try {
    return work();
  } finally {
    child.stdin.end();
    await new Promise((resolve) => child.once('close', resolve));
  }
}

/** Every cell of a grid with a rate search of its own, and one ordinary sizing beside it. */
async function grid(): Promise<Grid> {
  const folder = mkdtempSync(join(tmpdir(), 'nunicorn-bench-size-'));
  process.env.SHOP_DATABASE = join(folder, 'shop.sqlite3');
  process.env.PYTHONDONTWRITEBYTECODE = '1';
  try {
    execFileSync(PYTHON, ['-m', 'django_shop.fill'], { cwd: EXAMPLES });
    const base = [
      '--cpus',
      '1',
      '--path',
      '/books/',
      '--path',
      '/books/17/',
      '--slo',
      'p99<300ms',
      '--python',
      PYTHON,
      '--chdir',
      EXAMPLES,
    ];
    const budgetS = Number.parseFloat(values['grid-budget']);
    const run = async (seconds: number, only?: readonly Cell[]): Promise<Report> => {
      const words = [...base, '--budget', `${seconds}s`, 'django_shop.wsgi'];
      const request = await parseSizeOptions(words, process.env, process.cwd(), 80);
      if (request.kind !== 'size') throw new Error('not a sizing');
      return size(request.options, words, only);
    };
    const sized = await run(budgetS);
    const all = [1, 2, 3, 4].flatMap((workers) =>
      [1, 2, 3, 4, 6].map((threads): Cell => ({ server: 'nunicorn', workers, threads, fronts: 1, preload: false })),
    );
    const exhaustive = await run(5 * budgetS, all);
    const cells = exhaustive.cells.map(({ name, carried }) => ({ name, perSecond: carried?.perSecond }));
    const best = cells.reduce((most, each) => ((each.perSecond ?? 0) > (most.perSecond ?? 0) ? each : most));
    const recommended = sized.recommendation?.name ?? 'nothing';
    const inGrid = cells.find(({ name }) => name === recommended)?.perSecond ?? 0;
    return {
      recommended: `${recommended} (${sized.verdict.kind})`,
      best: best.name,
      share: inGrid / (best.perSecond ?? Number.NaN),
      seconds: sized.usedMs / 1000,
      gridSeconds: exhaustive.usedMs / 1000,
      cells,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function toMarkdown({ at, accuracy: runs, noise, grid: django }: Results): string {
  const lines = [
    '# How often nunicorn size is right',
    '',
    `Made by \`npm run bench:size\`, ${at} UTC, from size.json beside it.`,
    '',
  ];
  if (runs !== undefined) {
    const right = runs.filter((run) => run.right).length;
    const errors = runs.flatMap(({ predictions }) =>
      predictions.map(({ predicted, measured }) => Math.abs(predicted / measured - 1)),
    );
    const within = errors.filter((error) => error <= PREDICTION_WITHIN).length;
    lines.push(
      '## Applications of known cost',
      '',
      `Within one step of the setting that follows from the maths: **${right} of ${runs.length}** (meant: at least nine tenths).`,
      ...(errors.length === 0
        ? []
        : [
            `Predicted throughput before the knee within 15 % of the measured: ${within} of ${errors.length} cells; median error ${(median(errors) * 100).toFixed(1)} %, worst ${(Math.max(...errors) * 100).toFixed(0)} %.`,
          ]),
      '',
      ...table(runs),
    );
  }
  if (noise !== undefined) {
    const said = noise.filter(({ kind }) => kind === 'too noisy to say').length;
    lines.push(
      '## Beside a noise maker',
      '',
      `"Too noisy to say": **${said} of ${noise.length}** (meant: at least nine tenths).`,
      '',
      ...table(noise),
    );
  }
  if (django !== undefined)
    lines.push(
      '## The Django example against an exhaustive grid',
      '',
      `Recommended in ${Math.round(django.seconds)} s: ${django.recommended}. Best of ${django.cells.length} cells, in ${Math.round(django.gridSeconds)} s: ${django.best}. The recommended setting carries **${(django.share * 100).toFixed(0)} %** of the best cell's rate within the SLO, as the grid has measured it (meant: at least 95 %, in a fifth of the time).`,
      '',
      '| cell | requests/s within p99<300ms |',
      '| --- | --- |',
      ...[...django.cells]
        .sort((a, b) => (b.perSecond ?? 0) - (a.perSecond ?? 0))
        .map(({ name, perSecond }) => `| ${name} | ${perSecond === undefined ? '' : Math.round(perSecond)} |`),
      '',
    );
  return `${lines.join('\n')}\n`;
}

function table(runs: readonly Run[]): string[] {
  return [
    '| C, G, Z ms | cores | expected | recommended | verdict | repeated differ by | others used | s |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ...runs.map(
      ({ known, expected, got, kind, right, variation, othersShare, seconds }) =>
        `| ${known.lockedMs}, ${known.freeMs}, ${known.waitMs} | ${known.cpus} | ${expected} | ${got}${right ? '' : ' (off)'} | ${kind} | ${variation === null ? '' : `${(variation * 100).toFixed(1)} %`} | ${(othersShare * 100).toFixed(0)} % | ${Math.round(seconds)} |`,
    ),
    '',
  ];
}
