/** The settings as a Python process gets them: under gunicorn's names and in its forms, for hooks and loggers to read. */
import { namesFromPythonFile } from '../settings/hooks.ts';
import type { LoadedSettings } from '../settings/load.ts';
import { parseStatsdAddress } from '../settings/statsd-address.ts';

export interface PythonSettings {
  readonly settings: Readonly<Record<string, unknown>>;
  /** The configuration file, if it is of Python's, and the settings that are taken from there. */
  readonly file: { readonly location: string; readonly cwd: string; readonly names: readonly string[] } | null;
}

export function pythonSettings(loaded: LoadedSettings): PythonSettings {
  const { settings, pythonFile, cwd } = loaded;
  return {
    settings: {
      ...settings,
      // Functions of JavaScript mean nothing there.
      ...Object.fromEntries((loaded.nodeHooks?.names ?? []).map((name) => [name, null])),
      pythonpath: settings.pythonpath.length === 0 ? null : settings.pythonpath.join(','),
      statsd_host: pythonAddress(settings.statsd_host),
      // Numbers in any case, as in gunicorn: its logger gives them to chown().
      user: settings.user ?? process.geteuid?.() ?? null,
      group: settings.group ?? process.getegid?.() ?? null,
    },
    file: pythonFile === null ? null : { location: pythonFile, cwd, names: namesFromPythonFile(loaded) },
  };
}

/** As socket.connect() of Python takes it, a list for a tuple. */
function pythonAddress(statsdHost: string | null): string | readonly [string, number] | null {
  if (statsdHost === null) return null;
  const address = parseStatsdAddress(statsdHost);
  return address.kind === 'unix' ? address.path : [address.host, address.port];
}
