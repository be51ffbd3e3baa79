/**
 * The numbers that `--workers auto` and `--threads auto` stand for. They follow from the machine alone, before anything is known
 * of the application: a start that is sound everywhere, not the best for each.
 */
import { type Machine, usableMemory, usableProcessors } from '../machine.ts';
import { plural } from '../plural.ts';

export type CountOrAuto = number | 'auto';

export interface Counts {
  readonly workers: number;
  readonly threads: number;
  /** One line with the reasons; undefined if nothing was asked to be chosen. */
  readonly reason: string | undefined;
}

const MIB = 1024 * 1024;
/** What a usual Django application takes. */
const WORKER_MEMORY = 150 * MIB;
/** The master and a front. */
const OWN_MEMORY = 100 * MIB;
/** The rest is for what else runs there, and for the page cache. */
const MEMORY_SHARE = 0.8;
/**
 * Threads of one process help until one of them always has the lock (GIL): 1 + waiting / computing of a request. Three serve an
 * application that waits two thirds of its time, and past that point the slowest requests become several times slower.
 */
const THREADS_PER_PROCESSOR = 3;

/** A worker for each processor as far as there is memory, and three threads for each processor. */
export function chooseCounts(workers: CountOrAuto, threads: CountOrAuto, machine: Machine): Counts {
  if (workers !== 'auto' && threads !== 'auto') return { workers, threads, reason: undefined };
  const processors = usableProcessors(machine);
  const forProcessors = Math.max(1, Math.ceil(processors));
  const forMemory = Math.max(1, Math.floor((usableMemory(machine) * MEMORY_SHARE - OWN_MEMORY) / WORKER_MEMORY));
  const chosenWorkers = workers === 'auto' ? Math.min(forProcessors, forMemory) : workers;
  const each = Math.ceil((THREADS_PER_PROCESSOR * forProcessors) / Math.max(1, chosenWorkers));
  const chosenThreads = threads === 'auto' ? Math.min(THREADS_PER_PROCESSOR, Math.max(1, each)) : threads;
  const chosen = [
    ...(workers === 'auto' ? [plural(chosenWorkers, 'worker')] : []),
    ...(threads === 'auto' ? [`${plural(chosenThreads, 'thread')} each`] : []),
  ].join(' with ');
  return {
    workers: chosenWorkers,
    threads: chosenThreads,
    reason: `auto: ${chosen}, because there are ${describeProcessors(machine)} and ${describeMemory(machine, forMemory)}`,
  };
}

function describeProcessors(machine: Machine): string {
  const { processors, cpuQuota } = machine;
  const there = plural(processors, 'processor');
  return cpuQuota !== null && cpuQuota < processors
    ? `${there}, of whose time the CPU quota allows ${round(cpuQuota)},`
    : there;
}

function describeMemory(machine: Machine, forMemory: number): string {
  const size = `${Math.round(usableMemory(machine) / MIB)} MiB of memory`;
  const room = `room for ${plural(forMemory, 'worker')} of ${WORKER_MEMORY / MIB} MiB`;
  return `${size}${machine.memoryLimit === null ? '' : ' by its limit'}, ${room}`;
}

function round(value: number): string {
  return String(Math.round(value * 100) / 100);
}
