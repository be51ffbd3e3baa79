/**
 * The limits that a sizing measures under, imposed on the server: by a cgroup v2 of its own where one can be made, which is what a
 * container does, else by pinning it to some of the cores. Memory can be limited by a cgroup only; else it is watched.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { NunicornError } from '../errors.ts';
import { readMachine, usableProcessors } from '../machine.ts';
import { MEMORY_SHARE } from './plan.ts';
import { coreSet, read } from './proc.ts';

export interface Wanted {
  readonly cpus?: number;
  readonly memoryMb?: number;
}

/** Where it reads and writes; a test has files of its own. */
export interface Places {
  /** The text of a file below /proc or /sys; undefined if it cannot be read. */
  readonly read: (path: string) => string | undefined;
  /** Where cgroup v2 is mounted. */
  readonly cgroup: string;
}

export interface Imposed {
  /** How the server is kept to its cores: `none` if it may use all that this process may. */
  readonly cpu: 'cgroup v2' | 'CPU affinity' | 'none';
  readonly memory: 'cgroup v2' | 'watched' | 'none';
  /** Cores, or parts of them, that the server may use: what predictions are made with. */
  readonly cores: number;
  readonly serverCores: ReadonlySet<number>;
  /** The generator, and who directs it, run on other cores than the server. */
  readonly apart: boolean;
  /** The generator has no core for itself. */
  readonly shared: boolean;
  /** For the user: what could not be imposed, and why. */
  readonly notes: readonly string[];
  /** How to start a server, and the generator, under these limits. */
  readonly server: (command: readonly string[]) => readonly string[];
  readonly generator: (command: readonly string[]) => readonly string[];
  /** How long the quota has held servers back so far, in ms. */
  readonly throttledMs: () => number;
  /** Moves this process away from the server's cores, if there are others. */
  readonly stepAside: () => void;
  readonly release: () => void;
}

const SYSTEM: Places = { read, cgroup: '/sys/fs/cgroup' };
const PERIOD_US = 100_000;
const MB = 1024 * 1024;

/** @throws {NunicornError} if more is wanted than this machine, or container, has */
export function impose(wanted: Wanted, places: Places = SYSTEM): Imposed {
  const allowed = [...allowedCores(places)].sort((a, b) => a - b);
  const usable = usableProcessors(readMachine(places.read));
  const cpus = wanted.cpus ?? usable;
  if (cpus > usable)
    throw new NunicornError(
      `--cpus ${cpus}: ${showCores(usable)} can be used here${usable < allowed.length ? ' (by the quota of the cgroup)' : ''}: ask for that or less`,
    );
  const group = wanted.cpus === undefined && wanted.memoryMb === undefined ? undefined : makeGroup(wanted, places);
  const notes = group !== undefined && 'problem' in group ? [group.problem] : [];
  const made = group !== undefined && 'folder' in group ? group : undefined;
  const byGroup = wanted.cpus !== undefined && made !== undefined;
  const pinned = wanted.cpus !== undefined && !byGroup && cpus < allowed.length;
  const whole = Math.max(1, Math.ceil(cpus));
  if (pinned && whole !== cpus)
    notes.push(`${cpus} CPUs cannot be imposed by pinning: measured on ${showCores(whole)} instead`);
  if (wanted.memoryMb !== undefined && made === undefined)
    notes.push(
      `the memory limit is not imposed but watched: settings that need more than ${MEMORY_SHARE * 100} % of it are not recommended`,
    );
  // Interrupts usually go to the first cores: the generator's.
  const serverCores = pinned ? allowed.slice(-whole) : allowed;
  const rest = pinned ? allowed.slice(0, -whole) : [];
  const shared = pinned ? rest.length === 0 : cpus + 1 > allowed.length;
  let servers = 0;
  return {
    cpu: byGroup ? 'cgroup v2' : pinned ? 'CPU affinity' : 'none',
    memory: wanted.memoryMb === undefined ? 'none' : made === undefined ? 'watched' : 'cgroup v2',
    cores: pinned ? whole : cpus,
    serverCores: new Set(serverCores),
    apart: rest.length > 0,
    shared,
    notes,
    server: (command) =>
      made !== undefined
        ? ['sh', '-c', 'echo $$ > "$0" && exec "$@"', made.enter(`server-${++servers}`), ...command]
        : pinned
          ? ['taskset', mask(serverCores), ...command]
          : command,
    generator: (command) => (rest.length > 0 ? ['taskset', mask(rest), ...command] : command),
    throttledMs: () =>
      made === undefined
        ? 0
        : Number(/^throttled_usec (\d+)/m.exec(read(join(made.folder, 'cpu.stat')) ?? '')?.[1] ?? 0) / 1000,
    stepAside: () => {
      if (rest.length === 0) return;
      try {
        execFileSync('taskset', ['-a', '-p', mask(rest), String(process.pid)], { stdio: 'ignore' });
      } catch {
        // It does little while a window is measured; where it does that is of little weight.
      }
    },
    release: () => {
      made?.remove();
    },
  };
}

