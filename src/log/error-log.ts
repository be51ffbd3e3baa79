import { closeSync, openSync, writeSync } from 'node:fs';
import { NunicornError } from '../errors.ts';
import { LOG_LEVELS, type LogLevel } from '../settings/types.ts';
import { clock } from './local-time.ts';
import { openStandardStream, STDERR } from './standard-stream.ts';

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

export interface ErrorLogOptions {
  /** A file, or `-` for standard error. */
  readonly path: string;
  /** The least severe level that is written. */
  readonly level: LogLevel;
  /** Makes a line, without its end, of a message. The default is Gunicorn's form. */
  readonly format?: (level: LogLevel, message: string, now: Date) => string;
}

/** How long one line may wait for a reader that does not read, before it is dropped. */
const BLOCKED_TRIES = 20;
const BLOCKED_PAUSE_MS = 5;

/** `[2026-11-21 02:03:04 +0000] [4888] [INFO] message`, in local time. */
export function gunicornLine(level: LogLevel, message: string, now: Date): string {
  const { year, month, day, time, zone } = clock(now);
  return `[${year}-${month}-${day} ${time} ${zone}] [${process.pid}] [${level.toUpperCase()}] ${message}`;
}

/**
 * The server's own log. Lines are few, so each is written at once and synchronously: none is lost in a crash. A destination
 * that is full or gone never throws and never holds the server up for more than a moment; the lines that it did not take are
 * counted, and the count is written when it takes lines again.
 *
 * @throws {NunicornError} if the file cannot be opened
 */
export function createErrorLog(options: ErrorLogOptions): ErrorLog {
  const format = options.format ?? gunicornLine;
  const leastSevere = LOG_LEVELS.indexOf(options.level);
  let fd = open(options.path);
  let closed = false;
  let dropped = 0;
  /** What of the last line was not taken, because the destination blocked in the middle of it. */
  let rest: Buffer = Buffer.alloc(0);

  function write(level: LogLevel, message: string): void {
    if (closed) return;
    const lines: string[] = [];
    if (dropped > 0)
      lines.push(format('warning', `${dropped} lines of this log were dropped: nobody read it`, new Date()));
    lines.push(format(level, message, new Date()));
    // A destination that blocked before gets one try, so that a flood of lines does not stop the server.
    const tries = dropped > 0 ? 1 : BLOCKED_TRIES;
    const before = rest;
    const content = Buffer.concat([before, Buffer.from(`${lines.join('\n')}\n`)]);
    const written = writeAll(fd, content, tries);
    if (written === content.length) {
      rest = Buffer.alloc(0);
      dropped = 0;
    } else if (written <= before.length) {
      rest = before.subarray(written);
      dropped += 1;
    } else {
      // Some of the new lines went out: they are owed in full.
      rest = content.subarray(written);
      dropped = 0;
    }
  }

  const at =
    (level: LogLevel) =>
    (message: string): void => {
      if (LOG_LEVELS.indexOf(level) >= leastSevere) write(level, message);
    };

  return {
    debug: at('debug'),
    info: at('info'),
    warning: at('warning'),
    error: at('error'),
    critical: at('critical'),
    reopen() {
      if (closed || options.path === '-') return;
      try {
        const next = open(options.path);
        closeSync(fd);
        fd = next;
        rest = Buffer.alloc(0);
      } catch (error) {
        write('error', error instanceof Error ? error.message : String(error));
      }
    },
    close() {
      if (!closed && fd !== STDERR) closeSync(fd);
      closed = true;
    },
  };
}

function open(path: string): number {
  if (path === '-') return openStandardStream(STDERR);
  try {
    return openSync(path, 'a');
  } catch (error) {
    throw new NunicornError(
      `the error log '${path}' cannot be opened (${errorCode(error)}): --error-logfile needs a file that can be written, or - for standard error`,
    );
  }
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
