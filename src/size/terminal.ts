/** The report as text for a terminal. Pure. */

import { plural } from '../plural.ts';
import { type Kind, WORDS } from './kind.ts';
import type { Costs } from './model.ts';
import type { CellReport, RateInfo, Report } from './report.ts';
import { showSlo } from './slo.ts';
import { percent } from './verdict.ts';

export function toText(report: Report): string {
  // Stopped before anything was measured.
  if (report.cells.every(({ capacities }) => capacities.length === 0)) return verdictLines(report).join('\n');
  return ['', ...costLines(report), ...cellTable(report), ...remarkLines(report), ...verdictLines(report), ''].join(
    '\n',
  );
}

function costLines({ costs, machine, limits, traffic, slo, sloGiven }: Report): string[] {
  const cores = `${limits.cores} of ${machine.cores} cores${limits.cpu === 'none' ? '' : ` (imposed by ${limits.cpu})`}`;
  const memory =
    limits.memoryMb === undefined
      ? ''
      : `, ${Math.round(limits.memoryMb)} MB (${limits.memory === 'watched' ? 'watched, not imposed' : `imposed by ${limits.memory}`})`;
  const what = traffic.length === 1 ? (traffic[0]?.path ?? '') : `${traffic.length} paths`;
  const lines = [
    `Measured on ${cores}${memory}: ${what}, ${showSlo(slo)}${sloGiven ? '' : ' (not given: ten times an unhindered request)'}.`,
  ];
  if (costs === undefined) return lines;
  const { kind, workerMb, threadMb, baseMb } = costs;
  const thread = kind === 'async' ? '' : `, each further thread ${threadMb < 0.05 ? '0 MB' : mb(threadMb)}`;
  lines.push(
    `${costText(costs)}.`,
    `Memory: a worker ${mb(workerMb)}${thread}, ${WORDS[kind].base} ${mb(baseMb)}.`,
    '',
  );
  return lines;
}

/** What a request costs, in one sentence without its point. */
export function costText({ kind, lockedMs, blockedMs, freeMs, waitMs, frontMs }: Costs): string {
  const { lock, front } = WORDS[kind];
  switch (kind) {
    case 'python':
    case 'pool': {
      const free = kind === 'python' && freeMs > 0.05 * lockedMs ? ` + ${ms(freeMs)} outside ${lock}` : '';
      const computes = kind === 'pool' ? freeMs : lockedMs;
      return `A request takes ${ms(computes)} of CPU time${free} and waits ${ms(waitMs)}; ${front} takes ${ms(frontMs)}`;
    }
    case 'async': {
      const stands = blockedMs > 0 ? `, holds it for ${ms(blockedMs)} without computing (synchronous calls)` : '';
      const free = freeMs > 0.05 * lockedMs ? `, takes ${ms(freeMs)} of CPU time outside of it` : '';
      return `A request takes ${ms(lockedMs)} of CPU time in ${lock}${stands}${free} and waits ${ms(waitMs)}`;
    }
  }
}

function cellTable(report: Report): string[] {
  const heads = [
    'workers x threads',
    'memory',
    'predicted',
    'full speed',
    report.referencePerSecond > 0 ? `p99 at ${Math.round(report.referencePerSecond)}/s` : 'p99',
    `within ${showSlo(report.slo)}`,
    '',
  ];
  const order = [...report.cells].sort(
    (a, b) => (b.carried?.perSecond ?? 0) - (a.carried?.perSecond ?? 0) || (b.capacity ?? 0) - (a.capacity ?? 0),
  );
  const rows = order.map((cell) => [
    cell.name,
    cell.memoryMb === undefined ? '' : mb(cell.memoryMb),
    cell.cell.server === 'gunicorn' ? '' : perSecond(cell.predicted.perSecond),
    perSecond(cell.capacity),
    cell.reference === undefined ? (cell.capacity === undefined ? '' : 'overloaded') : ms(cell.reference.p99Ms),
    cell.carried === undefined ? '' : `${perSecond(cell.carried.perSecond)} (${interval(cell.carried.interval)})`,
    mark(cell, report),
  ]);
  return [...table(heads, rows), ''];
}

function mark(cell: CellReport, report: Report): string {
  const marks = [
    ...(cell.name === report.recommendation?.name ? ['<- take this'] : []),
    ...(cell.why === '2 x cores + 1' || cell.why === 'as configured' ? [cell.why] : []),
    ...(cell.failed === undefined ? [] : [`failed: ${cell.failed.split('\n')[0]}`]),
  ];
  return marks.join(', ');
}

