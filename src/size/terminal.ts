/** The report as text for a terminal. Pure. */
import type { CellReport, RateInfo, Report } from './report.ts';
import { showSlo } from './slo.ts';
import { percent } from './verdict.ts';

export function toText(report: Report): string {
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
  const { lockedMs, freeMs, waitMs, frontMs, workerMb, threadMb, baseMb } = costs;
  const free = freeMs > 0.05 * lockedMs ? ` + ${ms(freeMs)} outside the GIL` : '';
  lines.push(
    `A request takes ${ms(lockedMs)} of CPU time${free} and waits ${ms(waitMs)}; the front takes ${ms(frontMs)}.`,
    `Memory: a worker ${mb(workerMb)}, each further thread ${threadMb < 0.05 ? '0 MB' : mb(threadMb)}, master and front ${mb(baseMb)}.`,
    '',
  );
  return lines;
}

function cellTable(report: Report): string[] {
  const heads = [
    'workers x threads',
    'memory',
    'predicted',
    'full speed',
    `p99 at ${Math.round(report.referencePerSecond)}/s`,
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
  lines.push(
    `${sure}: ${plural(recommendation.workers, 'worker')}, ${plural(recommendation.threads, 'thread')}${recommendation.preload ? ', preload' : ''}: ${carried(recommendation)}.`,
  );
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
    'or in gunicorn.conf.py:',
    '',
    ...configLines(recommendation).map((line) => `    ${line}`),
  );
  return lines;
}

export function configLines({ workers, threads, fronts, preload }: RateInfo): readonly string[] {
  return [
    `workers = ${workers}`,
    `threads = ${threads}`,
    ...(fronts > 1 ? [`fronts = ${fronts}`] : []),
    ...(preload ? ['preload_app = True'] : []),
  ];
}

function carried({ perSecond: rate, interval: range, memoryMb }: RateInfo): string {
  return `${perSecond(rate)} within the SLO (95 %: ${interval(range)})${memoryMb === undefined ? '' : `, ${mb(memoryMb)}`}`;
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
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
