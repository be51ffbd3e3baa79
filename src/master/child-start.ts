/**
 * The beginning of a process that the master starts. What the system refuses is told by the event `error`, for some reasons (EAGAIN,
 * EMFILE) by Node itself, which throws others (ENOMEM, E2BIG for an environment too large): uncaught, that is the end of the server.
 */
import { ChildProcess } from 'node:child_process';
import cluster, { Worker } from 'node:cluster';

/** What `start` starts. */
export function startChild(start: () => ChildProcess): ChildProcess {
  try {
    return start();
  } catch (error) {
    return refused(error);
  }
}

/** Not one of node:cluster's: those are numbered from 1. */
const NO_ID = 0;

/** As `cluster.fork`. */
export function forkWorker(env: Readonly<Record<string, string>> = {}): Worker {
  try {
    return cluster.fork(env);
  } catch (error) {
    return Reflect.construct(Worker, [{ id: NO_ID, process: refused(error) }]) as Worker;
  }
}

/** A process that never is. */
function refused(error: unknown): ChildProcess {
  const child = new ChildProcess();
  child.kill = () => false; // Node's would send the signal to process 0: to this process and its group
  process.nextTick(() => child.emit('error', error));
  return child;
}