function remarkLines({ remarks, cells, leftOut, variation, predictionError }: Report): string[] {
  const lines = [...remarks];
  for (const { name, remarks: own } of cells) if (own.length > 0) lines.push(`${name}: ${own.join('; ')}`);
  for (const { name, because } of leftOut) lines.push(`${name} was not measured: ${because}`);
  if (variation !== null) lines.push(`Repeated measurements differ by ${percent(variation)} (standard deviation).`);
  if (predictionError !== null)
    lines.push(
      `Predictions before the knee are off by ${percent(predictionError.median)} (median of ${predictionError.cells}, at most ${percent(predictionError.worst)}).`,
    );
  return lines.length === 0 ? [] : [...lines.map((line) => `- ${line}`), ''];
}

function verdictLines(report: Report): string[] {
  const { verdict, recommendation, runnerUp, cheapest, rule, interrupted, usedMs } = report;
  const lines = [
    `${interrupted ? 'Stopped' : 'Done'} after ${Math.round(usedMs / 1000)} s. ${verdict.because}`,
    ...verdict.toDo,
    '',
  ];
  if (recommendation === undefined) return lines;
  const sure = verdict.kind === 'too noisy to say' ? 'If you must choose now' : 'Recommendation';
  lines.push(`${sure}: ${settingText(recommendation, kindOf(report), ', ')}: ${carried(recommendation)}.`);
  if (runnerUp !== undefined) lines.push(`Runner-up: ${runnerUp.name}: ${carried(runnerUp)}.`);
  if (cheapest !== undefined)
    lines.push(
      cheapest.name === recommendation.name
        ? `It is also the cheapest that keeps the SLO at ${Math.round(report.referencePerSecond)}/s.`
        : `Cheapest that keeps the SLO at ${Math.round(report.referencePerSecond)}/s: ${cheapest.name}.`,
    );
  if (rule !== undefined)
    lines.push(
      `2 x cores + 1 would have given: ${'because' in rule ? `nothing measured, ${rule.because}` : `${rule.name}: ${carried(rule)}`}.`,
    );
  lines.push(
    '',
    `    ${recommendation.command}`,
    '',
    `or in ${configFile(kindOf(report))}:`,
    '',
    ...configLines(recommendation, kindOf(report)).map((line) => `    ${line}`),
  );
  return lines;
}

/** What is recommended was measured, so its costs are known. */
export function kindOf({ costs }: Report): Kind {
  return costs?.kind ?? 'python';
}

/** E.g. `2 workers, 4 threads, preload`. */
export function settingText({ workers, threads, preload }: RateInfo, kind: Kind, between: string): string {
  const parts = [plural(workers, 'worker'), ...(kind === 'async' ? [] : [plural(threads, 'thread')])];
  return `${parts.join(between)}${preload ? ', preload' : ''}`;
}

export function configFile(kind: Kind): string {
  return kind === 'python' ? 'gunicorn.conf.py' : 'nunicorn.config.mjs';
}

export function configLines({ workers, threads, fronts, preload }: RateInfo, kind: Kind): readonly string[] {
  switch (kind) {
    case 'python':
      return [
        `workers = ${workers}`,
        `threads = ${threads}`,
        ...(fronts > 1 ? [`fronts = ${fronts}`] : []),
        ...(preload ? ['preload_app = True'] : []),
      ];
    case 'async':
      return [`export default { workers: ${workers} };`];
    case 'pool':
      return [`export default { worker_class: 'gthread', workers: ${workers}, threads: ${threads} };`];
  }
}

function carried({ perSecond: rate, interval: range, memoryMb }: RateInfo): string {
  return `${perSecond(rate)} within the SLO (95 %: ${interval(range)})${memoryMb === undefined ? '' : `, ${mb(memoryMb)}`}`;
}

function interval({ low, high }: { readonly low: number; readonly high: number }): string {
  return `${short(low)}..${short(high)}`;
}

export function perSecond(rate: number | undefined): string {
  return rate === undefined || !Number.isFinite(rate) ? '' : `${short(rate)}/s`;
}

function short(value: number): string {
  return value < 9.95 ? value.toFixed(1) : String(Math.round(value));
}

export function ms(value: number): string {
  if (!Number.isFinite(value)) return '';
  return `${value < 0.995 ? value.toFixed(2) : value < 9.95 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function mb(value: number): string {
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} MB`;
}

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = heads.map((head, i) => Math.max(head.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) =>
        i === 0 || i === cells.length - 1 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0),
      )
      .join('  ')
      .trimEnd();
  return [line(heads), ...rows.map(line)];
}
