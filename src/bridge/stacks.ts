/**
 * What the threads of a worker are doing. A process that can answer is asked. One that cannot, since C code holds the
 * interpreter's lock, is seen from outside: `faulthandler` reads the stacks without that lock, which ends a process whose
 * threads run meanwhile.
 */
import { readFile, statSync } from 'node:fs';

/** On it `faulthandler` writes all stacks to the process's file. See nunicorn_worker/worker.py. */
const STACKS_SIGNAL = 'SIGIO';
/** The file is whole when it has not grown from one look to the next. */
const LOOK_MS = 50;
/** How long it may take to be written. */
const WRITE_MS = 300;

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
  const before = statSync(path, { throwIfNoEntry: false })?.size;
  if (before === undefined) {
    done(UNKNOWN_STACKS); // it has come nowhere yet: the signal would end it
    return;
  }
  try {
    process.kill(pid, STACKS_SIGNAL);
  } catch {
    // It is dead.
  }
  // What it has written before was of other moments.
  let size = before;
  let looks = WRITE_MS / LOOK_MS;
  const timer = setInterval(() => {
    const present = statSync(path, { throwIfNoEntry: false })?.size ?? before;
    const isWhole = present > before && present === size;
    size = present;
    if (!isWhole && --looks > 0) return;
    clearInterval(timer);
    readFile(path, (_, all) => done(all?.toString('utf8', before).trimEnd() || UNKNOWN_STACKS));
  }, LOOK_MS);
}
