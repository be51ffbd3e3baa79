/**
 * The report of a sizing: one shape for the terminal, `--json`, `--html`, `--check`. Plain data, so that a report that was written
 * to a file is as good as the one of this run.
 */
import { arch, cpus, release, totalmem, type } from 'node:os';
import { type Cell, nameOf } from './cell.ts';
import type { Imposed } from './impose.ts';
import { failuresIn } from './load/load.ts';
import { type Costs, responseP99Ms } from './model.ts';
import type { Limits } from './plan.ts';
import type { Estimate } from './rate-search.ts';
import type { CellFindings, Findings, Window } from './session.ts';
import type { Slo } from './slo.ts';
import { type Interval, median } from './statistics.ts';
import {
  allWindows,
  capacityOf,
  conclude,
  MOST_OTHERS,
  percent,
  type Rated,
  ratesOf,
  type Verdict,
} from './verdict.ts';

export const REPORT_VERSION = 1;

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryMb: number;
  readonly system: string;
  readonly node: string;
  /** Null: it is a Node app. */
  readonly python: string | null;
}

export interface RateInfo {
  readonly workers: number;
  readonly threads: number;
  readonly fronts: number;
  readonly preload: boolean;
  readonly name: string;
  /** Highest rate within the SLO, requests per second. */
  readonly perSecond: number;
  readonly interval: Interval;
  readonly memoryMb?: number;
  readonly command: string;
}

export interface CellReport {
  readonly cell: Cell;
  readonly name: string;
  readonly why: string;
  readonly predicted: { readonly perSecond: number; readonly limit: string; readonly memoryMb: number };
  /** Saturated: medians over the windows. */
  readonly capacity?: number;
  readonly capacities: readonly number[];
  /** At the reference rate. */
  readonly reference?: {
    readonly perSecond: number;
    readonly p50Ms: number;
    readonly p99Ms: number;
    /** Null: more than the setting can carry, or nothing to predict from. */
    readonly predictedP99Ms: number | null;
  };
  readonly carried?: { readonly perSecond: number; readonly interval: Interval };
  readonly trials: readonly {
    readonly perSecond: number;
    readonly within: boolean;
    readonly p50Ms: number;
    readonly p99Ms: number;
    readonly failures: number;
  }[];
  /** CPU time per request. */
  readonly workerMs?: number;
  readonly frontMs?: number;
  readonly memoryMb?: number;
  readonly memoryAfterRequests?: number;
  readonly failed?: string;
  /** What is odd about its windows; empty in a good run. */
  readonly remarks: readonly string[];
}

export interface Report {
  readonly version: typeof REPORT_VERSION;
  readonly nunicorn: string;
  readonly at: string;
  readonly app: string;
  /** The words after `nunicorn size`, for `--check`, and the folder they are said in. */
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly machine: Machine;
  readonly limits: Limits & {
    readonly cpu: Imposed['cpu'];
    readonly memory: Imposed['memory'];
    readonly shared: boolean;
  };
  readonly traffic: readonly { readonly path: string; readonly weight: number; readonly status: number }[];
  readonly slo: Slo;
  readonly sloGiven: boolean;
  readonly budgetMs: number;
  readonly usedMs: number;
  readonly interrupted: boolean;
  readonly generatorPerSecond?: number;
  readonly costs?: Costs;
  readonly referencePerSecond: number;
  readonly variation: number | null;
  readonly othersShare: number;
  readonly cells: readonly CellReport[];
  readonly leftOut: readonly { readonly name: string; readonly because: string }[];
  readonly verdict: Pick<Verdict, 'kind' | 'because' | 'toDo'> & { readonly alike: readonly string[] };
  readonly recommendation?: RateInfo;
  readonly runnerUp?: RateInfo;
  readonly cheapest?: { readonly name: string; readonly command: string };
  readonly rule?: RateInfo | { readonly because: string };
  /** How far prediction and measurement are apart for cells before the knee, as shares of the measured. */
  readonly predictionError: { readonly median: number; readonly worst: number; readonly cells: number } | null;
  /** Told, never averaged away. */
  readonly remarks: readonly string[];
}

export interface ReportInput {
  readonly findings: Findings;
  readonly limits: Limits;
  readonly imposed: Imposed;
  readonly nunicorn: string;
  readonly python: string | null;
  readonly app: string;
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly budgetMs: number;
  readonly traffic: Report['traffic'];
  readonly notes: readonly string[];
  /** The command line that runs a cell as the user would. */
  readonly command: (cell: Cell) => string;
}

