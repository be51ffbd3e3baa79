/** From what was found to what to say: pure, and the same for a live run, an interrupted one and a report that is read again. */
import { type Cell, nameOf } from './cell.ts';
import type { Costs } from './model.ts';
import { byCost, type Limits, MEMORY_SHARE, whyNot } from './plan.ts';
import { type Estimate, estimateRates, gain } from './rate-search.ts';
import { type CellFindings, evidenceOf, type Findings, SMALLEST_EFFECT, type Window } from './session.ts';
import { isWithin, showSlo } from './slo.ts';
import { type Interval, median } from './statistics.ts';

export type VerdictKind =
  /** One setting is better than all others that were measured. */
  | 'best'
  /** Several cannot be told apart: the cheapest of them. */
  | 'no difference found'
  /** The machine was not even enough. */
  | 'too noisy to say'
  /** No setting keeps the SLO at any rate worth naming. */
  | 'SLO not met'
  /** It was stopped, or ran out of time, before anything could be compared. */
  | 'not enough measured';

/** What one cell carries within the SLO. */
export interface Rated {
  readonly cell: Cell;
  /** Requests per second. */
  readonly perSecond: number;
  readonly interval: Interval;
  readonly estimate: Estimate;
}

export interface Verdict {
  readonly kind: VerdictKind;
  /** Whole sentences. */
  readonly because: string;
  /** What the user can do about it; empty if nothing. */
  readonly toDo: readonly string[];
  /** Where noise forbids to say more it is what would be tried first, not a recommendation. */
  readonly recommended?: Rated;
  readonly runnerUp?: Rated;
  /** Of all cells that keep the SLO at the reference rate, the one that costs least. */
  readonly cheapest?: Cell;
  /** What 2 x cores + 1 gives: its rate, or why it was not measured. */
  readonly rule?: Rated | { readonly because: string };
  /** Finalists that cannot be told from the recommended one. */
  readonly alike: readonly Cell[];
}

/** Repeated measurements that differ more than this make a search for a few percent pointless. */
export const MOST_VARIATION = 0.1;
/** Others used more of the server's cores than this: the window is disturbed. */
export const MOST_OTHERS = 0.1;
const MOST_DISTURBED = 0.5;
/** Of a cell's full speed: there nothing queues. */
const LIGHT_LOAD = 0.35;

export function conclude(findings: Findings, limits: Limits): Verdict {
  const { costs, cells } = findings;
  const rates = ratesOf(findings);
  const rated = cells
    .filter(({ cell }) => cell.server === 'nunicorn')
    .flatMap(({ cell }) => {
      const estimate = rates.get(nameOf(cell));
      return estimate === undefined ? [] : [ratedOf(cell, estimate)];
    });
  const tried = cells.some(({ trials }) => trials.length > 0);
  const ruleOf = ruleFindings(findings, rated);
  const common = { alike: [], ...(ruleOf === undefined ? {} : { rule: ruleOf }), ...cheapestOf(findings) };
  if (costs === undefined || !tried)
    return {
      ...common,
      kind: 'not enough measured',
      because: `${findings.interrupted ? 'It was stopped' : 'The time was over'} before settings could be compared.${fullest(cells)}`,
      toDo: findings.interrupted ? [] : ['Give it more time with --budget.'],
    };

  const fitting = rated.filter(({ cell }) => fits(cells, cell, costs, limits));
  const best = fitting.reduce<Rated | undefined>(
    (most, each) => (most === undefined || each.perSecond > most.perSecond ? each : most),
    undefined,
  );
  const noise = noiseOf(findings);
  if (best === undefined) {
    if (noise !== undefined) return { ...common, kind: 'too noisy to say', because: noise, toDo: QUIETER };
    if (!searchedThrough(cells) && (findings.unhinderedMs ?? 0) <= findings.slo.ms)
      return {
        ...common,
        kind: 'not enough measured',
        because: `No setting kept ${showSlo(findings.slo)} in the few windows there was time for.`,
        toDo: ['Give it more time with --budget.'],
      };
    return {
      ...common,
      kind: 'SLO not met',
      because: `No setting kept ${showSlo(findings.slo)}, at any rate that was tried.`,
      toDo: ['Name a wider --slo, or make the application faster: it takes too long by itself.'],
    };
  }
  const smallest = Math.max(SMALLEST_EFFECT, finite(findings.variation) / 2);
  const alike = fitting.filter((each) => {
    if (each === best) return true;
    const more = gain(best.estimate, each.estimate);
    return !(more.low > 0 && best.perSecond / each.perSecond - 1 > smallest);
  });
  const cheapest = byCost(costs);
  const [recommended = best] = [...alike].sort((a, b) => cheapest(a.cell, b.cell));
  const rest = fitting.filter((each) => each !== recommended);
  const runnerUp = rest.reduce<Rated | undefined>(
    (most, each) => (most === undefined || each.perSecond > most.perSecond ? each : most),
    undefined,
  );
  const chosen = {
    ...common,
    recommended,
    ...(runnerUp === undefined ? {} : { runnerUp }),
    alike: alike.filter((each) => each !== recommended).map(({ cell }) => cell),
  };
  if (noise !== undefined) return { ...chosen, kind: 'too noisy to say', because: noise, toDo: QUIETER };
  if (alike.length > 1)
    return {
      ...chosen,
      kind: 'no difference found',
      because: `No difference found between ${alike.map(({ cell }) => nameOf(cell)).join(', ')} (less than ${percent(smallest)}, or not surely more): the cheapest of them is taken.`,
      toDo: [],
    };
  return {
    ...chosen,
    kind: 'best',
    because:
      runnerUp === undefined
        ? 'It is the only setting that was measured to the end.'
        : `It carries ${percent(recommended.perSecond / runnerUp.perSecond - 1)} more than the runner-up.`,
    toDo: [],
  };
}

