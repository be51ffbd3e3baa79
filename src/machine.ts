/**
 * What of this machine the server may use: processors (affinity mask, CPU quota of the control groups) and memory (limit of the
 * control groups). Node's own answers depend on its version and round quotas: `os.availableParallelism()` ignores them on
 * Node 20 and gives the whole host's count for a quota below one processor on others.
 */
import { readFileSync } from 'node:fs';
import os from 'node:os';
import { join, posix } from 'node:path';

export interface Machine {
  /** Processors that this process may run on: the affinity mask, which `taskset` and cpusets set. */
  readonly processors: number;
  /** CPU quota in processors, such as 1.5; null if there is none. The least of all control groups above this process. */
  readonly cpuQuota: number | null;
  /** Memory of the machine, in bytes. */
  readonly memory: number;
  /** Memory limit of the control groups, in bytes; null if there is none. */
  readonly memoryLimit: number | null;
}

/** Version 1 says so where nothing limits: the largest multiple of a page. */
const NO_LIMIT = 2 ** 62;

/**
 * Of the controller of each version. Above memory.high the kernel kills nobody, but slows everybody down and takes their pages
 * from them (cgroup-v2.rst): whoever waits for memory.max never comes to see it. libuv too takes the lesser of the two.
 */
const MEMORY_FILES = {
  all: { limits: ['memory.max', 'memory.high'], usage: 'memory.current' },
  memory: { limits: ['memory.limit_in_bytes'], usage: 'memory.usage_in_bytes' },
} as const;

/** The text of a file, or undefined if it cannot be read. */
type ReadFile = (path: string) => string | undefined;

/** @param read a test's own files */
export function readMachine(read: ReadFile = readText): Machine {
  const memory = memoryTotal(read) ?? os.totalmem();
  const groups = controlGroups(read);
  const limit = least(groups.flatMap((group) => memoryLimits(group, read)));
  return {
    processors: affinity(read)?.length ?? os.availableParallelism(),
    cpuQuota: least(groups.flatMap((group) => cpuQuotas(group, read))),
    memory,
    memoryLimit: limit !== null && limit < memory ? limit : null,
  };
}

/** How many processors' time the server gets, not rounded. */
export function usableProcessors({ processors, cpuQuota }: Machine): number {
  return cpuQuota === null ? processors : Math.min(processors, cpuQuota);
}

export interface MemoryUse {
  /** In bytes, without the file cache that can be dropped. */
  readonly used: number;
  readonly limit: number;
}

/** What the control group that limits memory most has used of it; null: there is no limit. */
export function readMemoryUse(read: ReadFile = readText): MemoryUse | null {
  let tightest: MemoryUse | null = null;
  for (const { controller, folders } of controlGroups(read)) {
    if (controller === 'cpu') continue;
    const { limits, usage: current } = MEMORY_FILES[controller];
    for (const folder of folders) {
      const limit = memoryLimit(limits, folder, read);
      const usage = number(read(join(folder, current)));
      if (limit === null || usage === undefined) continue;
      const use = { used: usage - fileCache(read(join(folder, 'memory.stat')) ?? ''), limit };
      if (tightest === null || use.used / use.limit > tightest.used / tightest.limit) tightest = use;
    }
  }
  return tightest;
}

/** File cache that can be dropped, in bytes. The total of version 1 is with the groups below, as usage is; version 2 has no other. */
function fileCache(stat: string): number {
  const found = /^total_inactive_file (\d+)$/m.exec(stat) ?? /^inactive_file (\d+)$/m.exec(stat);
  return Number(found?.[1] ?? 0);
}

/** In bytes. */
export function usableMemory({ memory, memoryLimit }: Machine): number {
  return memoryLimit ?? memory;
}

/** The processors that a list such as `0-3,8,10-11` names; undefined if it is no such list. */
export function parseList(list: string): readonly number[] | undefined {
  const numbers: number[] = [];
  for (const part of list.trim().split(',')) {
    const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(part) ?? [];
    if (first === undefined || last === undefined) return undefined;
    for (let number = Number(first); number <= Number(last); number++) numbers.push(number);
  }
  return numbers;
}

