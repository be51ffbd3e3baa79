import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
  unlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import { NunicornError } from '../errors.ts';
import { LONGEST_SOCKET_PATH_BYTES } from '../settings/address.ts';

/** A link to each that this process has open; they lead to what was opened, whatever has become of its path. */
const OPEN_FILES = '/proc/self/fd';
const LONGEST_SOCKET_NAME = '/nunicorn-XXXXXX/worker-99999999.sock';

/** Makes a folder of mode 0700 in `parent`, of a name that begins so. Throws NunicornError if that cannot be. */
export function privateFolder(parent: string, name = 'nunicorn-'): string {
  try {
    return mkdtempSync(join(parent, name));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new NunicornError(
      `no folder can be made in ${parent} (${code}): --worker-tmp-dir and --spool-dir, or TMPDIR for both, ` +
        'have to name folders that can be written',
    );
  }
}

/** Throws NunicornError if Unix sockets in a private folder there would have longer paths than the system takes. */
export function socketsFolder(path: string): string {
  const room = LONGEST_SOCKET_PATH_BYTES - LONGEST_SOCKET_NAME.length;
  if (Buffer.byteLength(path) <= room) return path;
  throw new NunicornError(
    `the path ${path} is too long for the Unix sockets in it: ` +
      `--worker-tmp-dir (or TMPDIR) has to name a folder of ${room} bytes at most`,
  );
}

/**
 * Removes it with the files in it. It may be another user's, who may exchange what is in it, and the folder itself, at any moment
 * for links, by which rm -r would come to files of root's: so it is opened once, and folders in it, of which we make none, stay.
 */
export function removePrivateFolder(path: string): void {
  if (!existsSync(OPEN_FILES)) {
    rmSync(path, { recursive: true, force: true }); // this is no Linux
    return;
  }
  const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;
  try {
    const fd = openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    try {
      const opened = join(OPEN_FILES, String(fd));
      for (const name of readdirSync(opened)) removeFile(join(opened, name));
    } finally {
      closeSync(fd);
    }
    rmdirSync(path);
  } catch {
    // It is gone already, or somebody has put more into it.
  }
}

function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It is a folder, or gone.
  }
}