/** Of the rate that the generator can do at most: above it the generator may be what limits. */
const GENERATOR_FULL = 0.8;
/** Of a core. */
const GENERATOR_BUSY = 0.9;
/** Little's law: more than this apart, requests were lost or the load was not steady. */
const LITTLE_TOLERANCE = 0.05;
/** Of the p99 it measured. */
const MOST_LATE = 0.25;
const THROTTLED = 0.05;

export function makeReport(input: ReportInput): Report {
  const { findings, limits, imposed } = input;
  const verdict = conclude(findings, limits);
  const { costs, calibration } = findings;
  const rates = ratesOf(findings);
  const cells = findings.cells.map((found) => cellReport(found, findings, limits.cores, rates.get(nameOf(found.cell))));
  const info = (rated: Rated): RateInfo => {
    const { workers, threads, fronts, preload } = rated.cell;
    const mb = cells.find(({ cell }) => cell === rated.cell)?.memoryMb;
    const { perSecond, interval } = rated;
    const named = { workers, threads, fronts, preload, name: nameOf(rated.cell), command: input.command(rated.cell) };
    return { ...named, perSecond, interval, ...(mb === undefined ? {} : { memoryMb: mb }) };
  };
  const { kind, because, toDo, recommended, runnerUp, cheapest, rule } = verdict;
  return {
    version: REPORT_VERSION,
    nunicorn: input.nunicorn,
    at: new Date().toISOString(),
    app: input.app,
    argv: input.argv,
    cwd: input.cwd,
    machine: machineOf(input.python),
    limits: { ...limits, cpu: imposed.cpu, memory: imposed.memory, shared: imposed.shared },
    traffic: input.traffic,
    slo: findings.slo,
    sloGiven: findings.sloGiven,
    budgetMs: input.budgetMs,
    usedMs: findings.usedMs,
    interrupted: findings.interrupted,
    ...(calibration === undefined ? {} : { generatorPerSecond: calibration.generatorPerSecond }),
    ...(costs === undefined ? {} : { costs }),
    referencePerSecond: findings.referencePerSecond,
    variation: finiteOrNull(findings.variation),
    othersShare: median(allWindows(findings).map(({ othersShare }) => othersShare)) || 0,
    cells,
    leftOut: findings.plan.leftOut.map(({ cell, because: why }) => ({ name: nameOf(cell), because: why })),
    verdict: { kind, because, toDo, alike: verdict.alike.map(nameOf) },
    ...(recommended === undefined ? {} : { recommendation: info(recommended) }),
    ...(runnerUp === undefined ? {} : { runnerUp: info(runnerUp) }),
    ...(cheapest === undefined ? {} : { cheapest: { name: nameOf(cheapest), command: input.command(cheapest) } }),
    ...(rule === undefined ? {} : { rule: 'because' in rule ? rule : info(rule) }),
    predictionError: predictionError(cells),
    remarks: [...input.notes, ...imposed.notes, ...remarksOf(input)],
  };
}

function machineOf(python: string | null): Machine {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryMb: Math.round(totalmem() / 1024 / 1024),
    system: `${type()} ${release()} ${arch()}`,
    node: process.versions.node,
    python,
  };
}

function cellReport(found: CellFindings, findings: Findings, cores: number, carried: Estimate | undefined): CellReport {
  const { costs, referencePerSecond } = findings;
  const { cell, why, predicted, capacity, reference, trials, memory, failed } = found;
  const cpu = (select: (window: Window) => number): number => median(capacity.map(select));
  return {
    cell,
    name: nameOf(cell),
    why,
    predicted,
    ...(capacity.length === 0
      ? {}
      : {
          capacity: capacityOf(found),
          workerMs: cpu(({ workerMs }) => workerMs),
          frontMs: cpu(({ frontMs }) => frontMs),
        }),
    capacities: capacity.map(({ perSecond }) => perSecond),
    ...(reference.length === 0
      ? {}
      : {
          reference: {
            perSecond: referencePerSecond,
            p50Ms: median(reference.map(({ load }) => load.latency.p50Ms)),
            p99Ms: median(reference.map(({ load }) => load.latency.p99Ms)),
            predictedP99Ms: finiteOrNull(costs && responseP99Ms(costs, cell, cores, referencePerSecond)),
          },
        }),
    ...(carried === undefined ? {} : { carried: { perSecond: carried.perSecond, interval: carried.interval } }),
    trials: trials.map(({ perSecond, within, window: { load } }) => ({
      perSecond,
      within,
      p50Ms: load.latency.p50Ms,
      p99Ms: load.latency.p99Ms,
      failures: failuresOf(load.failures),
    })),
    ...(memory === undefined
      ? {}
      : { memoryMb: memory.workersMb + memory.baseMb, memoryAfterRequests: memory.requests }),
    ...(failed === undefined ? {} : { failed }),
    remarks: cellRemarks(found),
  };
}

