import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { NunicornError } from '../errors.ts';
import { LONGEST_SOCKET_PATH_BYTES } from '../settings/address.ts';

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
