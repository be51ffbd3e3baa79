/** A configuration file in Node's languages: nunicorn.config.ts, .js, .mjs or .json. Its default export holds the settings. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { NunicornError } from '../errors.ts';
import type { ConfigFile, FileValue } from './config-file.ts';
import { type HookName, hookArguments } from './hook-names.ts';

export const NODE_CONFIG_NAMES = [
  'nunicorn.config.ts',
  'nunicorn.config.js',
  'nunicorn.config.mjs',
  'nunicorn.config.json',
] as const;

export function isNodeConfig(path: string): boolean {
  return /\.(?:json|[mc]?[jt]s)$/.test(path);
}

/**
 * Runs the file in this thread. What it changes in `process.env` is for the application.
 *
 * @param location as the user wrote it, for messages
 * @throws {NunicornError} if it cannot be run, or exports no object
 */
export async function readNodeConfig(path: string, location: string): Promise<ConfigFile> {
  const before = { ...process.env };
  const config = await runNodeConfig(path, location);
  return configFile(path, location, config, changes(before, process.env));
}

/** @throws {NunicornError} if the file holds no object */
export function readJsonConfig(path: string, location: string): ConfigFile {
  return configFile(path, location, settingsIn(parseJson(path, location), location), { set: {}, unset: [] });
}

function configFile(
  path: string,
  location: string,
  config: Readonly<Record<string, unknown>>,
  env: ConfigFile['env'],
): ConfigFile {
  const values = Object.entries(config).map(([name, value]): [string, FileValue] => [name, fileValue(name, value)]);
  const lines = linesOf(path, Object.keys(config));
  const names = values.filter(([, { kind }]) => kind === 'hook').map(([name]) => name as HookName);
  return {
    values: new Map(values),
    onlySettings: true,
    lines,
    env,
    nodeHooks: names.length === 0 ? null : { path, location, names },
  };
}

/**
 * What the file exports.
 *
 * @param run the number of the run in this process: each runs the file anew
 * @throws {NunicornError} if it cannot be run, or exports no object
 */
export async function runNodeConfig(
  path: string,
  location: string,
  run = 1,
): Promise<Readonly<Record<string, unknown>>> {
  const exported = await importFile(path, location, run);
  let config: unknown;
  try {
    config = typeof exported === 'function' ? await exported() : exported;
  } catch (error) {
    throw unusable(location, error);
  }
  return settingsIn(config, location);
}

function settingsIn(config: unknown, location: string): Readonly<Record<string, unknown>> {
  if (typeof config === 'object' && config !== null && !Array.isArray(config)) return { ...config };
  throw new NunicornError(
    `the configuration file ${location} could not be used: it needs an object of settings${location.endsWith('.json') ? '' : ' as its default export'}`,
  );
}

function parseJson(path: string, location: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw unusable(location, error);
  }
}

async function importFile(path: string, location: string, run: number): Promise<unknown> {
  if (/ts$/.test(path) && !('typescript' in process.features && process.features.typescript)) {
    throw new NunicornError(
      `the configuration file ${location} could not be used: Node ${process.versions.node} does not run TypeScript; Node 22.18 or newer does, or write it as nunicorn.config.mjs`,
    );
  }
  try {
    const url = pathToFileURL(path);
    if (run > 1) {
      url.searchParams.set('run', String(run));
      delete createRequire(import.meta.url).cache[path]; // where the file is a CommonJS module
    }
    const module: Readonly<Record<string, unknown>> = await import(url.href);
    return module.default;
  } catch (error) {
    if (/^Cannot find (?:package|module) 'nunicorn'/.test(error instanceof Error ? error.message : '')) {
      throw new NunicornError(
        `the configuration file ${location} could not be used: Node does not find a global package by its name. ` +
          "Export the plain object, without defineConfig, or install nunicorn's package in the project too",
      );
    }
    throw unusable(location, error);
  }
}

/** The stack of an error in the file says where; ours would only say how we got there. */
export function unusable(location: string, error: unknown): NunicornError {
  const own = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const lines = own.split('\n').filter((line) => !/^ +at .*(?:node:internal|dist\/src\/settings)/.test(line));
  return new NunicornError(`the configuration file ${location} could not be used: ${lines.join('\n')}`);
}

function fileValue(name: string, value: unknown): FileValue {
  if (typeof value === 'function') {
    const taken = hookArguments(name);
    if (taken === undefined) return { kind: 'other', type: 'function' };
    // Fewer are usual in JavaScript.
    if (value.length <= taken.length) return { kind: 'hook', name: value.name || name };
    return {
      kind: 'bad',
      problem: `the function takes ${value.length} arguments, but it is called as ${name}(${taken.join(', ')})`,
    };
  }
  if (!isPlain(value)) return { kind: 'other', type: typeof value };
  return { kind: 'value', value: value ?? null };
}

/** Whether it is the same in another thread. */
function isPlain(value: unknown): boolean {
  try {
    structuredClone(value);
    return true;
  } catch {
    return false; // it has a function or a symbol in it
  }
}

/** The first line that has the name as a key, at whatever depth: good enough to lead a reader there. */
function linesOf(path: string, names: readonly string[]): ReadonlyMap<string, number> {
  const lines = readFileSync(path, 'utf8').split('\n');
  const found = names.map((name): [string, number] => {
    const key = new RegExp(`(?:^|[{,\\s])["']?${name.replace(/\W/g, '\\$&')}["']?\\s*[:(,]`);
    return [name, lines.findIndex((line) => key.test(line)) + 1];
  });
  return new Map(found.filter(([, line]) => line > 0));
}

function changes(before: NodeJS.ProcessEnv, after: NodeJS.ProcessEnv): ConfigFile['env'] {
  const set = Object.entries(after).filter(
    (entry): entry is [string, string] => entry[1] !== undefined && before[entry[0]] !== entry[1],
  );
  return { set: Object.fromEntries(set), unset: Object.keys(before).filter((name) => after[name] === undefined) };
}
