/** Which cells are worth measuring. Pure: from costs and limits, or from what was measured so far. */
import { type Cell, MAX_THREADS, nameOf, slotsOf, stepFrom, threadStep } from './cell.ts';
import { type Costs, capacity, kneeThreads, kneeWorkers, memoryMb } from './model.ts';

export interface Limits {
  /** What the server may use: a whole number, or a part of cores by a quota. */
  readonly cores: number;
  /** Of all processes of the server together; undefined: no limit. */
  readonly memoryMb?: number;
  /** Slots in all: each may hold a connection of the database. */
  readonly databaseConnections?: number;
}

/** Why a cell is measured. A cell may have several reasons; the first one is kept. */
export type Reason =
  | 'control'
  | 'predicted knee'
  | 'past the knee'
  | 'before the knee'
  | 'other workers'
  | '2 x cores + 1'
  | 'preload'
  | 'more fronts'
  | 'neighbour'
  | 'as configured'
  | 'gunicorn';

export interface PlannedCell {
  readonly cell: Cell;
  readonly why: Reason;
}

export interface LeftOut extends PlannedCell {
  readonly because: string;
}

export interface Plan {
  /** In order of importance. */
  readonly cells: readonly PlannedCell[];
  readonly leftOut: readonly LeftOut[];
}

/** What a front's work may take of a core before a second front is worth a try. */
const FRONT_FULL = 0.7;
/** Of the limit; the rest is for what grows with time and for peaks. */
export const MEMORY_SHARE = 0.85;

export const CONTROL = { workers: 1, threads: 1 } as const;

/** Gunicorn's rule of thumb. */
function ruleWorkers(cores: number): number {
  return 2 * Math.max(1, Math.floor(cores)) + 1;
}

/**
 * @param base what every cell has in common: fronts and preload as the user wants them
 * @param count how many cells at most; the control, the rule of thumb and two past the knee are among them where limits allow
 */
export function planCells(costs: Costs, limits: Limits, base: Pick<Cell, 'fronts' | 'preload'>, count: number): Plan {
  const wanted: PlannedCell[] = [];
  const want = (why: Reason, workers: number, threads: number, more: Partial<Cell> = {}): void => {
    if (workers < 1) return;
    const cell: Cell = { server: 'nunicorn', ...base, workers, threads: Math.min(threads, MAX_THREADS), ...more };
    if (!wanted.some((other) => nameOf(other.cell) === nameOf(cell))) wanted.push({ cell, why });
  };
  if (costs.kind === 'async') wantLoops(costs, limits, want);
  else wantThreads(costs, limits, base, want);

  const cells: PlannedCell[] = [];
  const leftOut: LeftOut[] = [];
  for (const planned of wanted) {
    const because = whyNot(planned.cell, costs, limits);
    if (because !== undefined) leftOut.push({ ...planned, because });
    else if (cells.length < count) cells.push(planned);
  }
  return { cells, leftOut };
}

type Want = (why: Reason, workers: number, threads: number, more?: Partial<Cell>) => void;

function wantThreads(costs: Costs, limits: Limits, base: Pick<Cell, 'fronts' | 'preload'>, want: Want): void {
  const workers = fittingWorkers(costs, limits);
  const threads = (of: number): number => kneeThreads(costs, of, limits.cores);
  const knee = threads(workers);

  want('control', CONTROL.workers, CONTROL.threads);
  want('predicted knee', workers, knee);
  want('past the knee', workers, stepFrom(knee, 1));
  want('2 x cores + 1', ruleWorkers(limits.cores), 1);
  want('past the knee', workers, stepFrom(knee, 3));
  want('before the knee', workers, stepFrom(knee, -1));
  want('other workers', workers + 1, threads(workers + 1));
  want('other workers', workers - 1, threads(workers - 1));
  want('before the knee', workers, threadStep(Math.ceil(knee / 2)));
  want('other workers', workers + 1, stepFrom(threads(workers + 1), 1));
  if (costs.kind === 'python') {
    const best: Cell = { server: 'nunicorn', ...base, workers, threads: knee };
    if ((capacity(costs, best, limits.cores).perSecond / 1000) * costs.frontMs > FRONT_FULL * base.fronts)
      want('more fronts', workers, knee, { fronts: base.fronts + 1 });
    if (workers > 1 && !base.preload) want('preload', workers, knee, { preload: true });
  }
  want('other workers', workers + 2, threads(workers + 2));
  want('before the knee', workers, 1);
  want('other workers', 2 * workers, 1);
  want('past the knee', workers, stepFrom(knee, 5));
}

