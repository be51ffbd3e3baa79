/** What a start would fail of, as far as that can be known without an effect: `--check-config`. */
import { accessSync, constants, rmdirSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, resolve } from 'node:path';
import { NunicornError } from '../errors.ts';
import { fileFailure } from '../file-failure.ts';
import { hasOwnLogger } from '../settings/hooks.ts';
import type { LoadedSettings } from '../settings/load.ts';
import { certificatesOf } from './certificates-of.ts';
import { checkLogProcess } from './log-process.ts';
import { errorLogPath } from './options.ts';
import { privateFolder, socketsFolder } from './private-folder.ts';

/** @throws {NunicornError} the first thing that is wrong */
export async function checkStart(loaded: LoadedSettings): Promise<void> {
  const { settings, cwd } = loaded;
  await checkLogProcess(loaded);
  // A logger of the user's may have another use for them.
  if (!hasOwnLogger(settings)) {
    checkLog('errorlog', errorLogPath(loaded));
    checkLog('accesslog', settings.accesslog);
  }
  await certificatesOf(settings, { warning: (message) => console.error(`Warning: ${message}`) });
  // Written beside and renamed. That another process is named in it is no mistake: the server that runs is checked too.
  if (settings.pidfile !== null) checkAccess('pidfile', settings.pidfile, dirname(settings.pidfile));
  for (const folder of [socketsFolder(settings.worker_tmp_dir ?? tmpdir()), resolve(cwd, settings.spool_dir)]) {
    rmdirSync(privateFolder(folder));
  }
}

function checkLog(name: string, path: string | null): void {
  if (path === null || path === '-') return;
  const found = statSync(path, { throwIfNoEntry: false });
  if (found?.isDirectory() === true) throw new NunicornError(`${name}: '${path}' is a folder`);
  checkAccess(name, path, found === undefined ? dirname(path) : path);
}

function checkAccess(name: string, path: string, needed: string): void {
  try {
    accessSync(needed, constants.W_OK);
  } catch (error) {
    throw new NunicornError(`${name}: '${path}' cannot be written (${fileFailure(error, path)})`);
  }
}
