import type { SettingName, Settings } from './table.ts';

/** Where the value of a setting came from. */
export type Source =
  | { readonly kind: 'default' }
  | { readonly kind: 'environment'; readonly variable: string }
  | { readonly kind: 'file'; readonly location: string }
  | { readonly kind: 'command line' };

export interface LoadedSettings {
  readonly settings: Settings;
  /** The application as the user named it: `MODULE`, `MODULE:CALLABLE` or `MODULE:FACTORY(ARGUMENTS)`. */
  readonly app: string;
  readonly sources: ReadonlyMap<SettingName, Source>;
  /** The application's environment: that of the start, what the configuration file changed in it, and `raw_env`. */
  readonly env: Readonly<Record<string, string>>;
  /** The folder the server was started in. Not `settings.chdir`. */
  readonly cwd: string;
  /** For the user, in order; a start prints them, a reload logs them. */
  readonly warnings: readonly string[];
}

export async function loadSettings(
  _argv: readonly string[],
  _env: NodeJS.ProcessEnv,
  _cwd: string,
): Promise<LoadedSettings> {
  throw new Error('not written');
}
