/**
 * Signals to processes whose pids the master was told. Started as root with --user it may signal every process of the machine, and
 * the pids come from processes of that user, so that the app could name anybody's. Then it signals only what the user could.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import type { Owner } from './owner.ts';

export class WorkerPids {
  /** Null: who tells a pid has the rights of the master or is the master, or this is no Linux. */
  private readonly uid: number | null;
  private readonly parents: () => readonly number[];

  /** `parents`: processes with the master's rights that fork some which give theirs up later. */
  constructor(owner: Owner | null, parents: () => readonly number[]) {
    const isOther = owner !== null && owner.uid !== process.geteuid?.();
    this.uid = isOther && existsSync('/proc/self/status') ? owner.uid : null;
    this.parents = parents;
  }

  /** Who tells a pid could as well send the signal. */
  get areTrusted(): boolean {
    return this.uid === null;
  }

  /** Whether it may be sent a signal. */
  allows(pid: number): boolean {
    if (!isPid(pid)) return false;
    if (this.uid === null) return true;
    const status = read(`/proc/${pid}/status`);
    // By the real user, as kill(2).
    if (Number(/^Uid:\t(\d+)/m.exec(status)?.[1]) === this.uid) return true;
    return this.parents().includes(Number(/^PPid:\t(\d+)/m.exec(status)?.[1]));
  }

  /** Ends it and its whole group, also where it has just been forked and leads none yet. */
  kill(pid: number): void {
    this.killGroup(pid);
    if (this.allows(pid)) send(pid, 'SIGKILL');
  }

  /** Ends what there is of its group. */
  killGroup(pid: number): void {
    if (!isPid(pid)) return;
    const members = this.uid === null ? [] : membersOf(pid);
    if (this.uid === null || (members.length > 0 && members.every((one) => this.allows(one)))) send(-pid, 'SIGKILL');
    else for (const one of members) if (this.allows(one)) send(one, 'SIGKILL');
  }
}

/** To kill(2), 0, 1 and what is below are not one process of ours. */
function isPid(pid: number): boolean {
  return Number.isInteger(pid) && pid > 1;
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // There is nobody.
  }
}

function membersOf(group: number): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  // proc_pid_stat(5): behind the name, which may hold parentheses too, come state, parent and group.
  return pids.map(Number).filter((pid) => Number(/^.*\) \S \d+ (\d+)/s.exec(read(`/proc/${pid}/stat`))?.[1]) === group);
}

/** Empty: it is gone. */
function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
