/** `nunicorn size`. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EXIT, type ExitCode, NunicornError } from '../errors.ts';
import { findPython } from '../settings/python.ts';
import { VERSION } from '../settings/version.ts';
import type { Cell } from './cell.ts';
import { cellsToCheck, compareReports } from './check.ts';
import { impose } from './impose.ts';
import { highestKept, k6Script, k6Text, readK6 } from './k6.ts';
import { parseSizeOptions, type SizeOptions } from './options.ts';
import type { Limits } from './plan.ts';
import { progressLine } from './progress.ts';
import { makeReport, type Report } from './report.ts';
import type { Command } from './server.ts';
import { ServerBench } from './server-bench.ts';
import { CellError, Session } from './session.ts';
import { shellCommand } from './shell.ts';
import type { Slo } from './slo.ts';
import { toText } from './terminal.ts';
import { readTraffic } from './traffic.ts';

const NUNICORN = fileURLToPath(new URL('../../../bin/nunicorn.js', import.meta.url));
const WARM_UP = { share: 1 / 200, leastMs: 300, mostMs: 2000 } as const;
const LONGEST_REQUEST_MS = 10_000;

/**
 * @returns 0, also for "no difference found"; 1 if nothing could be recommended, a check finds that an advice does not hold, or an
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
  const { check } = options;
  const report = await size(options, argv, check && cellsToCheck(check));
  process.stdout.write(`${toText(report)}\n`);
  if (options.json !== undefined) write(options.json, `${JSON.stringify(report, undefined, 2)}\n`);
  if (options.html !== undefined) {
    const { toHtml } = await import('./html.ts');
    write(options.html, toHtml(report));
  }
  if (check !== undefined) {
    const { holds, because } = compareReports(check, report);
    console.log(`The advice of ${check.at.slice(0, 10)} ${holds ? 'holds' : 'does not hold'}: ${because}`);
    return holds ? EXIT.OK : EXIT.ERROR;
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
  const python = await findPython(options.python, process.env, options.cwd);
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
  const bench = new ServerBench({
    imposed,
    entries: traffic.entries,
    host: options.host,
    headers: options.headers,
    warmUpMs: options.warmUpMs ?? Math.min(WARM_UP.mostMs, Math.max(WARM_UP.leastMs, WARM_UP.share * options.budgetMs)),
    timeoutMs: LONGEST_REQUEST_MS,
    command: (cell, port) => commandOf(cell, port, options, python.path, temporary),
  });
  const abort = new AbortController();
  const interrupt = (): void => {
    if (abort.signal.aborted) process.exit(130);
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
      python: python.version,
      app: options.app,
      argv,
      cwd: options.cwd,
      budgetMs: options.budgetMs,
      traffic: bench.planned.map(({ weight, status }, i) => ({ path: traffic.entries[i]?.path ?? '', weight, status })),
      notes: traffic.notes,
      command: (cell) => commandLine(cell, options),
    });
  } catch (error) {
    progress.end();
    if (error instanceof CellError)
      throw new NunicornError(`one worker with one thread cannot be measured: ${error.message}`);
    throw error;
  } finally {
    await bench.close();
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

/** How a cell's server is started for the measurement: nothing of it reaches the user's files, sockets or collectors. */
function commandOf(cell: Cell, port: number, options: SizeOptions, python: string, temporary: string): Command {
  const { settings } = options.loaded;
  const log = join(temporary, 'access.log');
  if (cell.server === 'gunicorn') {
    const words = [
      ...[python, '-m', 'gunicorn', '--chdir', options.chdir, '--bind', `127.0.0.1:${port}`],
      ...['--workers', `${cell.workers}`, '--threads', `${cell.threads}`],
      ...(cell.preload ? ['--preload'] : []),
      ...(settings.accesslog === null ? [] : ['--access-logfile', log]),
      // It would write to the home folder.
      ...['--no-control-socket', '--config', '/dev/null', options.app],
    ];
    return { words, cwd: options.cwd, env: options.env };
  }
  const words = [
    process.execPath,
    NUNICORN,
    ...options.measured,
    ...['--bind', `127.0.0.1:${port}`, '--workers', `${cell.workers}`, '--threads', `${cell.threads}`],
    ...['--fronts', `${cell.fronts}`, '--python', python, '--error-logfile', '-'],
    // The cost of a log that the user has is part of the answer; its lines are not part of their log.
    ...(settings.accesslog === null ? [] : ['--access-logfile', log]),
    ...(cell.preload ? ['--preload'] : []),
    options.app,
  ];
  return { words, cwd: options.cwd, env: process.env };
}

/** How the user would run a cell. */
function commandLine(cell: Cell, options: SizeOptions): string {
  return shellCommand([
    'nunicorn',
    ...options.serve,
    ...['--workers', `${cell.workers}`, '--threads', `${cell.threads}`],
    ...(cell.fronts > 1 ? ['--fronts', `${cell.fronts}`] : []),
    ...(cell.preload ? ['--preload'] : []),
    options.app,
  ]);
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new NunicornError(`${path} cannot be read: ${error instanceof Error ? error.message : error}`);
  }
}

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw new NunicornError(`${path} cannot be written: ${error instanceof Error ? error.message : error}`);
  }
}
