/** Node opens its debugger, a port for whoever can reach it, on SIGUSR1: the signal that asks a server for new log files. */
import { close, url } from 'node:inspector';

const ASKS = /^--inspect(-brk|-wait)?(=|$)/;

/** From Node 22 on the signal opens it twice: at once, and when the event loop turns next. */
const AGAIN_MS = 100;

/**
 * Closes the debugger if a SIGUSR1 has opened it that came before the process could have a listener for it. One that the user has
 * asked for stays.
 */
export function closeDebugger(): void {
  const options = [...process.execArgv, ...(process.env.NODE_OPTIONS ?? '').split(' ')];
  if (url() === undefined || options.some((option) => ASKS.test(option))) return;
  close();
  // Immediates come after what the turn has brought.
  setTimeout(() => setImmediate(closeDebugger), AGAIN_MS).unref();
}