const QUIETER = [
  'Run it again when nothing else runs on the machine, or with a longer --budget.',
  'On a shared virtual machine, try another hour: neighbours that cannot be seen from inside take cores too (steal).',
];

/** Why nothing can be said, or undefined if the machine was even enough. */
function noiseOf(findings: Findings): string | undefined {
  const windows = allWindows(findings);
  const disturbed = windows.filter(({ othersShare }) => othersShare > MOST_OTHERS).length;
  const others = median(windows.map(({ othersShare }) => othersShare));
  if (windows.length > 0 && disturbed > MOST_DISTURBED * windows.length)
    return `Too noisy to say: other programs used ${percent(others)} of the server's cores (in ${disturbed} of ${windows.length} windows more than ${percent(MOST_OTHERS)}).`;
  if (findings.variation > MOST_VARIATION)
    return `Too noisy to say: the same setting measured again differs by ${percent(findings.variation)} (standard deviation).`;
  return undefined;
}

export function allWindows({ cells }: Pick<Findings, 'cells'>): readonly Window[] {
  return cells.flatMap(({ capacity, reference, trials }) => [
    ...capacity,
    ...reference,
    ...trials.map(({ window }) => window),
  ]);
}

/** What each cell that was searched carries within the SLO, by name. A cell that has met it nowhere is missing. */
export function ratesOf({ cells, slo, referencePerSecond, variation }: Findings): ReadonlyMap<string, Estimate> {
  const searched = cells.filter(({ trials }) => trials.length > 0);
  return estimateRates(
    searched.map((found) => evidenceOf(found, slo, referencePerSecond)),
    variation,
  );
}

function ratedOf(cell: Cell, estimate: Estimate): Rated {
  const { perSecond, interval } = estimate;
  return { cell, perSecond, interval, estimate };
}

export function capacityOf({ capacity }: CellFindings): number {
  return median(capacity.map(({ perSecond }) => perSecond));
}

/** Whether every cell that was searched was also tried far below what it can do. */
function searchedThrough(cells: readonly CellFindings[]): boolean {
  return cells
    .filter(({ trials }) => trials.length > 0)
    .every((found) => found.trials.some(({ perSecond }) => perSecond < LIGHT_LOAD * capacityOf(found)));
}

/** For who has stopped it early. */
function fullest(cells: readonly CellFindings[]): string {
  const measured = cells.filter(({ capacity }) => capacity.length > 0);
  if (measured.length === 0) return '';
  const most = measured.reduce((best, each) => (capacityOf(each) > capacityOf(best) ? each : best));
  return ` At full speed, whatever the latency, ${nameOf(most.cell)} was the best of ${measured.length}.`;
}

function fits(cells: readonly CellFindings[], cell: Cell, costs: Costs, limits: Limits): boolean {
  if (whyNot(cell, costs, limits) !== undefined) return false;
  const memory = cells.find((found) => found.cell === cell)?.memory;
  if (memory === undefined || limits.memoryMb === undefined) return true;
  return memory.workersMb + memory.baseMb <= MEMORY_SHARE * limits.memoryMb;
}

function cheapestOf({ cells, costs, slo, referencePerSecond }: Findings): { readonly cheapest?: Cell } {
  if (costs === undefined) return {};
  const keeping = cells.filter(
    ({ cell, reference, trials }) =>
      cell.server === 'nunicorn' &&
      (reference.some(({ load }) => isWithin(slo, load)) ||
        trials.some(({ within, perSecond }) => within && perSecond >= referencePerSecond)),
  );
  const [cheapest] = keeping.map(({ cell }) => cell).sort(byCost(costs));
  return cheapest === undefined ? {} : { cheapest };
}

function ruleFindings({ cells, plan }: Findings, rated: readonly Rated[]): Verdict['rule'] {
  const found = cells.find(({ why }) => why === '2 x cores + 1');
  if (found !== undefined) {
    const known = rated.find(({ cell }) => cell === found.cell);
    if (known !== undefined) return known;
    const untried = found.trials.length === 0 && found.reference.length === 0;
    const because = untried ? 'its turn did not come before the end' : 'it kept the SLO at no rate that was tried';
    return { because: found.failed ?? because };
  }
  const leftOut = plan.leftOut.find(({ why }) => why === '2 x cores + 1');
  return leftOut && { because: leftOut.because };
}

export function percent(share: number): string {
  return `${Math.abs(share) < 0.0995 ? (share * 100).toFixed(1).replace(/\.0$/, '') : Math.round(share * 100)} %`;
}

function finite(value: number): number {
  return Number.isFinite(value) ? value : 0;
}
