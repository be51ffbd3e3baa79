/**
 * The course of a sizing: calibrate, probe, predict, screen about a dozen cells, search the finalists' rates within the SLO.
 * It decides and a `Bench` does; a test gives it a bench that only simulates a server.
 */
import { type Cell, nameOf, slotsOf, stepFrom } from './cell.ts';
import type { Kind } from './kind.ts';
import type { Arrivals, LoadResult } from './load/load.ts';
import { failuresIn, randomOf } from './load/load.ts';
import {
  type Costs,
  capacity,
  loopCosts,
  memoryMb,
  type ProbeWindow,
  poolCosts,
  requestCosts,
  slotMs,
} from './model.ts';
import {
  byCost,
  CONTROL,
  type Limits,
  neighbours,
  type Plan,
  type PlannedCell,
  planCells,
  type Reason,
} from './plan.ts';
import { type Evidence, estimateRates, gain, rateSearch, type Trial } from './rate-search.ts';
import { defaultSlo, isWithin, type Slo } from './slo.ts';
import { mean, median, pooledVariation, shuffled } from './statistics.ts';

/** One load on one cell, with what the machine did meanwhile. */
export interface Window {
  readonly arrivals: Arrivals;
  readonly load: LoadResult;
  /** Good answers per second. */
  readonly perSecond: number;
  /** CPU time per good answer, in ms; `delayMs`: worker threads were ready to run and no core was free. */
  readonly workerMs: number;
  /** The part of `workerMs` that event loops used; 0 where there are none. */
  readonly loopMs: number;
  readonly frontMs: number;
  readonly delayMs: number;
  /** Only where the generator runs on cores of the server; else 0. */
  readonly generatorMs: number;
  /** What processes that are not ours used of the server's cores, 0 to 1. */
  readonly othersShare: number;
  /** How much of the window a CPU quota held the server back, 0 to 1. */
  readonly throttledShare: number;
}

export interface CellMemory {
  readonly workersMb: number;
  /** Master and fronts (for gunicorn: its arbiter). */
  readonly baseMb: number;
  readonly swapMb: number;
  /** Requests that the server had answered by then. */
  readonly requests: number;
}

export interface Calibration {
  /** What the generator can ask for and get answered per second here, by a server that does nothing. */
  readonly generatorPerSecond: number;
  /** Of the server's cores, used by others while nothing of ours ran. */
  readonly othersShare: number;
}

/** Everything that takes time or touches the machine. Each may throw `CellError`. */
export interface Bench {
  /** In ms, from any start. */
  now(): number;
  calibrate(ms: number): Promise<Calibration>;
  /** Starts the cell's server unless it runs, and warms it. */
  start(cell: Cell): Promise<void>;
  /** @param seed the same seed, the same arrivals but for their rate: what chance gives to one cell it gives to the others */
  measure(cell: Cell, arrivals: Arrivals, ms: number, seed: number): Promise<Window>;
  /**
   * How long an event loop is busy for each good answer, in ms, as it says itself, beside that window. A server of its own:
   * one that counts costs a little more.
   */
  holding(cell: Cell, arrivals: Arrivals, ms: number): Promise<{ readonly busyMs: number; readonly window: Window }>;
  memory(cell: Cell): Promise<CellMemory>;
}

/** This cell cannot be measured: it does not start, or it answers nothing. The others go on. */
export class CellError extends Error {}

export interface SessionOptions {
  readonly kind: Kind;
  readonly budgetMs: number;
  readonly slo: Slo | undefined;
  readonly limits: Limits;
  /** What every cell has in common. */
  readonly base: Pick<Cell, 'fronts' | 'preload'>;
  /** Requests per second that the user expects at most: the rate at which latencies are compared. */
  readonly expectedPerSecond?: number;
  readonly compareGunicorn: boolean;
  /** What the user runs now: one of the cells. */
  readonly configured?: Pick<Cell, 'workers' | 'threads'>;
  /** Measure these instead of planning, and search the rate of each. */
  readonly only?: readonly Cell[];
  readonly seed: number;
}

