/** Server processes: starting them on their cores, what their trees have used, and their end. */

import { execFileSync, spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Memory {
  readonly processes: number;
  readonly pssMb: number;
  /** Private_Clean + Private_Dirty. */
  readonly privateMb: number;
}

export interface StartOptions {
  /** As `taskset -c` takes them; undefined: not pinned. */
  readonly cores: string | undefined;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

export const TICK_NS = 1e9 / Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
const MB = 1024 * 1024;
const STOP_WITHIN_MS = 10_000;
const OUTPUT_TAIL = 10_000;

const running = new Set<Program>();

export function pinned(cores: string | undefined, command: readonly string[]): string[] {
  return cores === undefined ? [...command] : ['taskset', '-c', cores, ...command];
}

/** Something we started, in a session of its own. `taskset` execs, so the pid is that of the program itself. */
export class Program {
  readonly pid: number;
  /** Resolves at the exit, to whether it was with status 0. */
  readonly ended: Promise<boolean>;
  /** The end of what it wrote. */
  stdout = '';
  stderr = '';
  exited = false;

  constructor(command: readonly string[], { cores, env, cwd }: StartOptions) {
    const [file = '', ...args] = pinned(cores, command);
    const child = spawn(file, args, {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
      cwd,
    });
    child.stdout.on('data', (data) => {
      this.stdout = (this.stdout + data).slice(-OUTPUT_TAIL);
    });
    child.stderr.on('data', (data) => {
      this.stderr = (this.stderr + data).slice(-OUTPUT_TAIL);
    });
    this.ended = new Promise((resolve) => {
      child.on('error', (error) => {
        this.stderr += error.message;
        resolve(false);
      });
      child.on('close', (code) => {
        this.exited = true;
        resolve(code === 0);
      });
    });
    if (child.pid === undefined) throw new Error(`cannot start ${file}`);
    this.pid = child.pid;
    running.add(this);
  }

  /** Ends the whole tree. Returns how many processes had to be killed because they outlived SIGTERM. */
  async stop(): Promise<number> {
    const tree = readTree(this.pid);
    signal(this.pid, 'SIGTERM');
    const deadline = Date.now() + STOP_WITHIN_MS;
    while (Date.now() < deadline && tree.some(isAlive)) await sleep(20);
    const killed = this.kill(tree);
    running.delete(this);
    return killed;
  }

  kill(tree: readonly Process[] = readTree(this.pid)): number {
    const left = tree.filter(isAlive);
    for (const { pid } of left) signal(pid, 'SIGKILL');
    return left.length;
  }
}

/** Runs a program to its end and returns its stdout. Throws if it fails or takes too long. */
export async function runToEnd(
  command: readonly string[],
  options: StartOptions & { readonly timeoutMs: number },
): Promise<string> {
  const program = new Program(command, options);
  const deadline = setTimeout(() => program.kill(), options.timeoutMs);
  const ok = await program.ended;
  clearTimeout(deadline);
  running.delete(program);
  if (!ok) throw new Error(`${command.join(' ')}: ${program.stderr || 'killed: it took too long'}`);
  return program.stdout;
}

/** For the end of the run, whatever its reason: nothing we started outlives it. */
export function killAll(): void {
  for (const program of running) program.kill();
  running.clear();
}

interface Process {
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

/** proc_pid_stat(5); undefined once the process is gone. */
function readProcess(pid: number): Process | undefined {
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
    ownNs: (field(14) + field(15)) * TICK_NS,
    childrenNs: (field(16) + field(17)) * TICK_NS,
    startedAt: field(22),
  };
}

/** The process, its descendants, and whoever is left in its session after losing a parent. */
function readTree(root: number): Process[] {
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

function isAlive({ pid, startedAt }: Process): boolean {
  const now = readProcess(pid);
  return now !== undefined && now.startedAt === startedAt && !now.zombie;
}

/**
 * CPU time of the whole tree so far, in ns. The kernel adds a running thread's slice at the next timer tick, so a
 * reading of a busy server may be a few milliseconds short.
 *
 * The scheduler's per-thread sums are exact but vanish with their thread; the ticks of the process keep them but are
 * rounded down to 10 ms. So: the larger of the two. Children that ended and were waited for are in their parent's ticks.
 */
export function cpuNs(root: number): number {
  let total = 0;
  for (const found of readTree(root)) {
    total += Math.max(found.ownNs, threadsNs(found.pid)) + found.childrenNs;
  }
  return total;
}

/** Sum of sum_exec_runtime over the threads (/proc/PID/task/TID/schedstat, first field). */
function threadsNs(pid: number): number {
  let sum = 0;
  for (const tid of readDirectory(`/proc/${pid}/task`))
    sum += Number(read(`/proc/${pid}/task/${tid}/schedstat`)?.split(' ')[0] ?? 0);
  return sum;
}

export function memoryOfTree(root: number): Memory {
  return memoryOf(readTree(root).map(({ pid }) => pid));
}

/** The started process and those of its children that run the same program: nunicorn's master and its fronts. */
export function memoryOfSameProgram(root: number): Memory {
  const program = readLink(`/proc/${root}/exe`);
  const children = readTree(root).filter(
    ({ pid, parent }) => parent === root && readLink(`/proc/${pid}/exe`) === program,
  );
  return memoryOf([root, ...children.map(({ pid }) => pid)]);
}

function memoryOf(pids: readonly number[]): Memory {
  let pss = 0;
  let unshared = 0;
  for (const pid of pids) {
    for (const [, name, kib] of (read(`/proc/${pid}/smaps_rollup`) ?? '').matchAll(/^(\w+): +(\d+) kB$/gm)) {
      if (name === 'Pss') pss += Number(kib) * 1024;
      else if (name === 'Private_Clean' || name === 'Private_Dirty') unshared += Number(kib) * 1024;
    }
  }
  return { processes: pids.length, pssMb: pss / MB, privateMb: unshared / MB };
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Already gone.
  }
}

function read(path: string): string | undefined {
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
