/**
 * The beginning of a process that the master starts. What the system refuses is told by the event `error`, for some reasons (EAGAIN,
 * EMFILE) by Node itself, which throws others (ENOMEM, E2BIG for an environment too large): uncaught, that is the end of the server.
 */
import { ChildProcess } from 'node:child_process';
import cluster, { Worker } from 'node:cluster';
import { constants } from 'node:os';

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
    const worker = cluster.fork(env);
    refuseRights(worker);
    return worker;
  } catch (error) {
    return Reflect.construct(Worker, [{ id: NO_ID, process: refused(error) }]) as Worker;
  }
}

/** As node:cluster's processes ask the primary for a listening socket. `fd` is one of the primary's. */
interface ListenQuestion {
  readonly cmd?: unknown;
  readonly act?: unknown;
  readonly seq?: unknown;
  readonly port?: unknown;
  /** 4, 6, `udp4`, `udp6`, or -1 for a Unix socket. */
  readonly addressType?: unknown;
  readonly fd?: unknown;
}

const FIRST_FREE_PORT = 1024;

/**
 * With --user: what such a process listens at by itself the primary opens for it, with the rights of root. Then it opens what needs
 * none of these, and everything else is answered as the system would answer the process.
 */
function refuseRights({ process: child }: Worker): void {
  const { uid } = cluster.settings;
  if (uid === undefined || uid === process.geteuid?.()) return;
  const emit = child.emit.bind(child) as (event: string | symbol, ...args: unknown[]) => boolean;
  child.emit = (event: string | symbol, ...args: unknown[]): boolean => {
    const { cmd, act, seq, port, addressType, fd } = (args[0] ?? {}) as ListenQuestion;
    if (event !== 'internalMessage' || cmd !== 'NODE_CLUSTER' || act !== 'queryServer') return emit(event, ...args);
    const isFree = typeof port === 'number' && (port === 0 || port >= FIRST_FREE_PORT);
    const ownsFd = typeof fd === 'number' && fd >= 0;
    if (isFree && !ownsFd && addressType !== -1) return emit(event, ...args);
    child.send({ cmd: 'NODE_CLUSTER', ack: seq, errno: -constants.errno.EACCES });
    return true;
  };
}

/** A process that never is. */
function refused(error: unknown): ChildProcess {
  const child = new ChildProcess();
  child.kill = () => false; // Node's would send the signal to process 0: to this process and its group
  process.nextTick(() => child.emit('error', error));
  return child;
}
