/** Why a file could not be made or written, for messages: the system's code, and what it means for this file. */
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

/** E.g. `ENOENT: there is no folder /run/app`. */
export function fileFailure(error: unknown, path: string): string {
  const { code, message = String(error) } = error as NodeJS.ErrnoException;
  const folder = dirname(resolve(path));
  switch (code) {
    case 'ENOENT':
      return `ENOENT: there is no folder ${folder}`;
    case 'EACCES':
      return `EACCES: this user may not ${existsSync(path) ? 'write to it' : `make files in ${folder}`}`;
    case 'EISDIR':
      return 'EISDIR: it is a folder';
    case 'EROFS':
      return 'EROFS: the file system is mounted read-only';
    default:
      return code ?? message;
  }
}
