/** `nunicorn size`. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EXIT, type ExitCode, NunicornError } from '../errors.ts';
import { findPython } from '../settings/python.ts';
import { VERSION } from '../settings/version.ts';
import type { Cell } from './cell.ts';
import { impose } from './impose.ts';
import { parseSizeOptions, type SizeOptions } from './options.ts';
import type { Limits } from './plan.ts';
import { progressLine } from './progress.ts';
import { makeReport, type Report } from './report.ts';
import type { Command } from './server.ts';
import { ServerBench } from './server-bench.ts';
import { CellError, Session } from './session.ts';
import { shellCommand } from './shell.ts';
import { toText } from './terminal.ts';
import { readTraffic } from './traffic.ts';

const NUNICORN = fileURLToPath(new URL('../../../bin/nunicorn.js', import.meta.url));
const WARM_UP = { share: 1 / 200, leastMs: 300, mostMs: 2000 } as const;
const LONGEST_REQUEST_MS = 10_000;

/** @returns 0, also for "no difference found"; 1 if nothing could be recommended or an advice does not hold */
export async function run(argv: readonly string[], columns: number): Promise<ExitCode> {
  const request = await parseSizeOptions(argv, process.env, process.cwd(), columns);
  if (request.kind === 'help') {
    console.log(request.text);
    return EXIT.OK;
  }
  const report = await size(request.options, argv);
  process.stdout.write(`${toText(report)}\n`);
  if (request.options.json !== undefined) write(request.options.json, `${JSON.stringify(report, undefined, 2)}\n`);
  return report.recommendation === undefined ? EXIT.ERROR : EXIT.OK;
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
        ...(options.expectedPerSecond === undefined ? {} : { expectedPerSecond: options.expectedPerSecond }),
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
    ...options.serve,
    ...['--bind', `127.0.0.1:${port}`, '--workers', `${cell.workers}`, '--threads', `${cell.threads}`],
    ...['--fronts', `${cell.fronts}`, '--python', python, '--error-logfile', '-', '--pid='],
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

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw new NunicornError(`${path} cannot be written: ${error instanceof Error ? error.message : error}`);
  }
}
