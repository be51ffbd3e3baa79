/**
 * Where an app's prometheus_client keeps what it counts, in its multiprocess mode: the folder that the user has named, or one of
 * ours. It is there as long as one master follows the other, so that counters go on over an upgrade, the way back, and a rest.
 */
import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { NunicornError } from '../errors.ts';
import type { PrometheusFolder } from '../metrics/prometheus-reader.ts';
import type { Setup } from './options.ts';
import { giveFolder, type Owner } from './owner.ts';
import { privateFolder, removePrivateFolder } from './private-folder.ts';

export interface MultiprocessFolder {
  readonly path: string;
  /** The user has not named it: the last master removes it. */
  readonly isOurs: boolean;
}

export const MULTIPROCESS_VARIABLE = 'PROMETHEUS_MULTIPROC_DIR';

/**
 * At the start. `before` is that of the old master; null: there is none. Gives null if nobody would show what is in it.
 *
 * @throws {NunicornError} if it cannot be made
 */
export function openMultiprocessFolder(
  { loaded, python }: Pick<Setup, 'loaded' | 'python'>,
  owner: Owner | null,
  before: MultiprocessFolder | null,
): MultiprocessFolder | null {
  const { settings, cwd, env } = loaded;
  if (settings.admin_bind === null || python === null) return null;
  const named = env[MULTIPROCESS_VARIABLE];
  if (!named && before?.isOurs && isFor(owner, before.path)) return before;
  const path = named ? resolve(cwd, named) : privateFolder(resolve(settings.worker_tmp_dir ?? tmpdir()));
  try {
    mkdirSync(path, { recursive: true });
    if (owner !== null) giveFolder(path, owner);
    // Files of an earlier run would count once more; those of the old master's workers are to count.
    if (path !== before?.path)
      for (const name of readdirSync(path)) if (name.endsWith('.db')) rmSync(join(path, name), { force: true });
  } catch (error) {
    throw new NunicornError(
      `the folder ${path} (${MULTIPROCESS_VARIABLE}) cannot be used: ${(error as Error).message}`,
    );
  }
  return { path, isOurs: !named };
}

/** For who reads it. */
export function prometheusFolder({ loaded, python, multiprocess }: Setup): PrometheusFolder | null {
  if (multiprocess === null || python === null) return null;
  const { user, group } = loaded.settings;
  return { path: multiprocess.path, python: python.path, env: loaded.env, uid: user ?? null, gid: group ?? null };
}

/** Nobody goes on with it. */
export function removeMultiprocessFolder(folder: MultiprocessFolder | null): void {
  if (folder?.isOurs) removePrivateFolder(folder.path);
}

/** Workers that run as another user could not go on with the files in it. */
function isFor(owner: Owner | null, path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.uid === (owner?.uid ?? process.geteuid?.());
}
