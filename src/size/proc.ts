/** What Linux tells of processes and cores: CPU time of a process tree, its memory, and who else uses the cores. */

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface Memory {
  readonly processes: number;
  /** Proportional set size: shared pages count by the part of each process that maps them. */
  readonly pssMb: number;
  /** Private_Clean + Private_Dirty. */
  readonly privateMb: number;
  readonly swapMb: number;
}

export interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly session: number;
  readonly zombie: boolean;
  /** Own utime + stime, with what its exited threads used, in whole ticks. */
  readonly ownNs: number;
  /** The same of children that exited and were waited for. */
  readonly childrenNs: number;
  /** In ticks since boot; with the pid it names the process. */
  readonly startedAt: number;
}

const MB = 1024 * 1024;
let tickNs: number | undefined;

/** The unit of CPU times in /proc. */
function tick(): number {
  tickNs ??= 1e9 / Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
  return tickNs;
}

/** proc_pid_stat(5); undefined once the process is gone. */
export function readProcess(pid: number): Process | undefined {
  const stat = read(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The command stands in brackets and may hold anything: count from the last one. The first field after it is 3, state.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const field = (number: number): number => Number(fields[number - 3]);
  return {
    pid,
    parent: field(4),
    session: field(6),
    zombie: fields[0] === 'Z',
    ownNs: (field(14) + field(15)) * tick(),
    childrenNs: (field(16) + field(17)) * tick(),
    startedAt: field(22),
  };
}

/** The process, its descendants, and whoever is left in its session after losing a parent. */
export function readTree(root: number): Process[] {
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => readProcess(Number(name)))
    .filter((found) => found !== undefined);
  const tree = all.filter(({ pid, session }) => pid === root || session === root);
  const inTree = new Set(tree.map(({ pid }) => pid));
  for (let before = -1; before !== tree.length; ) {
    before = tree.length;
    for (const found of all) {
      if (inTree.has(found.pid) || !inTree.has(found.parent)) continue;
      inTree.add(found.pid);
      tree.push(found);
    }
  }
  return tree;
}

export function isAlive({ pid, startedAt }: Process): boolean {
  const now = readProcess(pid);
  return now !== undefined && now.startedAt === startedAt && !now.zombie;
}

/** CPU time of the whole tree so far, in ns. */
export function cpuNs(root: number): number {
  return cpuNsOf(readTree(root));
}

/**
 * CPU time of some processes so far, in ns. The kernel adds a running thread's slice at the next timer tick, so a reading of a
 * busy server may be a few milliseconds short.
 *
 * The scheduler's per-thread sums are exact but vanish with their thread; the ticks of the process keep them but are
 * rounded down to 10 ms. So: the larger of the two. Children that ended and were waited for are in their parent's ticks.
 */
export function cpuNsOf(processes: readonly Process[]): number {
  let total = 0;
  for (const { pid, ownNs, childrenNs } of processes) total += Math.max(ownNs, threadsNs(pid, 0)) + childrenNs;
  return total;
}

/** Time that threads of some processes were ready to run while no core was free for them, in ns. */
export function runDelayNsOf(processes: readonly Process[]): number {
  return processes.reduce((total, { pid }) => total + threadsNs(pid, 1), 0);
}

/** CPU time, and time ready to run without a core, of the main thread of each process, in ns. */
export function mainThreadNsOf(processes: readonly Process[]): { readonly cpuNs: number; readonly delayNs: number } {
  let [cpuNs, delayNs] = [0, 0];
  for (const { pid } of processes) {
    const [cpu = '0', delay = '0'] = read(`/proc/${pid}/task/${pid}/schedstat`)?.split(' ') ?? [];
    cpuNs += Number(cpu);
    delayNs += Number(delay);
  }
  return { cpuNs, delayNs };
}

/** Sum over the threads of a field of /proc/PID/task/TID/schedstat: 0 is sum_exec_runtime, 1 is run_delay. */
function threadsNs(pid: number, field: 0 | 1): number {
  let sum = 0;
  for (const tid of readDirectory(`/proc/${pid}/task`))
    sum += Number(read(`/proc/${pid}/task/${tid}/schedstat`)?.split(' ')[field] ?? 0);
  return sum;
}

export function memoryOfTree(root: number): Memory {
  return memoryOf(readTree(root).map(({ pid }) => pid));
}

/** The started process and those of its children that run the same program: nunicorn's master and its fronts. */
export function memoryOfSameProgram(root: number): Memory {
  return memoryOf(sameProgram(root, readTree(root)).map(({ pid }) => pid));
}

export function sameProgram(root: number, tree: readonly Process[]): readonly Process[] {
  const program = readLink(`/proc/${root}/exe`);
  return tree.filter(
    ({ pid, parent }) => pid === root || (parent === root && readLink(`/proc/${pid}/exe`) === program),
  );
}

export function memoryOf(pids: readonly number[]): Memory {
  let pss = 0;
  let unshared = 0;
  let swap = 0;
  for (const pid of pids) {
    for (const [, name, kib] of (read(`/proc/${pid}/smaps_rollup`) ?? '').matchAll(/^(\w+): +(\d+) kB$/gm)) {
      if (name === 'Pss') pss += Number(kib) * 1024;
      else if (name === 'Private_Clean' || name === 'Private_Dirty') unshared += Number(kib) * 1024;
      else if (name === 'Swap') swap += Number(kib) * 1024;
    }
  }
  return { processes: pids.length, pssMb: pss / MB, privateMb: unshared / MB, swapMb: swap / MB };
}

/** Time in which some cores were not idle, in ns (proc_stat(5), in ticks). */
export function coresBusyNs(cores: ReadonlySet<number>): number {
  let ticks = 0;
  for (const [, core, times] of readFileSync('/proc/stat', 'utf8').matchAll(/^cpu(\d+) (.*)$/gm)) {
    if (!cores.has(Number(core))) continue;
    // user, nice, system, idle, iowait, irq, softirq, steal; the guest times after them are part of user.
    const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = (times ?? '').split(' ').map(Number);
    ticks += user + nice + system + irq + softirq + steal;
  }
  return ticks * tick();
}

/** `0-2,5`, as taskset and the kernel write it. */
export function coreSet(cores: string): ReadonlySet<number> {
  const set = new Set<number>();
  for (const range of cores.split(',').filter((each) => each !== '')) {
    const [from = 0, to = from] = range.split('-').map(Number);
    for (let core = from; core <= to; core++) set.add(core);
  }
  return set;
}

/** A line of /proc/meminfo, in MB. */
export function memoryInfoMb(name: 'MemTotal' | 'MemAvailable'): number {
  const kib = new RegExp(`^${name}: +(\\d+) kB`, 'm').exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
  return Number(kib) / 1024;
}

export function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function readDirectory(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
