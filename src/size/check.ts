/** Whether the advice of an earlier report still holds. Pure, but for reading the file. */
import { readFileSync } from 'node:fs';
import { NunicornError } from '../errors.ts';
import { type Cell, nameOf, stepFrom } from './cell.ts';
import { type RateInfo, REPORT_VERSION, type Report } from './report.ts';
import { perSecond } from './terminal.ts';
import { MOST_VARIATION, percent } from './verdict.ts';

export interface CheckResult {
  readonly outcome: 'holds' | 'does not hold' | 'cannot be checked';
  readonly because: string;
}

/** @throws {NunicornError} if it is no report with a recommendation */
export function readReport(file: string): Report & { readonly recommendation: RateInfo } {
  let report: Report;
  try {
    report = JSON.parse(readFileSync(file, 'utf8')) as Report;
  } catch (error) {
    throw new NunicornError(`${file} cannot be read as a report: ${error instanceof Error ? error.message : error}`);
  }
  const { version, recommendation, argv } = report;
  if (version !== REPORT_VERSION || !Array.isArray(argv))
    throw new NunicornError(`${file} is not a report of nunicorn size --json (version ${REPORT_VERSION})`);
  if (recommendation === undefined) throw new NunicornError(`${file} recommends nothing: there is nothing to check`);
  return { ...report, recommendation };
}

/** The advised setting and what could have become better since. */
export function cellsToCheck({
  recommendation,
  runnerUp,
}: Report & { readonly recommendation: RateInfo }): readonly Cell[] {
  const cellOf = ({ workers, threads, fronts, preload }: RateInfo): Cell => ({
    server: 'nunicorn',
    workers,
    threads,
    fronts,
    preload,
  });
  const advised = cellOf(recommendation);
  const around: Cell[] = [
    advised,
    ...(runnerUp === undefined ? [] : [cellOf(runnerUp)]),
    { ...advised, threads: stepFrom(advised.threads, 1) },
    { ...advised, threads: stepFrom(advised.threads, -1) },
    { ...advised, workers: advised.workers + 1 },
    { ...advised, workers: Math.max(1, advised.workers - 1) },
  ];
  return around.filter((cell, i) => around.findIndex((other) => nameOf(other) === nameOf(cell)) === i);
}

export function compareReports(before: Report & { readonly recommendation: RateInfo }, now: Report): CheckResult {
  const { name, perSecond: then, interval } = before.recommendation;
  const cell = now.cells.find((each) => each.name === name);
  if (now.verdict.kind === 'too noisy to say' || now.verdict.kind === 'not enough measured')
    return { outcome: 'cannot be checked', because: now.verdict.because };
  if (cell?.carried === undefined)
    return {
      outcome: 'does not hold',
      because: `${name} does not keep the SLO any more${cell?.failed === undefined ? '' : `: ${cell.failed}`}.`,
    };
  const { carried } = cell;
  const best = now.recommendation;
  if (best !== undefined && best.name !== name && !now.verdict.alike.includes(name))
    return {
      outcome: 'does not hold',
      because: `${best.name} is better now: ${perSecond(best.perSecond)}, ${name} carries ${perSecond(carried.perSecond)}.`,
    };
  const sameMachine = before.machine.cpu === now.machine.cpu && before.limits.cores === now.limits.cores;
  const gave = `${perSecond(carried.perSecond)} now, ${perSecond(then)} then`;
  if (sameMachine && carried.interval.high < interval.low * (1 - MOST_VARIATION))
    return {
      outcome: 'does not hold',
      because: `${name} is still the setting to take, but it carries ${percent(1 - carried.perSecond / then)} less: ${gave}.`,
    };
  return {
    outcome: 'holds',
    because: `${name} is still the setting to take: ${gave}${sameMachine ? '' : ' (on another machine)'}.`,
  };
}