/** JSON knows no others. */
function finiteOrNull(value: number | undefined): number | null {
  return value !== undefined && Number.isFinite(value) ? value : null;
}

function failuresOf(failures: Readonly<Record<string, number>>): number {
  return Object.values(failures).reduce((total, count) => total + count, 0);
}

function cellRemarks({ capacity, reference, trials, memory }: CellFindings): readonly string[] {
  const remarks = [...failuresIn([...capacity, ...reference].map(({ load }) => load))];
  const windows = [...capacity, ...reference, ...trials.map(({ window }) => window)];
  const apart = capacity.map(littleError).filter((error) => error > LITTLE_TOLERANCE);
  if (apart.length > 0)
    remarks.push(
      `Little's law is off by ${percent(Math.max(...apart))} in ${apart.length} of ${capacity.length} windows`,
    );
  const disturbed = windows.filter(({ othersShare }) => othersShare > MOST_OTHERS).length;
  if (disturbed > 0) remarks.push(`disturbed by others in ${disturbed} of ${windows.length} windows`);
  const throttled = median(windows.map(({ throttledShare }) => throttledShare));
  if (throttled > THROTTLED) remarks.push(`held back by the CPU quota for ${percent(throttled)} of the time`);
  if (memory !== undefined && memory.swapMb > 1) remarks.push(`${Math.round(memory.swapMb)} MB of it swapped out`);
  const open = [...reference, ...trials.map(({ window }) => window)];
  const late = open.filter(({ load }) => load.late.p99Ms > Math.max(2, MOST_LATE * load.latency.p99Ms)).length;
  if (late > 0) remarks.push(`the generator was late in ${late} of ${open.length} windows`);
  return remarks;
}

/** How far L and X * R are apart in a window, as a share: L is counted by itself, so that lost requests show. */
export function littleError({ load, perSecond }: Pick<Window, 'load' | 'perSecond'>): number {
  if (load.meanInFlight === 0) return 0;
  return Math.abs((perSecond * load.latency.meanMs) / 1000 / load.meanInFlight - 1);
}

/** Cells that run out of threads before anything else: there the bound is meant to hold. */
function predictionError(cells: readonly CellReport[]): Report['predictionError'] {
  const errors = cells.flatMap(({ predicted, capacity, cell, why }) =>
    cell.server === 'nunicorn' && why !== 'control' && predicted.limit === 'threads' && capacity !== undefined
      ? [predicted.perSecond / capacity - 1]
      : [],
  );
  if (errors.length === 0) return null;
  const sizes = errors.map(Math.abs);
  return { median: median(sizes), worst: Math.max(...sizes), cells: errors.length };
}

function remarksOf({ findings, imposed }: ReportInput): readonly string[] {
  const remarks: string[] = [];
  const windows = allWindows(findings);
  const { calibration, costs } = findings;
  const most = Math.max(0, ...windows.map(({ perSecond }) => perSecond));
  if (calibration !== undefined && most > GENERATOR_FULL * calibration.generatorPerSecond)
    remarks.push(
      `The load generator is near its limit (${Math.round(calibration.generatorPerSecond)}/s here): the fastest settings may be faster than measured. Use more machines for the load: --export k6.`,
    );
  const busy = windows.filter(
    ({ load, arrivals }) => arrivals.kind === 'closed' && load.generatorCpu > GENERATOR_BUSY,
  ).length;
  if (busy > 0)
    remarks.push(
      `The load generator was itself the limit in ${busy} of ${windows.length} windows: it used a whole core.`,
    );
  if (imposed.shared && costs !== undefined) {
    const share = costs.generatorMs / (costs.lockedMs + costs.freeMs + costs.frontMs + costs.generatorMs);
    remarks.push(
      `The load generator runs on the server's cores (${costs.generatorMs.toFixed(2)} ms of CPU time a request, ${percent(share)} of all): without it the server carries a little more.`,
    );
  }
  return remarks;
}
