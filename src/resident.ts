/** Resident memory of processes, through pidusage. */
import { createRequire } from 'node:module';
import type pidusage from 'pidusage';

let usage: typeof pidusage | null = null;

/** Loads pidusage where something is to be measured. `import()` has given Node 20 an empty module, with more than one under way. */
function loaded(): typeof pidusage {
  usage ??= createRequire(import.meta.url)('pidusage') as typeof pidusage;
  return usage;
}

/** For so long pidusage keeps a descriptor of each process, for the next time. */
const HISTORY_MS = 5000;
let turn: Promise<unknown> = Promise.resolve();

/**
 * In bytes, by pid; without those that have ended. One call after the other: when two see a process for the first time at once,
 * pidusage opens it twice and forgets one of the descriptors.
 */
export function residentMemory(pids: readonly number[]): Promise<ReadonlyMap<number, number>> {
  const found = turn.then(() => read(pids));
  turn = found;
  return found;
}

async function read(pids: readonly number[]): Promise<ReadonlyMap<number, number>> {
  if (pids.length === 0) return new Map();
  try {
    const found = await loaded()([...pids], { maxage: HISTORY_MS });
    return new Map(Object.entries(found).flatMap(([pid, one]) => (one ? [[Number(pid), one.memory]] : [])));
  } catch {
    return new Map(); // the only one has just died, or nothing can be read now
  }
}
