/**
 * What the threads of a worker are doing. A process that can answer is asked. One that cannot, since C code holds the
 * interpreter's lock, is seen from outside: `faulthandler` reads the stacks without that lock, which ends a process whose
 * threads run meanwhile.
 */
import { closeSync, fstatSync, readSync } from 'node:fs';
import { openWorkerFile } from './worker-file.ts';

/** On it `faulthandler` writes all stacks to the process's file. See nunicorn_worker/worker.py. */
const STACKS_SIGNAL = 'SIGIO';
/** The file is whole when it has not grown from one look to the next. */
const LOOK_MS = 50;
/** How long it may take to be written. */
const WRITE_MS = 300;

/** More than so many are not logged. */
const MAX_BYTES = 1024 * 1024;

export const UNKNOWN_STACKS = '(the stack is not known)';

/** Those who wait for the stacks of one process. */
export class StacksAsked {
  private readonly waiting = new Set<(stacks: string) => void>();

  /** `done` gets the answer; when there is none within `limitMs`, `otherwise` is called. */
  ask(limitMs: number, done: (stacks: string) => void, otherwise: () => void): void {
    this.waiting.add(done);
    setTimeout(() => {
      if (this.waiting.delete(done)) otherwise();
    }, limitMs);
  }

  answered(stacks: string): void {
    for (const done of this.waiting) done(stacks);
    this.waiting.clear();
  }
}

/** Has the process write its stacks to `path` and gives them to `done`. */
export function readStacks(pid: number, path: string, done: (stacks: string) => void): void {
  const fd = openWorkerFile(path);
  if (fd === null) {
    done(UNKNOWN_STACKS); // it has come nowhere yet: the signal would end it
    return;
  }
  // What it has written before was of other moments.
  const before = fstatSync(fd).size;
  try {
    process.kill(pid, STACKS_SIGNAL);
  } catch {
    // It is dead.
  }
  let size = before;
  let looks = WRITE_MS / LOOK_MS;
  const timer = setInterval(() => {
    const present = fstatSync(fd).size;
    const isWhole = present > before && present === size;
    size = present;
    if (!isWhole && --looks > 0) return;
    clearInterval(timer);
    const content = Buffer.alloc(Math.max(0, Math.min(size - before, MAX_BYTES)));
    const length = readSync(fd, content, 0, content.length, before);
    closeSync(fd);
    done(content.toString('utf8', 0, length).trimEnd() || UNKNOWN_STACKS);
  }, LOOK_MS);
}
