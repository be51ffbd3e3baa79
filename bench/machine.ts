/** The machine under the benchmark: who runs on which core, and what else is going on there. */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, release } from 'node:os';
import { coreSet, coresBusyNs, cpuNs } from '../src/size/proc.ts';

/** Read before this process is pinned itself. */
const coreCount = availableParallelism();

/** As `taskset -c` takes them; undefined: not pinned. */
export interface Cores {
  readonly server: string | undefined;
  readonly load: string | undefined;
}

/** What was asked for, else the upper half of the cores for the server, the lower, where interrupts usually go, for the load. */
export function chooseCores(server: string | undefined, load: string | undefined): Cores {
  const half = Math.floor(coreCount / 2);
  const range = (from: number, to: number): string | undefined => (half === 0 ? undefined : `${from}-${to}`);
  return { server: server ?? range(half, coreCount - 1), load: load ?? range(0, half - 1) };
}

/**
 * Starts watching; the returned function says which share of a core was taken on our cores by what is not ours. Child
 * processes of this one count as ours, also those that have ended.
 */
export function watchOthers(cores: Cores): () => number {
  const used = new Set([...coreSet(cores.server ?? ''), ...coreSet(cores.load ?? '')]);
  const now = (): { atMs: number; othersNs: number } => ({
    atMs: performance.now(),
    othersNs: coresBusyNs(used) - cpuNs(process.pid),
  });
  const start = now();
  return () => {
    const end = now();
    return Math.max(0, (end.othersNs - start.othersNs) / 1e6 / (end.atMs - start.atMs));
  };
}

/** proc_stat(5): share of all time since the call that was stolen. */
function watchSteal(): () => number {
  const now = (): { all: number; stolen: number } => {
    const fields = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '').split(/ +/).slice(1, 9).map(Number);
    return { all: fields.reduce((sum, value) => sum + value, 0), stolen: fields[7] ?? 0 };
  };
  const start = now();
  return () => {
    const end = now();
    return (end.stolen - start.stolen) / Math.max(1, end.all - start.all);
  };
}

/** Starts watching a run; the returned function says of it, at its end, what its page begins with. */
export function watchRun(cores: Cores, seconds: number): (rounds: number) => Record<string, string> {
  const startedAt = Date.now();
  const steal = watchSteal();
  return (rounds) => ({
    date: new Date(startedAt).toISOString().slice(0, 16).replace('T', ' '),
    duration: `${((Date.now() - startedAt) / 60_000).toFixed(1)} min, ${rounds} rounds of ${seconds} s windows`,
    ...describeMachine(cores),
    steal: `${(steal() * 100).toFixed(1)} % of the time was taken by the hypervisor`,
  });
}

export function pinThisProcess({ load }: Cores): void {
  if (load !== undefined) execFileSync('taskset', ['-a', '-cp', load, `${process.pid}`], { stdio: 'ignore' });
}

function describeMachine(cores: Cores): Record<string, string> {
  return {
    machine: `${cpus()[0]?.model ?? 'unknown'}, ${coreCount} cores, Linux ${release()}`,
    cores: `server on ${cores.server ?? 'any'}, load and nginx on ${cores.load ?? 'any'}`,
  };
}

const DEBIAN_PACKAGES = { wrk: 'wrk', nginx: 'nginx-light', taskset: 'util-linux', python3: 'python3-venv' } as const;

/** Ends the process with a word on how to install what is not there. */
export function requirePrograms(programs: readonly (keyof typeof DEBIAN_PACKAGES)[]): void {
  const missing = programs.filter((program) => {
    try {
      execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' });
      return false;
    } catch {
      return true;
    }
  });
  if (missing.length === 0) return;
  console.error(`Not found: ${missing.join(', ')}.`);
  console.error(`On Debian: apt-get install ${missing.map((program) => DEBIAN_PACKAGES[program]).join(' ')}`);
  process.exit(1);
}
