/** What a process has started. A worker of node:cluster leads no process group by which all of that could be ended. */
import { readdirSync, readFileSync } from 'node:fs';

/** Ends a process by `signal`, and all that it has started and that still has it for an ancestor by SIGKILL (Linux; elsewhere the process alone). */
export function killWithDescendants(pid: number, signal: NodeJS.Signals): void {
  send(pid, 'SIGSTOP'); // it starts nothing more
  const descendants = descendantsOf(pid);
  send(pid, signal);
  send(pid, 'SIGCONT');
  for (const one of descendants) send(one, 'SIGKILL');
}

function descendantsOf(pid: number): number[] {
  return childrenOf(pid).flatMap((child) => [child, ...descendantsOf(child)]);
}

function childrenOf(pid: number): number[] {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    return threads.flatMap((id) => {
      const pids = readFileSync(`/proc/${pid}/task/${id}/children`, 'latin1').trim();
      return pids === '' ? [] : pids.split(' ').map(Number);
    });
  } catch {
    return []; // it is gone, or this is no Linux
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It is gone.
  }
}
