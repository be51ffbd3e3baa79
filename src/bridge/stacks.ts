/** What the threads of a Python process are doing, seen from outside: also while C code holds the interpreter's lock. */
import { existsSync, readFile } from 'node:fs';

/** On it `faulthandler` writes all stacks to the process's file. See nunicorn_worker/worker.py. */
const STACKS_SIGNAL = 'SIGIO';
/** How long the file may take to be written. */
const WRITE_MS = 150;

export const UNKNOWN_STACKS = '(the stack is not known)';

/** Has the process write its stacks to `path` and gives them to `done`. */
export function readStacks(pid: number, path: string, done: (stacks: string) => void): void {
  if (!existsSync(path)) {
    done(UNKNOWN_STACKS); // it has come nowhere yet: the signal would end it
    return;
  }
  try {
    process.kill(pid, STACKS_SIGNAL);
  } catch {
    // It is dead; what it wrote before is all there is.
  }
  setTimeout(() => readFile(path, 'utf8', (_, stacks) => done(stacks?.trimEnd() || UNKNOWN_STACKS)), WRITE_MS);
}
