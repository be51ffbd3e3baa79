/**
 * process.chdir() in a thread. Node leaves the folder, of which a process has but one, to the main thread; programs that change to
 * their own at the start (Next.js) would not start. So a thread has the main thread do it and waits: all run the same program.
 */
import { getSystemErrorName } from 'node:util';

export interface ChdirRequest {
  readonly op: 'chdir';
  readonly folder: string;
  /** An Int32Array of one cell: PENDING, then DONE or the system's number of the error, which is negative. */
  readonly result: SharedArrayBuffer;
}

const PENDING = 0;
const DONE = 1;

/** In a thread. `tell` brings the request to the main thread, where `changeFolder` answers it. */
export function provideChdir(tell: (request: ChdirRequest) => void): void {
  process.chdir = (folder) => {
    const result = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
    tell({ op: 'chdir', folder: String(folder), result: result.buffer });
    Atomics.wait(result, 0, PENDING);
    const errno = Atomics.load(result, 0);
    if (errno === DONE) return;
    const code = getSystemErrorName(errno);
    throw Object.assign(new Error(`${code}: chdir '${folder}'`), { code, errno, syscall: 'chdir', path: folder });
  };
}

/** In the main thread. */
export function changeFolder({ folder, result }: ChdirRequest): void {
  const cell = new Int32Array(result);
  try {
    process.chdir(folder);
    Atomics.store(cell, 0, DONE);
  } catch (error) {
    Atomics.store(cell, 0, (error as NodeJS.ErrnoException).errno ?? EINVAL);
  }
  Atomics.notify(cell, 0);
}

const EINVAL = -22;
