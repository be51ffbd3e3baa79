import { closeSync, constants, lstatSync, openSync, writeSync } from 'node:fs';
import { NunicornError } from '../errors.ts';
import { fileFailure } from '../file-failure.ts';
import { LOG_LEVELS, type LogFormat, type LogLevel } from './levels.ts';
import { clock } from './local-time.ts';
import type { LogLink, LogProcessAddress } from './log-link.ts';
import { openStandardStream, STDERR, STDOUT } from './standard-stream.ts';

export interface ErrorLog {
  debug(message: string): void;
  info(message: string): void;
  warning(message: string): void;
  error(message: string): void;
  critical(message: string): void;
  /** Opens the file anew, after a log rotation. The old one stays in use if that fails. */
  reopen(): void;
  close(): void;
}

type LineFormat = (level: LogLevel, message: string, now: Date) => string;

/** What the settings say of the error log. */
export interface ErrorLogSettings {
  /** A file, or `-` for standard error. */
  readonly path: string;
  /** The least severe level that is written. */
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** Of a log on standard error: lines of level info and below go to standard output. */
  readonly split: boolean;
  /** The log is another user's: a link there is followed by root only if it is root's. */
  readonly isGiven: boolean;
  /** Where a logger of Python's writes the lines. */
  readonly process: LogProcessAddress | null;
}

export interface ErrorLogOptions {
  readonly path: string;
  readonly level: LogLevel;
  /** Makes a line, without its end, of a message. The default is Gunicorn's form. */
  readonly format?: LineFormat;
  readonly split?: boolean;
  readonly isGiven?: boolean;
}

/** How long one line may wait for a reader that does not read, before it is dropped. */
const BLOCKED_TRIES = 20;
const BLOCKED_PAUSE_MS = 5;

/** `[2026-11-21 02:03:04 +0000] [4888] [INFO] message`, in local time. */
export function gunicornLine(level: LogLevel, message: string, now: Date): string {
  const { year, month, day, time, zone } = clock(now);
  return `[${year}-${month}-${day} ${time} ${zone}] [${process.pid}] [${level.toUpperCase()}] ${message}`;
}

/** @throws {NunicornError} if the file cannot be opened */
export async function openErrorLog({
  path,
  level,
  format,
  split,
  isGiven,
  process: byPython,
}: ErrorLogSettings): Promise<ErrorLog> {
  if (byPython !== null) return errorLogByPython((await import('./log-link.ts')).linkTo(byPython), level);
  if (format === 'text') return createErrorLog({ path, level, split, isGiven });
  // Only who wants JSON pays for the library.
  const line = await (await import('./json-lines.ts')).jsonLines(process.pid);
  return createErrorLog({ path, level, split, isGiven, format: (at, message) => line(at, {}, message) });
}

/** One function for each level; what is less severe than `least` is not written. */
function fromLevel(
  least: LogLevel,
  write: (level: LogLevel, message: string) => void,
): Readonly<Record<LogLevel, (message: string) => void>> {
  const at =
    (level: LogLevel) =>
    (message: string): void => {
      if (LOG_LEVELS.indexOf(level) >= LOG_LEVELS.indexOf(least)) write(level, message);
    };
  return {
    debug: at('debug'),
    info: at('info'),
    warning: at('warning'),
    error: at('error'),
    critical: at('critical'),
  };
}

/** Lines go to the log process; while there is none, to standard error. */
function errorLogByPython(link: LogLink, least: LogLevel): ErrorLog {
  const standby = createErrorLog({ path: '-', level: least });
  return {
    ...fromLevel(least, (level, message) => {
      if (link.isUp) link.line(level, message);
      else standby[level](message);
    }),
    reopen() {}, // the log process does so
    close() {},
  };
}

/**
 * The server's own log. Lines are few, so each is written at once and synchronously: none is lost in a crash. A destination
 * that is full or gone never throws and never holds the server up for more than a moment; the lines that it did not take are
 * counted, and the count is written when it takes lines again.
 *
 * @throws {NunicornError} if the file cannot be opened
 */
