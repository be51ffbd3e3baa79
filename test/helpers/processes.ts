import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';

export interface ProcessInfo {
  readonly pid: number;
  readonly ppid: number;
  readonly state: string;
  readonly title: string;
  /** Name of the executable, `node` or `python3.11`; empty for a zombie. */
  readonly exe: string;
}

function readProcess(pid: number): ProcessInfo | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name in parentheses may itself hold spaces and parentheses.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    let exe = '';
    let title = '';
    try {
      title = readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim();
      exe = basename(readlinkSync(`/proc/${pid}/exe`));
    } catch {
      // A zombie has neither.
    }
    return { pid, ppid: Number(fields[1]), state: fields[0] ?? '?', title, exe };
  } catch {
    return undefined;
  }
}

export function allProcesses(): ProcessInfo[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => readProcess(Number(name)))
    .filter((info) => info !== undefined);
}

function hasMarker(pid: number, marker: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(marker);
  } catch {
    return false;
  }
}

/**
 * The processes that belong to one server: its descendants, and whatever else carries its marker in the environment
 * (an orphan has lost its parent but not its environment). `known` remembers earlier findings, so that a process which
 * overwrote its environment and was then orphaned is still recognised.
 */
export function processesOf(root: number, marker: string, known: Set<number>): ProcessInfo[] {
  const all = allProcesses();
  const members = new Set<number>([root]);
  for (let size = 0; size !== members.size; ) {
    size = members.size;
    for (const { pid, ppid } of all) if (members.has(ppid)) members.add(pid);
  }
  const found = all.filter(({ pid }) => members.has(pid) || known.has(pid) || hasMarker(pid, marker));
  for (const { pid } of found) known.add(pid);
  return found;
}

export function isAlive(pid: number): boolean {
  const info = readProcess(pid);
  return info !== undefined && info.state !== 'Z' && info.state !== 'X';
}

/** It may have ended by itself. */
export function killIfAlive(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** A zombie that its own parent has not waited for. Orphans belong to PID 1, which is none of our business. */
export function isUnreaped(info: ProcessInfo): boolean {
  return info.state === 'Z' && info.ppid !== 1;
}

/** Whether all threads of a process wait for something. */
export function isAtRest(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every((tid) =>
    readFileSync(`/proc/${pid}/task/${tid}/stat`, 'latin1').includes(') S '),
  );
}

export function descriptorCount(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** Where each descriptor leads, for the message of a failed comparison. */
export function descriptors(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return `${fd} -> ${readlinkSync(`/proc/${pid}/fd/${fd}`)}`;
    } catch {
      return `${fd} -> gone`;
    }
  });
}

/** Resident set in MiB. */
export function residentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) / 1024;
}

/** Highest resident set so far, in MiB. */
export function peakResidentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) / 1024;
}
