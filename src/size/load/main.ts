/**
 * The load generator as a process of its own. It gets `LoadOptions` as messages from the process that started it, runs one
 * after the other, and answers each with a `LoadResult`. It ends with its parent, and then ends the servers that it was told
 * of: should the parent be killed, nobody else would.
 */
import { tellParent } from '../../parent.ts';
import { type LoadOptions, runLoad } from './load.ts';

export type ToGenerator =
  | { readonly op: 'run'; readonly options: LoadOptions }
  /** A server runs, or does not any more. */
  | { readonly op: 'server'; readonly pid: number; readonly runs: boolean };

const servers = new Set<number>();

process.on('message', (message: ToGenerator) => {
  switch (message.op) {
    case 'run':
      void runLoad(message.options).then(tellParent);
      break;
    case 'server':
      if (message.runs) servers.add(message.pid);
      else servers.delete(message.pid);
      break;
  }
});
process.on('disconnect', () => {
  for (const pid of servers) {
    try {
      process.kill(pid, 'SIGTERM');
    } catch {
      // Already gone.
    }
  }
  process.exit(0);
});
// Ctrl-C goes to every process of the terminal; the parent decides what ends when.
process.on('SIGINT', () => {});
