/** A control group of its own for a server under test, with a limit for its memory: what a container has. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
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

/** As `newMemoryGroup`, with files of a test's own where version 2 has those of its memory controller. */
export interface PretendedGroup extends MemoryGroup {
  /** For `by` of a server: puts the files in place, for it alone. */
  readonly by: readonly string[];
  write(group: 'outer' | 'inner', name: string, text: string): void;
}

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
    return {
      within: (start) => within(group, parent, start),
      remove: async () => {
        await until(() => hasRemoved(group), `the end of the processes in ${group}`);
      },
    };
  }
  return 'there are no control groups for memory here';
}

/**
 * Two groups of version 2, one in the other, below this process's own. A machine has the memory controller in one version only:
 * where that is the first, the groups are real and so are the paths that the kernel names, but what the controller would say is
 * the test's. Gives the reason if there cannot be such groups here.
 */
export function newPretendedGroup(): PretendedGroup | string {
  const [, root, mount] =
    /^\d+ \d+ \S+ (\S+) (\S+) .* - cgroup2 /m.exec(readFileSync('/proc/self/mountinfo', 'utf8')) ?? [];
  const path = /^0::(.*)$/m.exec(readOwn())?.[1];
  if (mount === undefined || root !== '/' || path === undefined) return 'there are no control groups of version 2 here';
  const unshare = ['unshare', '--mount'] as const;
  if (spawnSync(unshare[0], [...unshare.slice(1), 'true']).status !== 0)
    return 'unshare makes no namespace of mounts here';
  const parent = join(mount, path);
  const names = { outer: join(path, `nunicorn-test-${process.pid}`), inner: '' };
  names.inner = join(names.outer, 'inner');
  const [outer, inner] = [join(mount, names.outer), join(mount, names.inner)];
  try {
    mkdirSync(inner, { recursive: true });
  } catch (error) {
    return `no control group can be made: ${error}`;
  }
  const files = mkdtempSync(join(tmpdir(), 'nt-cgroup-'));
  mkdirSync(join(files, names.inner), { recursive: true });
  return {
    by: [...unshare, 'sh', '-c', `mount --bind ${files} ${mount} && exec "$@"`, 'sh'],
    write: (group, name, text) => writeFileSync(join(files, names[group], name), text),
    within: (start) => within(inner, parent, start),
    remove: async () => {
      await until(() => hasRemoved(inner) && hasRemoved(outer), `the end of the processes in ${inner}`);
      rmSync(files, { recursive: true });
    },
  };
}

/** What this process starts meanwhile is in `group` and stays there. */
async function within<T>(group: string, parent: string, start: () => Promise<T>): Promise<T> {
  const move = (to: string): void => writeFileSync(join(to, 'cgroup.procs'), String(process.pid));
  move(group);
  try {
    return await start();
  } finally {
    move(parent);
  }
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
