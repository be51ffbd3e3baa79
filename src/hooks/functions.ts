/** The hooks that are functions of a nunicorn.config file. */
import type { NodeHooks } from '../settings/config-file.ts';
import type { HookName } from '../settings/hook-names.ts';
import { runNodeConfig } from '../settings/node-config.ts';

export type HookFunctions = ReadonlyMap<HookName, (...given: readonly unknown[]) => unknown>;

/**
 * Runs the file in this process.
 *
 * @param run the number of the run
 * @throws whatever the file throws
 */
export async function loadFunctions({ path, location, names }: NodeHooks, run: number): Promise<HookFunctions> {
  const config = await runNodeConfig(path, location, run);
  const found = new Map<HookName, (...given: readonly unknown[]) => unknown>();
  for (const name of names) {
    const hook = config[name];
    if (typeof hook === 'function') found.set(name, (...given) => hook.apply(config, given) as unknown);
  }
  return found;
}
