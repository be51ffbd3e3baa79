/** The user and group that fronts and workers run as, where they are others than the master's. */
import { chownSync, closeSync, openSync } from 'node:fs';
import type { Settings } from '../settings/table.ts';

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Null: they run as who started the server. */
export function ownerOf({ user, group }: Settings): Owner | null {
  if (user === null && group === null) return null;
  return { uid: user ?? process.getuid?.() ?? -1, gid: group ?? process.getgid?.() ?? -1 };
}

/** Gives a log to its writer, who opens it as that user. `-` and null are no files. Throws if it cannot be opened. */
export function giveLog(path: string | null, owner: Owner): void {
  if (path === null || path === '-') return;
  closeSync(openSync(path, 'a'));
  chownSync(path, owner.uid, owner.gid);
}
