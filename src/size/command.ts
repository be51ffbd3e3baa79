/** `nunicorn size`. */
import { chmodSync, closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EXIT, type ExitCode, NunicornError } from '../errors.ts';
import { findPython } from '../settings/python.ts';
import { VERSION } from '../settings/version.ts';
import type { Cell } from './cell.ts';
import { cellsToCheck, compareReports } from './check.ts';
import { impose } from './impose.ts';
import { highestKept, k6Script, k6Text, readK6 } from './k6.ts';
import { adminSocket, adviceCommand, measuredCommand, notesOn, openSink, type Surroundings } from './measured.ts';
import { parseSizeOptions, type SizeOptions } from './options.ts';
import type { Limits } from './plan.ts';
import { progressLine } from './progress.ts';
import { makeReport, type Report } from './report.ts';
import { ServerBench } from './server-bench.ts';
import { CellError, Session } from './session.ts';
import type { Slo } from './slo.ts';
import { toText } from './terminal.ts';
import { readTraffic } from './traffic.ts';

const WARM_UP = { share: 1 / 200, leastMs: 300, mostMs: 2000 } as const;
const LONGEST_REQUEST_MS = 10_000;

/**
 * @returns 0, also for "no difference found"; 1 if nothing could be recommended, a check does not find that an advice holds, or an
 *   imported load keeps the SLO at no rate
 */
export async function run(argv: readonly string[], columns: number): Promise<ExitCode> {
  const request = await parseSizeOptions(argv, process.env, process.cwd(), columns);
  switch (request.kind) {
    case 'help':
      console.log(request.text);
      return EXIT.OK;
    case 'import':
      return importK6(request.files, request.slo);
    case 'size':
      return request.options.exportK6 ? exportK6(request.options) : measure(request.options, request.argv);
  }
}

async function measure(options: SizeOptions, argv: readonly string[]): Promise<ExitCode> {
  const { check, json, html } = options;
  for (const file of [json, html]) if (file !== undefined) checkWritable(file);
  const report = await size(options, argv, check && cellsToCheck(check));
  process.stdout.write(`${toText(report)}\n`);
  const problems = [
    ...(json === undefined ? [] : write(json, `${JSON.stringify(report, undefined, 2)}\n`)),
    ...(html === undefined ? [] : write(html, (await import('./html.ts')).toHtml(report))),
  ];
  if (problems.length > 0) throw new NunicornError(problems.join('; '));
  if (check !== undefined) {
    const { outcome, because } = compareReports(check, report);
    console.log(`The advice of ${check.at.slice(0, 10)} ${outcome}: ${because}`);
    return outcome === 'holds' ? EXIT.OK : EXIT.ERROR;
  }
  return report.recommendation === undefined ? EXIT.ERROR : EXIT.OK;
}

function exportK6({ traffic, host, headers, expectedPerSecond }: SizeOptions): ExitCode {
  if (expectedPerSecond === undefined)
    throw new NunicornError('--export k6 needs --rate: the requests per second to measure around', EXIT.USAGE);
  process.stdout.write(k6Script(readTraffic(traffic).entries, host, headers, expectedPerSecond));
  return EXIT.OK;
}

function importK6(files: readonly string[], slo: Slo): ExitCode {
  let kept = true;
  for (const file of files) {
    const steps = readK6(read(file), file);
    console.log(k6Text(slo, steps, file));
    kept &&= highestKept(slo, steps) !== undefined;
  }
  return kept ? EXIT.OK : EXIT.ERROR;
}

