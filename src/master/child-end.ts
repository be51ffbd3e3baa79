/** The end of a process that the master has started, or that it had no beginning. */
import type { ChildProcess } from 'node:child_process';

/**
 * Calls one of the two, once. Where the system has no process or descriptor left, Node tells an `error` and never an `exit`.
 * Any other `error` is of a message to a process that has just died, whose `exit` is told too.
 */
export function onEnd(
  child: ChildProcess,
  notStarted: (why: string) => void,
  ended: (code: number | null, signal: NodeJS.Signals | null) => void,
): void {
  let told = false;
  child.on('error', (error) => {
    if (child.pid !== undefined || told) return;
    told = true;
    notStarted(error.message);
  });
  child.on('exit', ended);
}
