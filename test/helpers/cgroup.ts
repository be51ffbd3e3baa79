/** A control group of its own for a server under test, with a limit for its memory: what a container has. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from './deadline.ts';

export interface MemoryGroup {
  /** Runs `start` with this process in the group: what it starts is there and stays there. */
  within<T>(start: () => Promise<T>): Promise<T>;
  /** Waits for the end of its processes. */
  remove(): Promise<void>;
}

const ROOT = '/sys/fs/cgroup';
/** Where each version keeps the memory's groups, and the names that it has for things. */
const VERSIONS = [
  { folder: join(ROOT, 'memory'), line: /^\d+:memory:(.*)$/m, limit: 'memory.limit_in_bytes' },
  { folder: ROOT, line: /^0::(.*)$/m, limit: 'memory.max' },
] as const;

/** A group below this process's own. Gives the reason if none can be made here. */
export function newMemoryGroup(limitBytes: number): MemoryGroup | string {
  const own = readOwn();
  for (const { folder, line, limit } of VERSIONS) {
    const path = line.exec(own)?.[1];
    if (path === undefined || !existsSync(join(folder, path, 'cgroup.procs'))) continue;
    const parent = join(folder, path);
    const group = join(parent, `nunicorn-test-${process.pid}`);
    try {
      mkdirSync(group);
    } catch (error) {
      return `no control group can be made: ${error}`;
    }
    try {
      if (!existsSync(join(group, limit))) throw new Error('its groups have no memory controller');
      writeFileSync(join(group, limit), String(limitBytes));
    } catch (error) {
      rmdirSync(group);
      return `the memory of a control group cannot be limited: ${error}`;
    }
    const move = (to: string): void => writeFileSync(join(to, 'cgroup.procs'), String(process.pid));
    return {
      async within(start) {
        move(group);
        try {
          return await start();
        } finally {
          move(parent);
        }
      },
      remove: async () => {
        await until(() => hasRemoved(group), `the end of the processes in ${group}`);
      },
    };
  }
  return 'there are no control groups for memory here';
}

/** False: it has processes. */
function hasRemoved(group: string): boolean {
  try {
    rmdirSync(group);
    return true;
  } catch {
    return false;
  }
}

function readOwn(): string {
  try {
    return readFileSync('/proc/self/cgroup', 'utf8');
  } catch {
    return '';
  }
}
