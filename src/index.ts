/** For the authors of a nunicorn.config.ts: `import { defineConfig } from 'nunicorn'`. */
import type { SettingName, ValueOf } from './settings/table.ts';

/** A list may be one text, a number may be text: as on the command line. */
type Given<T> = T | (T extends readonly string[] | number ? string : never);

/** Every setting under its name, each optional; docs/settings.md describes them. */
export type Config = { readonly [Name in SettingName]?: Given<ValueOf<Name>> };

/** The configuration itself; what it is good for is that the editor knows the names and types. */
export function defineConfig(config: Config): Config {
  return config;
}
