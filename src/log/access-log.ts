import { closeSync, openSync } from 'node:fs';
import { NunicornError } from '../errors.ts';
import { fileFailure } from '../file-failure.ts';
import { openStandardStream, STDOUT } from './standard-stream.ts';

export { type AccessFormatter, type AccessRecord, compileAccessFormat } from './access-format.ts';

export interface AccessLog {
  /** Takes one line, without its end. Never throws, never waits. */
  write(line: string): void;
  /** How many lines were lost because the destination did not take them. */
  readonly dropped: number;
  /**
   * Opens the file anew, after a log rotation: what was logged before goes to the old one.
   *
   * @throws {NunicornError} if it cannot be opened; the old one stays in use then
   */
  reopen(): void;
  /** Writes what is left, waiting for a blocked destination for a second at most. */
  close(): Promise<void>;
}

/** Lines are gathered to this many bytes, or for this long, and written at once. */
const GATHER_BYTES = 4096;
const GATHER_MS = 1000;
/** What may wait for a destination that does not take it; further lines are dropped. */
const MAX_WAITING_BYTES = 4 * 1024 * 1024;
const CLOSE_MS = 1000;
/** How often a synchronous flush retries a full pipe, 100 ms apart. */
const MAX_SYNC_TRIES = 5;

/**
 * Opens the access log. Writing is left to SonicBoom, pino's stream: a line costs a string concatenation.
 *
 * @param path a file, or `-` for standard output
 * @throws {NunicornError} if the file cannot be opened
 */
export async function createAccessLog(path: string): Promise<AccessLog> {
  const { destination } = await import('pino');
  let dropped = 0;
  /** Nobody reads any more, and nobody will. */
  let broken = false;
  /** The last write failed; the next may not, when the disk has room again. */
  let failing = false;
  let closed = false;
  let triesLeft = Number.POSITIVE_INFINITY;

  const stream = destination({
    dest: path === '-' ? openStandardStream(STDOUT) : path,
    sync: false,
    minLength: GATHER_BYTES,
    maxLength: MAX_WAITING_BYTES,
    retryEAGAIN: () => --triesLeft > 0,
  });
  stream.on('drop', () => {
    dropped += 1;
  });
  // SonicBoom's flushSync(), which pino also calls at the end of the process, tries a full pipe or a full disk for ever, and
  // the whole process with it. So a full pipe gets few tries, and a destination that failed before gets none.
  const flushForEver = stream.flushSync.bind(stream);
  stream.flushSync = () => {
    if (failing || broken) return;
    triesLeft = MAX_SYNC_TRIES;
    try {
      flushForEver();
    } catch {
      // What is left is written later.
    } finally {
      triesLeft = Number.POSITIVE_INFINITY;
    }
  };
  await opened(stream, path);
  stream.on('error', (error: NodeJS.ErrnoException) => {
    failing = true;
    broken ||= error.code === 'EPIPE';
  });
  stream.on('write', () => {
    failing = false;
  });
  // SonicBoom's own periodicFlush would run, and throw, after an open that failed.
  const timer = setInterval(() => {
    if (!broken) stream.flush();
  }, GATHER_MS).unref();

  return {
    write(line) {
      if (broken || closed) dropped += 1;
      else stream.write(`${line}\n`);
    },
    get dropped() {
      return dropped;
    },
    reopen() {
      if (closed || path === '-') return;
      tryOpen(path); // if that fails SonicBoom goes on with the old file, and says nothing
      // SonicBoom's own reopen() would write what it still holds into the new file.
      stream.flushSync();
      stream.reopen();
    },
    async close() {
      if (closed) return;
      closed = true;
      clearInterval(timer);
      if (!broken) await ended(stream, CLOSE_MS);
      stream.destroy();
    },
  };
}

type Stream = ReturnType<typeof import('pino')['destination']>;

function opened(stream: Stream, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.once('ready', () => {
      stream.off('error', fail);
      resolve();
    });
    stream.on('error', fail);
    function fail(error: NodeJS.ErrnoException): void {
      reject(cannotOpen(path, error));
    }
  });
}

function tryOpen(path: string): void {
  try {
    closeSync(openSync(path, 'a'));
  } catch (error) {
    throw cannotOpen(path, error);
  }
}

function cannotOpen(path: string, error: unknown): NunicornError {
  return new NunicornError(
    `the access log '${path}' cannot be opened (${fileFailure(error, path)}): --access-logfile needs a file that can be written, or - for standard output`,
  );
}

function ended(stream: Stream, limitMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, limitMs);
    const done = (): void => {
      clearTimeout(timer);
      resolve();
    };
    stream.once('close', done);
    stream.once('error', done);
    stream.end();
  });
}
