/** Gunicorn's server hooks: which there are, where they run, and which of them a configuration sets. */
import { MASTER_HOOKS, type MasterHook, WORKER_HOOKS, type WorkerHook } from './hook-names.ts';
import type { LoadedSettings } from './load.ts';
import type { SettingName, Settings } from './table.ts';
import { GUNICORN_LOGGER } from './types.ts';

/** The hooks that are functions of Python. */
export function pythonHooks({ settings, nodeHooks }: LoadedSettings): readonly (MasterHook | WorkerHook)[] {
  return [...MASTER_HOOKS, ...WORKER_HOOKS].filter(
    (name) => settings[name] !== null && !nodeHooks?.names.includes(name),
  );
}

/** Whether a process of Python has to run hooks of the master. */
export function hasPythonMasterHooks(loaded: LoadedSettings): boolean {
  const names: readonly string[] = MASTER_HOOKS;
  return pythonHooks(loaded).some((name) => names.includes(name));
}

/** Whether a process of Node's has to run hooks of the master. */
export function hasNodeMasterHooks({ nodeHooks }: LoadedSettings): boolean {
  const names: readonly string[] = MASTER_HOOKS;
  return nodeHooks?.names.some((name) => names.includes(name)) ?? false;
}

/** Whether the workers of a Node app have to run hooks. */
export function hasNodeWorkerHooks({ nodeHooks }: LoadedSettings): boolean {
  const names: readonly string[] = WORKER_HOOKS;
  return nodeHooks?.names.some((name) => names.includes(name)) ?? false;
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

/** Whether a logger of Python's writes the logs, in a process of its own. */
export function needsLogProcess(settings: Settings): boolean {
  const { logconfig, logconfig_json, syslog } = settings;
  return (
    hasOwnLogger(settings) || logconfig !== null || hasLogDictionary(settings) || logconfig_json !== null || syslog
  );
}

function isSet(name: MasterHook | WorkerHook | (typeof LOGGING)[number], settings: Settings): boolean {
  if (name === 'logconfig_dict') return hasLogDictionary(settings);
  return name === 'logger_class' ? hasOwnLogger(settings) : settings[name] !== null;
}

/** The settings whose values are objects of a Python file. */
export function namesFromPythonFile({ settings, sources }: LoadedSettings): readonly SettingName[] {
  return [...MASTER_HOOKS, ...WORKER_HOOKS, ...LOGGING].filter((name) => {
    const source = sources.get(name);
    return isSet(name, settings) && source?.kind === 'file' && isPython(source.location);
  });
}

export function isPython(location: string): boolean {
  return !/\.(?:[cm]?[jt]s|json)$/.test(location);
}