/** The processors that this process may run on, by number; undefined if the system does not tell. */
export function affinity(read: ReadFile = readText): readonly number[] | undefined {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(read('/proc/self/status') ?? '')?.[1];
  return list === undefined ? undefined : parseList(list);
}

function memoryTotal(read: ReadFile): number | undefined {
  const kibibytes = /^MemTotal:\s*(\d+) kB$/m.exec(read('/proc/meminfo') ?? '')?.[1];
  return kibibytes === undefined ? undefined : Number(kibibytes) * 1024;
}

/** This process's place in one hierarchy of control groups, as seen through the file system. */
interface ControlGroup {
  /** Version 1: the controller. Version 2 has one hierarchy for all. */
  readonly controller: 'all' | 'cpu' | 'memory';
  /** The folders of the group and of those above it, as far as they are mounted. */
  readonly folders: readonly string[];
}

/** cgroups(7), proc_pid_mountinfo(5) */
function controlGroups(read: ReadFile): readonly ControlGroup[] {
  const mounts = lines(read('/proc/self/mountinfo')).flatMap((line) => {
    // 36 35 98:0 /root /mount/point rw,noatime master:1 - type source options
    const [before = '', after = ''] = line.split(' - ');
    const [root = '', point = ''] = before.split(' ').slice(3).map(unescapeMount);
    const [type = '', , options = ''] = after.split(' ');
    return type.startsWith('cgroup') ? [{ type, root, point, options: options.split(',') }] : [];
  });
  return lines(read('/proc/self/cgroup')).flatMap((line) => {
    const [, names = '', path = ''] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const controllers = names === '' ? (['all'] as const) : (['cpu', 'memory'] as const).filter(isIn(names.split(',')));
    return controllers.flatMap((controller) => {
      const mount = mounts.find(({ type, options }) =>
        controller === 'all' ? type === 'cgroup2' : type === 'cgroup' && options.includes(controller),
      );
      return mount === undefined ? [] : [{ controller, folders: foldersUp(mount.point, mount.root, path) }];
    });
  });
}

function isIn(names: readonly string[]): (name: string) => boolean {
  return (name) => names.includes(name);
}

/** A container may see its own group as the root of the mount, whatever the path that the kernel names. */
function foldersUp(point: string, root: string, path: string): readonly string[] {
  const relative = posix.relative(root, path);
  const parts = relative === '' || relative.startsWith('..') ? [] : relative.split('/');
  return Array.from({ length: parts.length + 1 }, (_, up) => join(point, ...parts.slice(0, parts.length - up)));
}

/** Spaces in mountinfo are `\040`. */
function unescapeMount(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 8)));
}

function cpuQuotas({ controller, folders }: ControlGroup, read: ReadFile): readonly number[] {
  if (controller === 'memory') return [];
  return folders.flatMap((folder) => {
    const [quota, period] =
      controller === 'all'
        ? (read(join(folder, 'cpu.max')) ?? '').split(' ').map(Number)
        : [number(read(join(folder, 'cpu.cfs_quota_us'))), number(read(join(folder, 'cpu.cfs_period_us')))];
    // "max" in version 2 and -1 in version 1: no quota.
    return quota !== undefined && period !== undefined && quota > 0 && period > 0 ? [quota / period] : [];
  });
}

function memoryLimits({ controller, folders }: ControlGroup, read: ReadFile): readonly number[] {
  if (controller === 'cpu') return [];
  return folders.flatMap((folder) => memoryLimit(MEMORY_FILES[controller].limits, folder, read) ?? []);
}

/** The least of one group's own limits, in bytes; null if it has none. */
function memoryLimit(names: readonly string[], folder: string, read: ReadFile): number | null {
  const limits = names.flatMap((name) => number(read(join(folder, name))) ?? []);
  return least(limits.filter((limit) => limit > 0 && limit < NO_LIMIT));
}

function number(text: string | undefined): number | undefined {
  return text !== undefined && /^-?\d+$/.test(text.trim()) ? Number(text) : undefined;
}

function least(values: readonly number[]): number | null {
  return values.length === 0 ? null : Math.min(...values);
}

function lines(text: string | undefined): readonly string[] {
  return (text ?? '').split('\n').filter((line) => line !== '');
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
