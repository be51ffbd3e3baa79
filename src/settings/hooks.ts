/** Gunicorn's server hooks: which there are, where they run, and which of them a configuration sets. */
import type { LoadedSettings } from './load.ts';
import { SETTING_NAMES, SETTINGS, type SettingName } from './table.ts';

/** The hooks that run in a worker. */
export const WORKER_HOOKS = [
  'post_fork',
  'post_worker_init',
  'pre_request',
  'post_request',
  'worker_int',
  'worker_abort',
  'worker_exit',
] as const satisfies readonly SettingName[];

export const HOOKS = SETTING_NAMES.filter((name) => SETTINGS[name].section === 'Server Hooks');

/** The settings whose values are objects of a Python file: their processes have to run it. */
export function namesFromPythonFile({ settings, sources }: LoadedSettings): readonly SettingName[] {
  return HOOKS.filter((name) => {
    const source = sources.get(name);
    return settings[name] !== null && source?.kind === 'file' && isPython(source.location);
  });
}

export function isPython(location: string): boolean {
  return !/\.(?:[cm]?[jt]s|json)$/.test(location);
}