/** What was found out about one cell. */
export interface CellFindings {
  readonly cell: Cell;
  readonly why: Reason;
  readonly predicted: { readonly perSecond: number; readonly limit: string; readonly memoryMb: number };
  /** Saturated, in requests per second: what it can do at most, whatever the latency. */
  readonly capacity: readonly Window[];
  /** At the reference rate. */
  readonly reference: readonly Window[];
  /** In search of the highest rate within the SLO. */
  readonly trials: readonly (Trial & { readonly window: Window })[];
  readonly memory?: CellMemory;
  /** Why it was not measured to the end. */
  readonly failed?: string;
}

export interface Findings {
  readonly calibration?: Calibration;
  readonly costs?: Costs;
  readonly slo: Slo;
  readonly sloGiven: boolean;
  /** Median time of a request that nothing is in the way of. */
  readonly unhinderedMs?: number;
  /** The rate at which the latencies of all cells are compared. */
  readonly referencePerSecond: number;
  readonly plan: Plan;
  readonly cells: readonly CellFindings[];
  readonly finalists: readonly string[];
  /** Standard deviation of repeated measurements, as a share. NaN if nothing was repeated. */
  readonly variation: number;
  readonly usedMs: number;
  readonly interrupted: boolean;
}

export type Progress =
  | { readonly kind: 'phase'; readonly phase: Phase; readonly cells?: number }
  | { readonly kind: 'cell'; readonly cell: Cell; readonly doing: string }
  | {
      readonly kind: 'measured';
      readonly cell: Cell;
      readonly perSecond: number;
      readonly p99Ms?: number;
      readonly best: string | undefined;
    }
  | { readonly kind: 'costs'; readonly costs: Costs }
  | { readonly kind: 'failed'; readonly cell: Cell; readonly because: string };

export type Phase = 'calibrate' | 'probe' | 'screen' | 'search' | 'done';

/** Which part of the budget is over at the end of each phase. */
const PROBE_UNTIL = 0.22;
const SCREEN_UNTIL = 0.55;
const SEARCH_UNTIL = 0.96;
const CALIBRATE_SHARE = 0.05;
/** Of the budget: a window of the probe, however slow the application is. */
const PROBE_WINDOW_SHARE = 0.15;
/** Of the predicted best: a load that a good cell carries with ease, at which p99 still tells cells apart. */
const REFERENCE_SHARE = 0.7;
const MAX_CELLS = 14;
const MIN_CELLS = 5;
/** So many are screened even if that takes the time of the search: the control and the predicted best. */
const FEWEST_CELLS = 2;
const MAX_NEIGHBOURS = 3;
/** Windows are long enough for so many requests, where the limits of length allow. */
const WINDOW_REQUESTS = 200;
const WINDOW_MS = { least: 500, most: 4000 } as const;
/** Of `perLoop`. */
const PER_LOOP = [16, 1000] as const;
/** A finalist's search is over after so many windows that were near the answer. */
const ENOUGH_NEAR = 10;
const FEW_NEAR = 4;
/** Resamples to decide by whether to go on: fewer than the verdict gets. */
const DRAWS_TO_GO_ON = 60;
/** Cells whose capacity is so far below the best are no finalists (or further, where noise is larger). */
const FINALIST_WITHIN = 0.12;
const MAX_FINALISTS = 4;
/** A difference below this is none, however sure: nobody runs a server that evenly. */
export const SMALLEST_EFFECT = 0.03;

/** Searched whether or not they may win: people want to know what they give. */
const COMPARED: ReadonlySet<Reason> = new Set<Reason>(['2 x cores + 1', 'as configured']);

class Stopped extends Error {}
/** What would come next does not fit into the budget. */
class TimeOver extends Error {}

interface Mutable {
  readonly planned: PlannedCell;
  readonly capacity: Window[];
  readonly reference: Window[];
  readonly trials: (Trial & { window: Window })[];
  memory?: CellMemory;
  failed?: string;
}

export class Session {
  readonly #bench: Bench;
  readonly #options: SessionOptions;
  readonly #tell: (progress: Progress) => void;
  readonly #signal: AbortSignal;
  readonly #random: () => number;
  readonly #from: number;
  readonly #cells = new Map<string, Mutable>();
  #calibration: Calibration | undefined;
  #costs: Costs | undefined;
  #slo: Slo;
  #plan: Plan = { cells: [], leftOut: [] };
  #finalists: readonly string[] = [];
  #unhinderedMs: number | undefined;
  #referencePerSecond = 0;
  /** From asking for a server to its first measurement. */
  #startMs = 1000;
  /** Requests under way that keep the event loop of a worker busy, with some to spare. */
  #perLoop: number = PER_LOOP[0];

