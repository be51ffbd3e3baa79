/** How many descriptors a front may use for its clients. The others are for its workers, who could not be reached without. */
import { readFileSync } from 'node:fs';

const MAX_RESERVE = 500;
/** What the process itself has open: logs, listening sockets, what Node needs. */
const OWN = 32;

/** What the process may have open; Infinity where the system does not say (only Linux does). Node has raised it to the hard limit. */
export function descriptorLimit(): number {
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

/** `forWorkers`: what the connections to its workers take. */
export function clientDescriptors(forWorkers: number, limit: number): ClientDescriptors {
  const spare = limit === Number.POSITIVE_INFINITY ? 0 : Math.min(MAX_RESERVE, Math.ceil(limit / 4)) / 2;
  // A worker's connections are there beside those of its replacement; but clients keep half of what may be needed for that.
  const rest = Math.max(0, limit - OWN - forWorkers);
  const forRefusals = Math.max(2, limit - Math.max(spare, OWN + forWorkers + Math.min(forWorkers, rest / 2)));
  return { limit, forClients: Math.max(1, forRefusals - spare), forRefusals };
}

/** A line for the log where the workers leave little to the clients, else null. */
export function descriptorShortage(forWorkers: number, { limit, forClients }: ClientDescriptors): string | null {
  if (forClients >= limit / 2) return null;
  return (
    `Of ${limit} descriptors (ulimit -n, LimitNOFILE= of systemd) ${Math.floor(forClients)} are left for clients: ` +
    `the threads of the workers need ${forWorkers}, and as many when they are replaced`
  );
}