export function createErrorLog({
  path,
  level: least,
  format = gunicornLine,
  split = false,
  isGiven = false,
}: ErrorLogOptions): ErrorLog {
  const main = new Outlet(open(path, STDERR, isGiven), format);
  const chatter = split && path === '-' ? new Outlet(open(path, STDOUT, isGiven), format) : main;
  return {
    ...fromLevel(least, (level, message) => {
      (level === 'debug' || level === 'info' ? chatter : main).write(level, message);
    }),
    reopen() {
      if (main.closed || path === '-') return;
      try {
        main.reopen(open(path, STDERR, isGiven));
      } catch (error) {
        main.write('error', error instanceof Error ? error.message : String(error));
      }
    },
    close() {
      main.close();
      chatter.close();
    },
  };
}

/** Where lines go, and what it owes to whoever does not read. */
class Outlet {
  closed = false;
  private fd: number;
  private readonly format: LineFormat;
  private dropped = 0;
  /** What of the last line was not taken, because the destination blocked in the middle of it. */
  private rest: Buffer = Buffer.alloc(0);

  constructor(fd: number, format: LineFormat) {
    this.fd = fd;
    this.format = format;
  }

  write(level: LogLevel, message: string): void {
    if (this.closed) return;
    const lines: string[] = [];
    if (this.dropped > 0)
      lines.push(this.format('warning', `${this.dropped} lines of this log were dropped: nobody read it`, new Date()));
    lines.push(this.format(level, message, new Date()));
    // A destination that blocked before gets one try, so that a flood of lines does not stop the server.
    const tries = this.dropped > 0 ? 1 : BLOCKED_TRIES;
    const before = this.rest;
    const content = Buffer.concat([before, Buffer.from(`${lines.join('\n')}\n`)]);
    const written = writeAll(this.fd, content, tries);
    if (written === content.length) {
      this.rest = Buffer.alloc(0);
      this.dropped = 0;
    } else if (written <= before.length) {
      this.rest = before.subarray(written);
      this.dropped += 1;
    } else {
      // Some of the new lines went out: they are owed in full.
      this.rest = content.subarray(written);
      this.dropped = 0;
    }
  }

  reopen(fd: number): void {
    closeSync(this.fd);
    this.fd = fd;
    this.rest = Buffer.alloc(0);
  }

  close(): void {
    if (!this.closed && this.fd !== STDERR && this.fd !== STDOUT) closeSync(this.fd);
    this.closed = true;
  }
}

function open(path: string, standard: typeof STDOUT | typeof STDERR, isGiven: boolean): number {
  if (path === '-') return openStandardStream(standard);
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW } = constants;
  try {
    const guard = isGiven && process.geteuid?.() === 0 && !isOwnLink(path) ? O_NOFOLLOW : 0;
    return openSync(path, O_WRONLY | O_APPEND | O_CREAT | guard, 0o666);
  } catch (error) {
    throw new NunicornError(
      `the error log '${path}' cannot be opened (${fileFailure(error, path)}): --error-logfile needs a file that can be written, or - for standard error`,
    );
  }
}

/** A link of another user's may lead anywhere: what is opened by it with the rights of root would be that user's to choose. */
export function isOwnLink(path: string): boolean {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  return stat?.isSymbolicLink() === true && stat.uid === process.geteuid?.();
}

/** Writes as much as the destination takes and returns how many bytes that is. */
function writeAll(fd: number, content: Buffer, tries: number): number {
  let written = 0;
  let left = tries;
  while (written < content.length) {
    try {
      written += writeSync(fd, content, written);
    } catch (error) {
      const code = errorCode(error);
      if (code === 'EINTR') continue;
      // EPIPE, ENOSPC, EIO: waiting would not help.
      if (code !== 'EAGAIN' || --left <= 0) return written;
      Atomics.wait(PAUSE, 0, 0, BLOCKED_PAUSE_MS);
    }
  }
  return written;
}

const PAUSE = new Int32Array(new SharedArrayBuffer(4));

function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
