/** The user and group that fronts and workers run as, where they are others than the master's. */
import { closeSync, constants, fchownSync, openSync } from 'node:fs';
import { NunicornError } from '../errors.ts';
import { fileFailure } from '../file-failure.ts';
import { isOwnLink } from '../log/error-log.ts';
import type { Settings } from '../settings/table.ts';

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Null: they run as who started the server. Throws NunicornError for another user if that is not root. */
export function ownerOf({ user, group }: Settings): Owner | null {
  if (user === null && group === null) return null;
  const [ownUid, ownGid] = [process.getuid?.() ?? -1, process.getgid?.() ?? -1];
  const owner = { uid: user ?? ownUid, gid: group ?? ownGid };
  if (ownUid !== 0 && (owner.uid !== ownUid || owner.gid !== ownGid)) {
    throw new NunicornError(
      `--user and --group need a start as root, and this one is by user ${ownUid}: leave them out, under systemd User= and Group= are enough`,
    );
  }
  return owner;
}

/**
 * Gives a log to its writer, who opens it as that user. `-` and null are no files. Throws NunicornError if it cannot be opened, or
 * is a link of another user's: a folder that is the writer's could have one to any file of root's.
 */
export function giveLog(path: string | null, owner: Owner): void {
  if (path === null || path === '-') return;
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW } = constants;
  try {
    give(path, O_WRONLY | O_APPEND | O_CREAT | (isOwnLink(path) ? 0 : O_NOFOLLOW), owner);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why =
      code === 'ELOOP' ? 'it is a link that is not of the user who starts the server' : fileFailure(error, path);
    throw new NunicornError(`the log '${path}' cannot be opened, or not be made over to user ${owner.uid} (${why})`);
  }
}

/**
 * The same after a log rotation, when nobody looks: no link is followed. What cannot be given is left to the writers, who say so
 * if they cannot open it.
 */
export function giveRotatedLog(path: string | null, owner: Owner): void {
  if (path === null || path === '-') return;
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  try {
    give(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, owner);
  } catch {}
}

/** Gives a folder that the operator has named. Throws what the system says. */
export function giveFolder(path: string, owner: Owner): void {
  const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;
  give(path, O_RDONLY | O_DIRECTORY | (isOwnLink(path) ? 0 : O_NOFOLLOW), owner);
}

/** By its descriptor: what stands at the path may be another file a moment later. */
function give(path: string, flags: number, owner: Owner): void {
  const fd = openSync(path, flags);
  try {
    fchownSync(fd, owner.uid, owner.gid);
  } finally {
    closeSync(fd);
  }
}