function showCores(cores: number): string {
  return `${cores} ${cores === 1 ? 'core' : 'cores'}`;
}

function allowedCores(places: Places): ReadonlySet<number> {
  return coreSet(/^Cpus_allowed_list:\s*(\S+)/m.exec(places.read('/proc/self/status') ?? '')?.[1] ?? '0');
}

/** Our own group in the version 2 hierarchy, e.g. `/user.slice/x`; undefined where there is none. */
function ownGroup(places: Places): string | undefined {
  return /^0::(\/.*)$/m.exec(places.read('/proc/self/cgroup') ?? '')?.[1];
}

interface Group {
  readonly folder: string;
  /** Makes the group of one server; whoever writes its pid to the file that is returned is in it. */
  readonly enter: (name: string) => string;
  readonly remove: () => void;
}

/**
 * Makes a group below our own, or beside it: a group that has processes cannot hand controllers down. The quota is its own, as one
 * server at a time has load; the memory limit is each server's, as several are kept running.
 */
function makeGroup({ cpus, memoryMb }: Wanted, places: Places): Group | { readonly problem: string } {
  const { cgroup } = places;
  const own = ownGroup(places);
  const needed = [...(cpus === undefined ? [] : ['cpu']), ...(memoryMb === undefined ? [] : ['memory'])];
  if (own === undefined || read(join(cgroup, 'cgroup.controllers')) === undefined)
    return { problem: 'no cgroup could be made: there is no cgroup v2 at /sys/fs/cgroup' };
  let problem = '';
  for (const parent of new Set([own, dirname(own)])) {
    const folder = join(cgroup, parent, `nunicorn-size-${process.pid}`);
    const children: string[] = [];
    const remove = (): void => {
      for (const each of [...children, folder]) removeGroup(each);
    };
    try {
      mkdirSync(folder);
    } catch (error) {
      problem = reason(error);
      continue;
    }
    try {
      handDown(join(cgroup, parent), folder, needed);
      if (cpus !== undefined) writeFileSync(join(folder, 'cpu.max'), `${Math.round(cpus * PERIOD_US)} ${PERIOD_US}`);
      if (memoryMb !== undefined) writeFileSync(join(folder, 'cgroup.subtree_control'), '+memory');
    } catch (error) {
      problem = reason(error);
      remove();
      continue;
    }
    const enter = (name: string): string => {
      const child = join(folder, name);
      mkdirSync(child);
      children.push(child);
      if (memoryMb !== undefined) writeFileSync(join(child, 'memory.max'), String(Math.round(memoryMb * MB)));
      return join(child, 'cgroup.procs');
    };
    return { folder, enter, remove };
  }
  return { problem: `no cgroup could be made (${problem})` };
}

/** A controller is there if the parent hands it down; it is asked to where it does not yet. */
function handDown(parent: string, folder: string, needed: readonly string[]): void {
  const has = (controller: string): boolean =>
    (read(join(folder, 'cgroup.controllers')) ?? '').split(/\s+/).includes(controller);
  for (const controller of needed)
    if (!has(controller)) writeFileSync(join(parent, 'cgroup.subtree_control'), `+${controller}`);
}

/** Its processes have been waited for; should one still be there the group stays, empty soon and without effect. */
function removeGroup(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // See above.
  }
}

function reason(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}

/** For taskset: a mask, which busybox knows too. */
function mask(cores: readonly number[]): string {
  return `0x${cores.reduce((bits, core) => bits | (1n << BigInt(core)), 0n).toString(16)}`;
}
