/** What users import from 'nunicorn': `defineConfig` in a nunicorn.config.ts, `ready` and `onShutdown` in a Node app. */
import type { SettingName, ValueOf } from './settings/table.ts';

export { onShutdown, ready, type ShutdownHook } from './node-app/public.ts';

/** A list may be one text, a number may be text: as on the command line. */
type Given<T> = T | (T extends readonly string[] | number ? string : never);

/** Every setting under its name, each optional; docs/settings.md describes them. */
export type Config = { readonly [Name in SettingName]?: Given<ValueOf<Name>> };

/** The configuration itself; what it is good for is that the editor knows the names and types. */
export function defineConfig(config: Config): Config {
  return config;
}
