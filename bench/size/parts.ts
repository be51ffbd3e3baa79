/** The measurements of `npm run bench:size`, one item at a time. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Cell, nameOf, stepsBetween } from '../../src/size/cell.ts';
import { size } from '../../src/size/command.ts';
import { type Costs, kneeThreads, kneeWorkers } from '../../src/size/model.ts';
import { parseSizeOptions } from '../../src/size/options.ts';
import type { Report } from '../../src/size/report.ts';
import { type Grid, type Known, type Prediction, ROOT, type Run } from './results.ts';

const APPS = join(ROOT, 'bench', 'apps');
const EXAMPLES = join(ROOT, 'examples');
const NUNICORN = join(ROOT, 'bin', 'nunicorn.js');
export const PYTHON = process.env.PYTHON ?? join(ROOT, '.test', 'venv', 'bin', 'python');

/** On one core and on all; waiting much and little, computing under the lock and outside it. */
const APPLICATIONS: readonly Known[] = [
  { app: 'python', lockedMs: 5, freeMs: 0, waitMs: 20, cpus: 1 },
  { app: 'python', lockedMs: 8, freeMs: 0, waitMs: 0, cpus: 2 },
  { app: 'python', lockedMs: 4, freeMs: 0, waitMs: 40, cpus: 1 },
  { app: 'node', lockedMs: 3, freeMs: 0, waitMs: 30, cpus: 2 },
  { app: 'python', lockedMs: 8, freeMs: 0, waitMs: 0, cpus: 1 },
  { app: 'python', lockedMs: 2, freeMs: 10, waitMs: 0, cpus: 2 },
  { app: 'python', lockedMs: 6, freeMs: 0, waitMs: 12, cpus: 1 },
  { app: 'node', lockedMs: 4, freeMs: 0, waitMs: 10, cpus: 1 },
];

/** The same in the same order, again and again. */
export function application(i: number): Known {
  const fitting = APPLICATIONS.filter(({ cpus }) => cpus <= availableParallelism());
  const known = fitting[i % fitting.length];
  if (known === undefined) throw new Error('no application');
  return known;
}

/** Those that wait: they have settings before the knee. */
export const WAITING = APPLICATIONS.filter(({ app, waitMs, cpus }) => app === 'python' && waitMs > 0 && cpus === 1);