  constructor(bench: Bench, options: SessionOptions, tell: (progress: Progress) => void, signal: AbortSignal) {
    this.#bench = bench;
    this.#options = options;
    this.#tell = tell;
    this.#signal = signal;
    this.#random = randomOf(options.seed);
    this.#from = bench.now();
    this.#slo = options.slo ?? { percentile: 99, ms: 1000 };
  }

  /** Runs until done, out of time or aborted; gives what is there. Errors of the control cell end it: nothing works then. */
  async run(): Promise<Findings> {
    let interrupted = false;
    try {
      await this.#calibrate();
      await this.#probe();
      await this.#screen();
      await this.#search();
    } catch (error) {
      if (!(error instanceof Stopped) && !(error instanceof TimeOver)) throw error;
      interrupted = error instanceof Stopped;
    }
    this.#tell({ kind: 'phase', phase: 'done' });
    return {
      ...(this.#calibration === undefined ? {} : { calibration: this.#calibration }),
      ...(this.#costs === undefined ? {} : { costs: this.#costs }),
      slo: this.#slo,
      sloGiven: this.#options.slo !== undefined,
      ...(this.#unhinderedMs === undefined ? {} : { unhinderedMs: this.#unhinderedMs }),
      referencePerSecond: this.#referencePerSecond,
      plan: this.#plan,
      cells: [...this.#cells.values()].map((found) => this.#findings(found)),
      finalists: this.#finalists,
      variation: this.#variation(),
      usedMs: this.#bench.now() - this.#from,
      interrupted,
    };
  }

  async #calibrate(): Promise<void> {
    this.#tell({ kind: 'phase', phase: 'calibrate' });
    this.#calibration = await this.#step(() =>
      this.#bench.calibrate(clamp(CALIBRATE_SHARE * this.#options.budgetMs, 600, 3000)),
    );
  }

  async #probe(): Promise<void> {
    this.#tell({ kind: 'phase', phase: 'probe' });
    const { base, limits, budgetMs } = this.#options;
    const control: Cell = { server: 'nunicorn', ...base, ...CONTROL };
    const found = this.#add({ cell: control, why: 'control' });
    const asked = this.#bench.now();
    await this.#step(() => this.#bench.start(control));
    this.#startMs = this.#bench.now() - asked;
    const probeMs = clamp(0.04 * budgetMs, 500, 3000);
    const alone = await this.#step(() => this.#bench.measure(control, { kind: 'closed', inFlight: 1 }, probeMs, 1));
    if (alone.load.completed === 0) {
      const failures = failuresIn([alone.load]);
      const why = failures.length === 0 ? '' : `: ${failures.join(', ')}`;
      throw new CellError(`not one request was answered as it should be in the time of a window${why}`);
    }
    this.#unhinderedMs = alone.load.latency.p50Ms;
    if (this.#options.slo === undefined) this.#slo = defaultSlo(this.#unhinderedMs);
    const requestMs = 1000 / alone.perSecond;
    if (alone.loopMs > 0) this.#perLoop = clamp(Math.ceil((2 * requestMs) / alone.loopMs), ...PER_LOOP);
    const fullMs = Math.max(probeMs, Math.min(10 * requestMs, 2 * WINDOW_MS.most, PROBE_WINDOW_SHARE * budgetMs));
    for (let i = 0; i < 2; i++) await this.#saturate(found, fullMs);
    const full = averageOf(found.capacity);
    const { kind } = this.#options;
    if (kind === 'async') {
      const arrivals = { kind: 'closed', inFlight: this.#inFlight(control) } as const;
      const { busyMs, window } = await this.#step(() => this.#bench.holding(control, arrivals, probeMs));
      await this.#weigh(found);
      this.#costs = { kind, ...loopCosts(alone, full, { ...window, busyMs }), ...memoryOf(found), threadMb: 0 };
    } else {
      const { window, threadMb } = await this.#probeThreads(found, full, probeMs);
      const costs = kind === 'pool' ? poolCosts(full) : requestCosts(full, window, limits.cores);
      this.#costs = { kind, ...costs, ...memoryOf(found), threadMb };
    }
    this.#tell({ kind: 'costs', costs: this.#costs });
  }

  /** One worker with many threads: what they hinder each other by, and what each weighs. */
  async #probeThreads(
    found: Mutable,
    one: ProbeWindow,
    probeMs: number,
  ): Promise<{ readonly window: ProbeWindow | undefined; readonly threadMb: number }> {
    const { limits } = this.#options;
    const control = found.planned.cell;
    const threads = threadsToFillTheLock(one, limits);
    let window: ProbeWindow | undefined;
    let other: Mutable | undefined;
    if (threads > 1) {
      other = this.#add({ cell: { ...control, threads }, why: 'past the knee' });
      if (await this.#tryStart(other)) {
        await this.#saturate(other, probeMs);
        if (limits.cores > 1 && other.capacity.length > 0) window = averageOf(other.capacity);
        await this.#weigh(other);
      }
    }
    await this.#weigh(found);
    const more = (other?.memory?.workersMb ?? 0) - (found.memory?.workersMb ?? 0);
    return { window, threadMb: other?.memory === undefined ? 0 : Math.max(0, more / (threads - 1)) };
  }

  async #screen(): Promise<void> {
    const costs = this.#knownCosts();
    const { limits, base, only, budgetMs } = this.#options;
    const leftMs = SCREEN_UNTIL * budgetMs - this.#usedMs();
    const perCellMs = this.#startMs + 2 * WINDOW_MS.least;
    const count = Math.round(clamp(leftMs / perCellMs, MIN_CELLS, MAX_CELLS));
    this.#plan =
      only === undefined
        ? planCells(costs, limits, base, count)
        : { cells: only.map((cell) => ({ cell, why: 'neighbour' })), leftOut: [] };
    const { configured } = this.#options;
    if (configured !== undefined)
      this.#add({ cell: { server: 'nunicorn', ...base, ...configured }, why: 'as configured' });
    for (const planned of this.#plan.cells) this.#add(planned);
    const predicted = this.#plan.cells.map(({ cell }) => capacity(costs, cell, limits.cores).perSecond);
    this.#referencePerSecond = this.#options.expectedPerSecond ?? REFERENCE_SHARE * Math.max(...predicted);
    this.#tell({ kind: 'phase', phase: 'screen', cells: this.#cells.size });

    await this.#screenRound([...this.#cells.values()], only === undefined ? FEWEST_CELLS : this.#cells.size);
    if (only === undefined) await this.#climb(costs);
    // What time is left goes to those that may still win, and to the control.
    for (let more = true; more; ) {
      const again = [...this.#cells.values()].filter((found) => found.planned.why === 'control' || this.#mayWin(found));
      more = again.length > 0 && this.#usedMs() + again.length * 2 * this.#windowMs(0) < SCREEN_UNTIL * budgetMs;
      if (more) await this.#screenRound(shuffled(again, this.#random));
    }
  }

  /** One look at each cell, in the order given. @param atLeast so many, even if the time is over */
  async #screenRound(cells: readonly Mutable[], atLeast = 0): Promise<void> {
    for (const [i, found] of cells.entries()) {
      if (found.failed !== undefined) continue;
      if (i >= atLeast && this.#usedMs() > SCREEN_UNTIL * this.#options.budgetMs) return;
      if (!(await this.#tryStart(found))) continue;
      await this.#saturate(found);
      const rate = this.#referencePerSecond;
      if (capacityOf(found) >= rate) {
        const window = await this.#measure(found, { kind: 'poisson', perSecond: rate }, this.#windowMs(rate));
        if (window !== undefined) found.reference.push(window);
      }
      await this.#weigh(found);
    }
  }

  /** Predictions can be wrong: as long as the best cell has neighbours that were not measured, measure them. */
  async #climb(costs: Costs): Promise<void> {
    const { limits, budgetMs } = this.#options;
    for (let tried = 0; tried < MAX_NEIGHBOURS && this.#usedMs() < SCREEN_UNTIL * budgetMs; ) {
      const best = this.#bestByCapacity();
      if (best === undefined) return;
      const known = [...this.#cells.values()].map(({ planned }) => planned.cell);
      const [next] = neighbours(best.planned.cell, known, costs, limits);
      if (next === undefined) return;
      tried++;
      await this.#screenRound([this.#add(next)], 1);
    }
  }

  async #search(): Promise<void> {
    const { budgetMs, compareGunicorn } = this.#options;
    const finalists = this.#chooseFinalists();
    const inSearch = compareGunicorn ? [...finalists, ...(await this.#gunicorns(finalists))] : finalists;
    this.#finalists = inSearch.map(({ planned }) => nameOf(planned.cell));
    this.#tell({ kind: 'phase', phase: 'search', cells: inSearch.length });
    // Each has its first window if the budget has room for it: without it the rest would be for nothing.
    for (let round = 0; round === 0 || this.#usedMs() < SEARCH_UNTIL * budgetMs; round++) {
      const open = this.#unsettled(inSearch);
      if (open.length === 0) return;
      for (const found of shuffled(open, this.#random)) {
        if (round > 0 && this.#usedMs() >= SEARCH_UNTIL * budgetMs) return;
        await this.#try(found);
      }
      // The control tells whether the machine is still the same.
      const control = [...this.#cells.values()].find(({ planned }) => planned.why === 'control');
      if (round % 2 === 1 && control !== undefined) await this.#saturate(control);
    }
  }

  /** One window at the next rate of a finalist's search. */
  async #try(found: Mutable): Promise<void> {
    if (!(await this.#tryStart(found))) return;
    const { nextPerSecond: perSecond } = rateSearch(capacityOf(found), found.trials);
    const window = await this.#measure(found, { kind: 'poisson', perSecond }, this.#searchMs(perSecond));
    if (window !== undefined) found.trials.push({ perSecond, within: isWithin(this.#slo, window.load), window });
  }

  #chooseFinalists(): readonly Mutable[] {
    const { only } = this.#options;
    if (only !== undefined) {
      const names = new Set(only.map(nameOf));
      return [...this.#cells.values()].filter(({ planned }) => names.has(nameOf(planned.cell)));
    }
    const costs = this.#knownCosts();
    const cheapest = byCost(costs);
    const candidates = [...this.#cells.values()]
      .filter((found) => this.#mayWin(found))
      .sort((a, b) => cheapest(a.planned.cell, b.planned.cell));
    const best = this.#bestByCapacity();
    const chosen = new Set(candidates.slice(0, MAX_FINALISTS - 1));
    if (best !== undefined) chosen.add(best);
    for (const found of this.#cells.values())
      if (COMPARED.has(found.planned.why) && found.failed === undefined && found.capacity.length > 0) chosen.add(found);
    return [...chosen];
  }

  /** The same cells through gunicorn, each with one look at its capacity. */
  async #gunicorns(finalists: readonly Mutable[]): Promise<readonly Mutable[]> {
    const added: Mutable[] = [];
    for (const { planned } of finalists) {
      const found = this.#add({ cell: { ...planned.cell, server: 'gunicorn', fronts: 1 }, why: 'gunicorn' });
      if (!(await this.#tryStart(found))) continue;
      await this.#saturate(found);
      await this.#weigh(found);
      if (found.failed === undefined) added.push(found);
    }
    return added;
  }

  /** Those of which more windows are worth their time: not enough is known, and it is not plain that another one is better. */
  #unsettled(finalists: readonly Mutable[]): readonly Mutable[] {
    const evidence = finalists.map((found) => evidenceOf(found, this.#slo, this.#referencePerSecond));
    const estimates = estimateRates(evidence, this.#variation(), DRAWS_TO_GO_ON);
    return finalists.filter((found) => {
      const { near } = rateSearch(capacityOf(found), found.trials);
      if (found.failed !== undefined || near >= ENOUGH_NEAR || found.trials.length >= 2 * ENOUGH_NEAR) return false;
      const own = estimates.get(nameOf(found.planned.cell));
      if (near < FEW_NEAR || own === undefined) return true;
      return ![...estimates.values()].some((other) => gain(other, own, 0.99).low > 2 * SMALLEST_EFFECT);
    });
  }

  #mayWin(found: Mutable): boolean {
    const best = this.#bestByCapacity();
    if (best === undefined || found.failed !== undefined || found.capacity.length === 0) return false;
    const variation = this.#variation();
    const within = Math.max(FINALIST_WITHIN, Number.isNaN(variation) ? 0 : 2 * variation);
    return capacityOf(found) >= (1 - within) * capacityOf(best);
  }

  #bestByCapacity(): Mutable | undefined {
    let best: Mutable | undefined;
    for (const found of this.#cells.values()) {
      if (found.planned.cell.server !== 'nunicorn' || found.failed !== undefined || found.capacity.length === 0)
        continue;
      if (best === undefined || capacityOf(found) > capacityOf(best)) best = found;
    }
    return best;
  }

  #variation(): number {
    return pooledVariation([...this.#cells.values()].map(({ capacity }) => capacity.map(({ perSecond }) => perSecond)));
  }

  #add(planned: PlannedCell): Mutable {
    const name = nameOf(planned.cell);
    const known = this.#cells.get(name);
    if (known !== undefined) return known;
    const found: Mutable = { planned, capacity: [], reference: [], trials: [] };
    this.#cells.set(name, found);
    return found;
  }

  async #tryStart(found: Mutable): Promise<boolean> {
    const { cell } = found.planned;
    this.#needTime((found.capacity.length === 0 ? this.#startMs : 0) + WINDOW_MS.least);
    this.#tell({ kind: 'cell', cell, doing: 'start' });
    return (await this.#guard(found, () => this.#bench.start(cell).then(() => true))) ?? false;
  }

  async #saturate(found: Mutable, ms?: number): Promise<void> {
    const arrivals = { kind: 'closed', inFlight: this.#inFlight(found.planned.cell) } as const;
    const window = await this.#measure(found, arrivals, ms ?? this.#windowMs(0));
    if (window !== undefined) found.capacity.push(window);
  }

  /** Requests under way that leave nothing of a cell idle. The kernel gives connections to Node's workers, and not evenly. */
  #inFlight(cell: Cell): number {
    const forSlots = 2 * slotsOf(cell) + 2;
    return this.#options.kind === 'python' ? forSlots : Math.max(forSlots, cell.workers * this.#perLoop);
  }

  async #measure(found: Mutable, arrivals: Arrivals, ms: number): Promise<Window | undefined> {
    const seed = 1 + (arrivals.kind === 'closed' ? found.capacity : [...found.reference, ...found.trials]).length;
    const { cell } = found.planned;
    this.#needTime(ms);
    this.#tell({ kind: 'cell', cell, doing: describe(arrivals) });
    const window = await this.#guard(found, () => this.#bench.measure(cell, arrivals, ms, seed));
    if (window === undefined) return undefined;
    const best = this.#bestByCapacity();
    this.#tell({
      kind: 'measured',
      cell,
      perSecond: window.perSecond,
      ...(arrivals.kind === 'closed' ? {} : { p99Ms: window.load.latency.p99Ms }),
      best: best && `${nameOf(best.planned.cell)}: ${Math.round(capacityOf(best))}/s`,
    });
    return window;
  }

  async #weigh(found: Mutable): Promise<void> {
    const memory = await this.#guard(found, () => this.#bench.memory(found.planned.cell));
    if (memory !== undefined) found.memory = memory;
  }

  async #guard<T>(found: Mutable, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await this.#step(work);
    } catch (error) {
      if (!(error instanceof CellError)) throw error;
      found.failed = error.message;
      this.#tell({ kind: 'failed', cell: found.planned.cell, because: error.message });
      return undefined;
    }
  }

  async #step<T>(work: () => Promise<T>): Promise<T> {
    if (this.#signal.aborted) throw new Stopped();
    try {
      return await work();
    } catch (error) {
      throw this.#signal.aborted ? new Stopped() : error;
    }
  }

  #usedMs(): number {
    return this.#bench.now() - this.#from;
  }

  /** @throws {TimeOver} if what takes `ms`, and the last answers after it, would end later than the budget */
  #needTime(ms: number): void {
    if (this.#usedMs() + ms + (this.#unhinderedMs ?? 0) > this.#options.budgetMs) throw new TimeOver();
  }

  #windowMs(perSecond: number): number {
    const costs = this.#costs;
    const cells = Math.max(this.#cells.size, MIN_CELLS);
    const share = ((SCREEN_UNTIL - PROBE_UNTIL) * this.#options.budgetMs) / cells / 4;
    const requests = (1000 * WINDOW_REQUESTS) / Math.max(perSecond, 50);
    const slow = costs === undefined ? 0 : 10 * slotMs(costs);
    return clamp(Math.max(Math.min(share, requests), slow), WINDOW_MS.least, WINDOW_MS.most);
  }

  #searchMs(perSecond: number): number {
    const costs = this.#knownCosts();
    const cells = Math.max(this.#finalists.length, MAX_FINALISTS + 1);
    const share = ((SEARCH_UNTIL - SCREEN_UNTIL) * this.#options.budgetMs) / cells / ENOUGH_NEAR;
    const requests = (1000 * 2 * WINDOW_REQUESTS) / Math.max(perSecond, 1);
    const slow = Math.max(20 * slotMs(costs), 4 * this.#slo.ms);
    return clamp(Math.max(share, Math.min(requests, slow)), WINDOW_MS.least + 100, WINDOW_MS.most);
  }

  #knownCosts(): Costs {
    if (this.#costs === undefined) throw new Stopped();
    return this.#costs;
  }

  #findings(found: Mutable): CellFindings {
    const { cell, why } = found.planned;
    const costs = this.#costs;
    const predicted =
      costs === undefined
        ? { perSecond: Number.NaN, limit: '', memoryMb: Number.NaN }
        : { ...capacity(costs, cell, this.#options.limits.cores), memoryMb: memoryMb(costs, cell) };
    const { capacity: windows, reference, trials, memory, failed } = found;
    return {
      cell,
      why,
      predicted,
      capacity: windows,
      reference,
      trials,
      ...(memory === undefined ? {} : { memory }),
      ...(failed === undefined ? {} : { failed }),
    };
  }
}

/** So many threads of one worker that the lock, not their number, is the limit; and enough to see what a thread weighs. */
function threadsToFillTheLock(one: ProbeWindow, limits: Limits): number {
  const cpu = one.workerMs + one.frontMs + one.generatorMs;
  const threads = stepFrom(Math.ceil((2 * limits.cores * 1000) / one.perSecond / Math.max(cpu, 0.01)), 0);
  const most = Math.min(32, limits.databaseConnections ?? 32);
  return Math.min(Math.max(threads, 2), most);
}

function averageOf(windows: readonly Window[]): ProbeWindow {
  const of = (select: (window: Window) => number): number => mean(windows.map(select));
  return {
    perSecond: of(({ perSecond }) => perSecond),
    workerMs: of(({ workerMs }) => workerMs),
    loopMs: of(({ loopMs }) => loopMs),
    frontMs: of(({ frontMs }) => frontMs),
    delayMs: of(({ delayMs }) => delayMs),
    generatorMs: of(({ generatorMs }) => generatorMs),
  };
}

function memoryOf({ memory }: Mutable): Pick<Costs, 'workerMb' | 'baseMb'> {
  return { workerMb: memory?.workersMb ?? 0, baseMb: memory?.baseMb ?? 0 };
}

function capacityOf({ capacity }: { readonly capacity: readonly Window[] }): number {
  return median(capacity.map(({ perSecond }) => perSecond));
}

/** What a cell's windows say about its rate within the SLO; those at the reference rate count as well. */
export function evidenceOf(
  found: Pick<CellFindings, 'capacity' | 'reference' | 'trials'> &
    ({ readonly cell: Cell } | { readonly planned: PlannedCell }),
  slo: Slo,
  referencePerSecond: number,
): Evidence {
  const cell = 'cell' in found ? found.cell : found.planned.cell;
  const reference = found.reference.map(({ load }) => ({ perSecond: referencePerSecond, within: isWithin(slo, load) }));
  return {
    name: nameOf(cell),
    capacities: found.capacity.map(({ perSecond }) => perSecond),
    trials: [...found.trials.map(({ perSecond, within }) => ({ perSecond, within })), ...reference],
  };
}

function describe(arrivals: Arrivals): string {
  return arrivals.kind === 'closed' ? 'full speed' : `${Math.round(arrivals.perSecond)}/s`;
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}