/** One whole sizing. Progress goes to stderr. */
export async function size(options: SizeOptions, argv: readonly string[], only?: readonly Cell[]): Promise<Report> {
  if (process.platform !== 'linux') throw new NunicornError('nunicorn size reads /proc: it works on Linux only');
  const traffic = readTraffic(options.traffic);
  const { served } = options;
  const { settings, warnings } = served.loaded;
  for (const warning of warnings) console.error(`Warning: ${warning}`);
  const python = served.kind === 'python' ? await findPython(settings.python, process.env, served.cwd) : undefined;
  const imposed = impose({
    ...(options.cpus === undefined ? {} : { cpus: options.cpus }),
    ...(options.memoryMb === undefined ? {} : { memoryMb: options.memoryMb }),
  });
  const limits: Limits = {
    cores: imposed.cores,
    ...(options.memoryMb === undefined ? {} : { memoryMb: options.memoryMb }),
    ...(options.databaseConnections === undefined ? {} : { databaseConnections: options.databaseConnections }),
  };
  const temporary = mkdtempSync(join(tmpdir(), 'nunicorn-size-'));
  // Servers may run as another user (--user).
  chmodSync(temporary, settings.user === null ? 0o700 : 0o777);
  const sink = await openSink();
  const around: Surroundings = { temporary, sinkPort: sink.port, python: python?.path ?? null };
  const abort = new AbortController();
  const notes: string[] = [...traffic.notes, ...notesOn(settings)];
  const bench = new ServerBench({
    imposed,
    entries: traffic.entries,
    host: options.host,
    headers: options.headers,
    warmUpMs: options.warmUpMs ?? Math.min(WARM_UP.mostMs, Math.max(WARM_UP.leastMs, WARM_UP.share * options.budgetMs)),
    timeoutMs: LONGEST_REQUEST_MS,
    endsAt: performance.now() + options.budgetMs,
    kind: served.kind,
    command: (cell, port, counts) => measuredCommand(cell, port, served, around, counts),
    adminSocket: (port) => adminSocket(around, port),
    signal: abort.signal,
    note: (text) => notes.push(text),
  });
  const interrupt = (): void => {
    if (abort.signal.aborted) {
      rmSync(temporary, { recursive: true, force: true });
      process.exit(130);
    }
    process.stderr.write('\nnunicorn size: stopping; the report of what is there follows (Ctrl-C again: at once)\n');
    abort.abort();
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  const progress = progressLine(process.stderr, options.budgetMs);
  try {
    const session = new Session(
      bench,
      {
        kind: served.kind,
        budgetMs: options.budgetMs,
        slo: options.slo,
        limits,
        base: options.base,
        compareGunicorn: options.compareGunicorn,
        seed: 1,
        ...expected(options),
        ...(options.configured === undefined ? {} : { configured: options.configured }),
        ...(only === undefined ? {} : { only }),
      },
      progress.tell,
      abort.signal,
    );
    const findings = await session.run();
    progress.end();
    return makeReport({
      findings,
      limits,
      imposed,
      nunicorn: VERSION,
      python: python?.version ?? null,
      app: served.app,
      argv,
      cwd: served.cwd,
      budgetMs: options.budgetMs,
      traffic: bench.planned.map(({ weight, status }, i) => ({ path: traffic.entries[i]?.path ?? '', weight, status })),
      notes,
      command: (cell) => adviceCommand(cell, served),
    });
  } catch (error) {
    progress.end();
    if (error instanceof CellError)
      throw new NunicornError(`one worker with one thread cannot be measured: ${error.message}`);
    throw error;
  } finally {
    await bench.close();
    sink.close();
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** A check compares at the rate of the report. */
function expected({ expectedPerSecond, check }: SizeOptions): { readonly expectedPerSecond?: number } {
  const rate = expectedPerSecond ?? check?.referencePerSecond;
  return rate === undefined ? {} : { expectedPerSecond: rate };
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new NunicornError(`${path} cannot be read: ${error instanceof Error ? error.message : error}`);
  }
}

/**
 * Before minutes of measuring, not after them.
 *
 * @throws {NunicornError} if the file cannot be written
 */
function checkWritable(path: string): void {
  const existed = existsSync(path);
  try {
    closeSync(openSync(path, 'a'));
  } catch (error) {
    throw new NunicornError(cannotWrite(path, error));
  }
  if (!existed) rmSync(path);
}

/** What went wrong; nothing if it was written. The other file is to be written all the same. */
function write(path: string, text: string): readonly string[] {
  try {
    writeFileSync(path, text);
    return [];
  } catch (error) {
    return [cannotWrite(path, error)];
  }
}

function cannotWrite(path: string, error: unknown): string {
  return `${path} cannot be written: ${error instanceof Error ? error.message : error}`;
}
