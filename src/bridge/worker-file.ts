/** Files that Python processes write for others, in a folder of the user that they run as. */
import { closeSync, constants, fstatSync, openSync } from 'node:fs';

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