/** Event loops have no threads: workers only. */
function wantLoops(costs: Costs, limits: Limits, want: Want): void {
  const workers = fittingWorkers(costs, limits);
  want('control', CONTROL.workers, 1);
  want('predicted knee', workers, 1);
  want('past the knee', workers + 1, 1);
  want('2 x cores + 1', ruleWorkers(limits.cores), 1);
  want('past the knee', workers + 2, 1);
  want('before the knee', workers - 1, 1);
  want('past the knee', 2 * workers, 1);
  want('before the knee', Math.ceil(workers / 2), 1);
}

/** As many workers as the knee asks for, or as the limits leave room for. */
function fittingWorkers(costs: Costs, limits: Limits): number {
  let workers = kneeWorkers(costs, limits.cores);
  const fits = (count: number): boolean =>
    whyNot({ server: 'nunicorn', workers: count, threads: 1, fronts: 1, preload: false }, costs, limits) === undefined;
  while (workers > 1 && !fits(workers)) workers--;
  return workers;
}

/** Why a cell must not be run, or undefined. */
export function whyNot(
  cell: Cell,
  costs: Costs,
  { memoryMb: limitMb, databaseConnections }: Limits,
): string | undefined {
  const slots = slotsOf(cell);
  if (databaseConnections !== undefined && slots > databaseConnections)
    return `${slots} threads may hold ${slots} database connections, of ${databaseConnections}`;
  const needMb = memoryMb(costs, cell);
  if (limitMb !== undefined && needMb > MEMORY_SHARE * limitMb)
    return `needs about ${Math.round(needMb)} MB, more than ${MEMORY_SHARE * 100} % of ${Math.round(limitMb)} MB`;
  return undefined;
}

/** The cells around the best one that were not measured yet, nearest first: one step of threads, one worker. */
export function neighbours(best: Cell, known: readonly Cell[], costs: Costs, limits: Limits): readonly PlannedCell[] {
  const names = new Set(known.map(nameOf));
  const around: readonly Cell[] = [
    ...(costs.kind === 'async' ? [] : [{ ...best, threads: stepFrom(best.threads, 1) }]),
    ...(costs.kind === 'async' ? [] : [{ ...best, threads: stepFrom(best.threads, -1) }]),
    { ...best, workers: best.workers + 1 },
    { ...best, workers: Math.max(1, best.workers - 1) },
    costs.kind === 'async' ? { ...best, workers: best.workers + 2 } : { ...best, threads: stepFrom(best.threads, 2) },
  ];
  return around
    .filter((cell) => !names.has(nameOf(cell)) && whyNot(cell, costs, limits) === undefined)
    .map((cell) => ({ cell, why: 'neighbour' as const }));
}

/** For sorting: what costs less first. Memory in steps of a few MB, so that noise in it does not decide; then processes. */
export function byCost(costs: Costs): (a: Cell, b: Cell) => number {
  const step = (cell: Cell): number => Math.round(memoryMb(costs, cell) / 4);
  return (a, b) =>
    step(a) - step(b) ||
    a.workers - b.workers ||
    a.threads - b.threads ||
    a.fronts - b.fronts ||
    Number(a.preload) - Number(b.preload);
}
