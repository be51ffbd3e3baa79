/** Files that Python processes write for others, in a folder of the user that they run as. */
import { closeSync, constants, fstatSync, openSync, readdirSync, unlinkSync } from 'node:fs';
import { basename, join } from 'node:path';

/** Where workers make their pipes if it is there; the system's folder for shared memory (shm_overview(7)). */
const MEMORY = '/dev/shm';

/**
 * Opens such a file for reading. Null: there is none, or what is there is none of theirs. The master may be root, and whoever has
 * taken over the app may put a link there, which leads to a file of root's, or a pipe that nobody writes to.
 */
export function openWorkerFile(path: string): number | null {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  try {
    const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    const stat = fstatSync(fd);
    if (stat.isFile() && stat.nlink === 1) return fd;
    closeSync(fd);
  } catch {
    // It is not there.
  }
  return null;
}

/**
 * Removes the pipes in memory that workers have offered and not taken back, as they were killed. `folder`: the server's own;
 * `worker`: only those of that one, by the name of its socket.
 */
export function removePipes(folder: string, worker = ''): void {
  const beginning = `${basename(folder)}-${worker}`;
  let names: string[];
  try {
    names = readdirSync(MEMORY);
  } catch {
    return; // there is no such folder
  }
  for (const name of names) {
    if (!name.startsWith(beginning)) continue;
    try {
      unlinkSync(join(MEMORY, name));
    } catch {
      // It is gone, or no pipe and somebody else's.
    }
  }
}
