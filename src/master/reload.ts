/** The settings of a reload: all that can fail is tried before anything is changed. */
import { closeSync, openSync } from 'node:fs';
import { NunicornError } from '../errors.ts';
import { type ErrorLog, openErrorLog } from '../log/error-log.ts';
import type { LoadedSettings } from '../settings/load.ts';
import { findPython } from '../settings/python.ts';
import { readCommandLine } from '../settings/read-command-line.ts';
import type { Setting } from '../settings/setting.ts';
import { SETTING_NAMES, SETTINGS, type SettingName, type Settings } from '../settings/table.ts';
import { certificatesOf } from './certificates-of.ts';
import { openSockets } from './listening-sockets.ts';
import { startLogProcess } from './log-process.ts';
import { errorLogSettings, type Setup } from './options.ts';
import { giveLog, type Owner } from './owner.ts';

export interface Reread {
  readonly setup: Setup;
  readonly errorLog: ErrorLog;
  /** Settings that have changed and cannot take effect. In `setup` they are as before. */
  readonly needsRestart: readonly SettingName[];
}

/**
 * Reads the settings from all their sources again, finds Python, and opens the logs and the addresses that are new.
 *
 * @throws {NunicornError} if any of it fails; then nothing has changed
 */
export async function readAnew(before: Setup, owner: Owner | null, log: ErrorLog): Promise<Reread> {
  const { cwd } = before.loaded;
  const outcome = await readCommandLine({ argv: process.argv.slice(2), env: process.env, cwd, columns: 0 });
  if (outcome.kind !== 'serve') throw new NunicornError('the command line asks for no server');
  const { settings, needsRestart } = withoutRestart(before.loaded.settings, outcome.loaded.settings);
  const loaded: LoadedSettings = { ...outcome.loaded, settings };
  if ((loaded.nodeApp === null) !== (before.loaded.nodeApp === null)) {
    throw new NunicornError('a Python app cannot become a Node app, or the other way round, without a restart');
  }
  const python = loaded.nodeApp === null ? await findPython(settings.python, process.env, cwd) : null;
  const tls = await certificatesOf(settings, log);
  checkLogs(loaded, owner);
  const logProcess = await startLogProcess(loaded, python);
  let errorLog: ErrorLog | null = null;
  try {
    errorLog = await openErrorLog(errorLogSettings(loaded, logProcess));
    const sockets = await openSockets(settings, before.sockets, owner, log);
    return {
      setup: { loaded, python, sockets, tls, logProcess, multiprocess: before.multiprocess },
      errorLog,
      needsRestart,
    };
  } catch (error) {
    errorLog?.close();
    await logProcess?.end();
    throw error;
  }
}

/** The settings that a running server can have: `next`, but for what only a start can set. */
function withoutRestart(
  before: Settings,
  next: Settings,
): { readonly settings: Settings; readonly needsRestart: readonly SettingName[] } {
  const needsRestart = SETTING_NAMES.filter((name) => {
    const setting: Setting<unknown> = SETTINGS[name];
    return setting.restart === true && JSON.stringify(before[name]) !== JSON.stringify(next[name]);
  });
  const kept = Object.fromEntries(needsRestart.map((name) => [name, before[name]]));
  return { settings: { ...next, ...kept }, needsRestart };
}

function checkLogs({ settings }: LoadedSettings, owner: Owner | null): void {
  const { accesslog } = settings;
  try {
    if (owner !== null) for (const path of [settings.errorlog, accesslog]) giveLog(path, owner);
    else if (accesslog !== null && accesslog !== '-') closeSync(openSync(accesslog, 'a'));
  } catch (error) {
    throw new NunicornError(`a log cannot be opened: ${error instanceof Error ? error.message : error}`);
  }
}
