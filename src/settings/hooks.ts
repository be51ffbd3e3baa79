/** Gunicorn's server hooks: which there are, where they run, and which of them a configuration sets. */
import type { LoadedSettings } from './load.ts';
import type { SettingName, Settings } from './table.ts';
import { GUNICORN_LOGGER } from './types.ts';

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

/** The hooks that run where workers are forked, as in gunicorn's master. */
export const MASTER_HOOKS = [
  'on_starting',
  'when_ready',
  'on_reload',
  'nworkers_changed',
  'pre_fork',
  'child_exit',
  'pre_exec',
  'on_exit',
] as const satisfies readonly SettingName[];

export type MasterHook = (typeof MASTER_HOOKS)[number];

/** The names of the hooks that are set. */
export function setHooks({ settings }: LoadedSettings): readonly SettingName[] {
  return [...MASTER_HOOKS, ...WORKER_HOOKS].filter((name) => settings[name] !== null);
}

export function hasMasterHooks({ settings }: LoadedSettings): boolean {
  return MASTER_HOOKS.some((name) => settings[name] !== null);
}

/** Beside hooks, what can be an object of Python. */
const LOGGING = ['logger_class', 'logconfig_dict'] as const satisfies readonly SettingName[];

/** Whether `logconfig_dict` is set. */
export function hasLogDictionary({ logconfig_dict }: Settings): boolean {
  return Object.keys(logconfig_dict).length > 0;
}

/** Whether the logger is another than gunicorn's. */
export function hasOwnLogger({ logger_class }: Settings): boolean {
  return logger_class !== GUNICORN_LOGGER;
}

function isSet(
  name: (typeof MASTER_HOOKS | typeof WORKER_HOOKS | typeof LOGGING)[number],
  settings: Settings,
): boolean {
  if (name === 'logconfig_dict') return hasLogDictionary(settings);
  return name === 'logger_class' ? hasOwnLogger(settings) : settings[name] !== null;
}

/** The settings whose values are objects of a Python file: their processes have to run it. */
export function namesFromPythonFile({ settings, sources }: LoadedSettings): readonly SettingName[] {
  return [...MASTER_HOOKS, ...WORKER_HOOKS, ...LOGGING].filter((name) => {
    const source = sources.get(name);
    return isSet(name, settings) && source?.kind === 'file' && isPython(source.location);
  });
}

export function isPython(location: string): boolean {
  return !/\.(?:[cm]?[jt]s|json)$/.test(location);
}
