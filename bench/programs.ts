/** Server processes: starting them on their cores, and their end. */

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { getPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isAlive, type Process, readTree } from '../src/size/proc.ts';

export interface StartOptions {
  /** As `taskset -c` takes them; undefined: not pinned. */
  readonly cores: string | undefined;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

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
    keepNiceness(child.pid);
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

/** Nothing we started outlives this. */
export function killAll(): void {
  for (const program of running) program.kill();
  running.clear();
}

/** A folder for what is started to write to. At the end of the run, whatever its reason, it goes, and nothing we started outlives it. */
export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'nunicorn-bench-'));
  process.env.TMPDIR = folder;
  process.on('exit', () => {
    killAll();
    rmSync(folder, { recursive: true, force: true });
  });
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => process.exit(130));
  return folder;
}

/**
 * A session has a niceness of its own where the kernel groups by session (sched(7), autogroup), and that of its processes
 * means nothing beyond it: `nice npm run bench` would reach nothing that is measured.
 */
function keepNiceness(pid: number): void {
  const niceness = getPriority();
  if (niceness === 0) return;
  try {
    writeFileSync(`/proc/${pid}/autogroup`, String(niceness));
  } catch {
    // No such grouping here, or it has ended.
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Already gone.
  }
}
