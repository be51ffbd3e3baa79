/** Resident memory of processes, through pidusage. */
import { createRequire } from 'node:module';
import type pidusage from 'pidusage';

let usage: typeof pidusage | null = null;

/** Loads pidusage where something is to be measured. `import()` has given Node 20 an empty module, with more than one under way. */
function loaded(): typeof pidusage {
  usage ??= createRequire(import.meta.url)('pidusage') as typeof pidusage;
  return usage;
}

/**
 * In bytes, by pid; without those that have ended.
 *
 * @param historyMs for how long a descriptor of each process is kept, for the next time
 */
export async function residentMemory(
  pids: readonly number[],
  historyMs?: number,
): Promise<ReadonlyMap<number, number>> {
  if (pids.length === 0) return new Map();
  try {
    const found = await loaded()([...pids], historyMs === undefined ? {} : { maxage: historyMs });
    return new Map(Object.entries(found).flatMap(([pid, one]) => (one ? [[Number(pid), one.memory]] : [])));
  } catch {
    return new Map(); // the only one has just died, or nothing can be read now
  }
}
