/** How many descriptors a front may use for its clients. What is left is for the workers, who could not be reached without. */
import { readFileSync } from 'node:fs';

const MAX_RESERVE = 500;

/** What the process may have open; Infinity where the system does not say (only Linux does). Node has raised it to the hard limit. */
function descriptorLimit(): number {
  try {
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
    return limit === undefined ? Number.POSITIVE_INFINITY : Number(limit);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

export interface ClientDescriptors {
  readonly limit: number;
  /** For connections and bodies in files, all together. */
  readonly forClients: number;
  /** Connections above `forClients` are still told that there are too many, up to here. */
  readonly forRefusals: number;
}

export function clientDescriptors(limit = descriptorLimit()): ClientDescriptors {
  const reserve = limit === Number.POSITIVE_INFINITY ? 0 : Math.min(MAX_RESERVE, Math.ceil(limit / 4));
  return { limit, forClients: limit - reserve, forRefusals: limit - reserve / 2 };
}