/** One sizing, through the command line, as a user would. */
export function sizeOnce(known: Known, budgetS: number): Run {
  const folder = mkdtempSync(join(tmpdir(), 'nunicorn-bench-size-'));
  const json = join(folder, 'report.json');
  const words = ['size', '--cpus', `${known.cpus}`, '--budget', `${budgetS}s`, '--path', '/', '--json', json];
  const app = known.app === 'node' ? ['./synthetic.mjs'] : ['--python', PYTHON, 'synthetic'];
  try {
    execFileSync(process.execPath, [NUNICORN, ...words, ...app], { cwd: APPS, env: environment(known), stdio: 'pipe' });
  } catch (error) {
    // Exit code 1 with a report: nothing recommended. The report says why.
    if (!isEnded(error)) throw error;
  }
  try {
    return judge(known, JSON.parse(readFileSync(json, 'utf8')) as Report);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function isEnded(error: unknown): boolean {
  return error instanceof Error && 'status' in error && error.status === 1;
}

function environment({ lockedMs, freeMs, waitMs }: Known): NodeJS.ProcessEnv {
  return { ...process.env, LOCKED_MS: `${lockedMs}`, FREE_MS: `${freeMs}`, WAIT_MS: `${waitMs}` };
}

/** Expected from the costs that are known, with those of front and generator as measured. */
function judge(known: Known, report: Report): Run {
  const { recommendation, verdict, costs: measured, variation, othersShare, usedMs } = report;
  const costs: Costs = {
    kind: known.app === 'node' ? 'async' : 'python',
    lockedMs: known.lockedMs,
    blockedMs: 0,
    freeMs: known.freeMs,
    waitMs: known.waitMs,
    frontMs: measured?.frontMs ?? 0,
    generatorMs: measured?.generatorMs ?? 0,
    workerMb: 0,
    threadMb: 0,
    baseMb: 0,
  };
  const workers = kneeWorkers(costs, known.cpus);
  const threads = kneeThreads(costs, workers, known.cpus);
  const { workers: gotWorkers = 0, threads: gotThreads = 0 } = recommendation ?? {};
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
    variation,
    othersShare,
    seconds: usedMs / 1000,
  };
}

/** One disturbing process for each core. */
export async function withNoise<T>(work: () => Promise<T>): Promise<T> {
  const child = spawn(PYTHON, [join(APPS, 'noise.py'), `${availableParallelism()}`], {
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  try {
    return await work();
  } finally {
    child.stdin.end();
    await new Promise((resolve) => child.once('close', resolve));
  }
}

/** Every setting of one worker up to the knee, and what the costs of a request predict for it. */
export async function predict(known: Known, budgetS: number): Promise<readonly Prediction[]> {
  const most = Math.floor(1 + known.waitMs / known.lockedMs);
  const cells = Array.from({ length: most }, (_, i) => cell(1, i + 1));
  Object.assign(process.env, environment(known));
  const report = await run(
    [...['--cpus', `${known.cpus}`, '--path', '/', '--chdir', APPS], 'synthetic'],
    budgetS,
    cells,
  );
  return report.cells.flatMap(({ name, predicted, capacity, why }) =>
    predicted.limit === 'threads' && why !== 'control' && capacity !== undefined
      ? [{ known, name, predicted: predicted.perSecond, measured: capacity }]
      : [],
  );
}

/** Of the time of an ordinary sizing: what the grid gets. */
const GRID_TIMES = 6;
/** The best of twenty cells, each measured once or twice, is in part the luckiest: so many are measured again, in turns. */
const LEADERS = 3;

/** The Django example: one ordinary sizing; beside it every cell of a grid with a rate search of its own; and its leaders again. */
export async function django(budgetS: number): Promise<Grid> {
  const folder = mkdtempSync(join(tmpdir(), 'nunicorn-bench-size-'));
  process.env.SHOP_DATABASE = join(folder, 'shop.sqlite3');
  process.env.PYTHONDONTWRITEBYTECODE = '1';
  try {
    execFileSync(PYTHON, ['-m', 'django_shop.fill'], { cwd: EXAMPLES });
    const words = ['--cpus', '1', '--path', '/books/', '--path', '/books/17/', '--slo', 'p99<300ms'];
    words.push('--chdir', EXAMPLES, 'django_shop.wsgi');
    const sized = await run(words, budgetS);
    const grid = [1, 2, 3, 4].flatMap((workers) => [1, 2, 3, 4, 6].map((threads) => cell(workers, threads)));
    const advised = sized.cells.find(({ name }) => name === sized.recommendation?.name)?.cell;
    const inside = advised === undefined || grid.some((each) => nameOf(each) === nameOf(advised));
    const all = inside ? grid : [...grid, advised];
    const exhaustive = await run(words, GRID_TIMES * budgetS, all);
    const cells = exhaustive.cells.map(({ name, carried }) => ({ name, perSecond: carried?.perSecond }));
    const ranked = [...exhaustive.cells].sort((a, b) => (b.carried?.perSecond ?? 0) - (a.carried?.perSecond ?? 0));
    const leaders = ranked.slice(0, LEADERS).map(({ cell }) => cell);
    const again = advised === undefined || leaders.some((each) => nameOf(each) === nameOf(advised));
    const rematch = await run(words, budgetS, again ? leaders : [...leaders, advised]);
    const final = rematch.cells
      .filter(({ carried }) => carried !== undefined)
      .map(({ name, carried }) => ({ name, perSecond: carried?.perSecond }));
    const best = final.reduce((most, each) => ((each.perSecond ?? 0) > (most.perSecond ?? 0) ? each : most));
    const recommended = sized.recommendation?.name ?? 'nothing';
    const carried = final.find(({ name }) => name === recommended)?.perSecond ?? 0;
    return {
      recommended: `${recommended} (${sized.verdict.kind})`,
      best: best.name,
      share: carried / (best.perSecond ?? Number.NaN),
      seconds: sized.usedMs / 1000,
      gridSeconds: exhaustive.usedMs / 1000,
      cells,
      rematch: final,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function cell(workers: number, threads: number): Cell {
  return { server: 'nunicorn', workers, threads, fronts: 1, preload: false };
}

async function run(words: readonly string[], budgetS: number, only?: readonly Cell[]): Promise<Report> {
  const all = [...words, '--python', PYTHON, '--budget', `${budgetS}s`];
  const request = await parseSizeOptions(all, process.env, process.cwd(), 80);
  if (request.kind !== 'size') throw new Error('not a sizing');
  return size(request.options, all, only);
}
