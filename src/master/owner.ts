/** The user and group that fronts and workers run as, where they are others than the master's. */
import { chownSync, closeSync, constants, fchownSync, openSync } from 'node:fs';
import { NunicornError } from '../errors.ts';
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

/** Gives a log to its writer, who opens it as that user. `-` and null are no files. Throws NunicornError if it cannot be opened. */
export function giveLog(path: string | null, owner: Owner): void {
  if (path === null || path === '-') return;
  try {
    closeSync(openSync(path, 'a'));
    chownSync(path, owner.uid, owner.gid);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new NunicornError(`the log '${path}' cannot be opened, or not be made over to user ${owner.uid} (${code})`);
  }
}

/**
 * The same after a log rotation, when nobody looks: a link is not followed, since a folder that is the writer's could have one
 * to any file of root's. What cannot be given is left to the writers, who say so if they cannot open it.
 */
export function giveRotatedLog(path: string | null, owner: Owner): void {
  if (path === null || path === '-') return;
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  try {
    const fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK);
    try {
      fchownSync(fd, owner.uid, owner.gid);
    } finally {
      closeSync(fd);
    }
  } catch {}
}
