import { spawn } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { basename, delimiter, join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { NunicornError } from '../errors.ts';
import type { HookName } from './hook-names.ts';
import { isNodeConfig, NODE_CONFIG_NAMES, readJsonConfig } from './node-config.ts';
import { readNodeConfigInThread } from './node-config-thread.ts';
import { findPython, PYTHON_PACKAGE_DIR } from './python.ts';

/** A value that a configuration file gave to a name. */
export type FileValue =
  | { readonly kind: 'value'; readonly value: unknown }
  /** A class, by its dotted name. */
  | { readonly kind: 'class'; readonly name: string }
  /** A function, by its name, under the name of a server hook. */
  | { readonly kind: 'hook'; readonly name: string }
  /** What is under the name of a server hook cannot be one. */
  | { readonly kind: 'bad'; readonly problem: string }
  /** A function, a module or another thing that has no form in JSON. */
  | { readonly kind: 'other'; readonly type: string };

export interface ConfigFile {
  readonly values: ReadonlyMap<string, FileValue>;
  /** Whether a name can only be meant for a setting. In a Python file most are variables of its own. */
  readonly onlySettings: boolean;
  /** The line that gave a name its value, as far as it could be found. */
  readonly lines: ReadonlyMap<string, number>;
  /** What the file changed in `os.environ`. */
  readonly env: { readonly set: Readonly<Record<string, string>>; readonly unset: readonly string[] };
  /** Null: it has no hooks that are functions of JavaScript. */
  readonly nodeHooks: NodeHooks | null;
}

/** Server hooks that are functions of JavaScript, and the file that has them. */
export interface NodeHooks {
  readonly path: string;
  /** As the user wrote it, for messages. */
  readonly location: string;
  readonly names: readonly HookName[];
}

const DEFAULT_FILE = 'gunicorn.conf.py';
const REPORT_FD = 3;

/**
 * Where the settings are read from: what `-c` names, else the first of nunicorn's own files and gunicorn.conf.py that exists in
 * the folder of the start.
 *
 * @returns `ignored`: other such files that lie there
 */
export function configLocation(
  named: string | undefined,
  cwd: string,
): { readonly location: string | undefined; readonly ignored: readonly string[] } {
  if (named) return { location: named, ignored: [] };
  const [location, ...ignored] = [...NODE_CONFIG_NAMES, DEFAULT_FILE]
    .filter((name) => existsSync(join(cwd, name)))
    .map((name) => `./${name}`);
  return { location, ignored };
}

/** Whether the text names a configuration file that exists, by its name: a JavaScript file of another name is an app. */
export function isConfigFile(text: string, cwd: string): boolean {
  const isConfigName = /\.(?:py|json)$/.test(text) || NODE_CONFIG_NAMES.some((name) => name === basename(text));
  return isConfigName && existsSync(resolve(cwd, text));
}

/**
 * Runs the configuration file, a Python one in a Python of its own, and returns what it set.
 *
 * @param location `PATH`, `file:PATH` or `python:MODULE`
 * @param python the value of `--python`, if the command line has one
 * @param argv what the file sees as the command line
 * @throws {NunicornError} if the file is missing, is of another kind, or raises; the message holds the traceback
 */
export async function runConfigFile(
  location: string,
  python: string | null,
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
  cwd: string,
): Promise<ConfigFile> {
  const file = checkLocation(location, cwd);
  if (file !== undefined && isNodeConfig(file)) {
    return file.endsWith('.json') ? readJsonConfig(file, location) : readNodeConfigInThread(file, location, env);
  }
  const { path } = await findPython(python, env, cwd);
  const report = await runChild(path, location, argv, env, cwd);
  if ('problem' in report) {
    const traceback = report.traceback === null ? '' : `\n${report.traceback}`;
    throw new NunicornError(`the configuration file ${location} could not be used: ${report.problem}${traceback}`);
  }
  const values = Object.entries(report.values).map(([name, value]): [string, FileValue] => [name, decode(value)]);
  const lines = new Map(Object.entries(report.lines));
  return { values: new Map(values), onlySettings: false, lines, env: report.env, nodeHooks: null };
}

/** The path of the file; undefined for a module. */
function checkLocation(location: string, cwd: string): string | undefined {
  if (location.startsWith('python:')) return undefined;
  const path = location.replace(/^file:/, '');
  if (path === location && /^[a-z]{2,}:/.test(path)) {
    throw new NunicornError(`--config '${location}': PATH, file:PATH or python:MODULE is needed`);
  }
  if (/\.(ya?ml|toml)$/.test(path)) {
    throw new NunicornError(`--config '${location}': gunicorn.conf.py or nunicorn.config.{ts,js,mjs,json} is needed`);
  }
  if (!existsSync(resolve(cwd, path))) {
    throw new NunicornError(`--config '${location}': '${path}' doesn't exist (looked for in ${cwd})`);
  }
  if (statSync(resolve(cwd, path)).isDirectory()) {
    throw new NunicornError(
      `--config '${location}': '${path}' is a folder; name the file, as in ${join(path, DEFAULT_FILE)}`,
    );
  }
  return resolve(cwd, path);
}

type Encoded =
  | readonly ['value', unknown]
  | readonly ['class', string]
  | readonly ['hook', string]
  | readonly ['bad', string]
  | readonly ['other', string];

type Report =
  | { readonly problem: string; readonly traceback: string | null }
  | {
      readonly values: Readonly<Record<string, Encoded>>;
      readonly lines: Readonly<Record<string, number>>;
      readonly env: ConfigFile['env'];
    };

function decode(encoded: Encoded): FileValue {
  switch (encoded[0]) {
    case 'value':
      return { kind: 'value', value: encoded[1] };
    case 'class':
      return { kind: 'class', name: encoded[1] };
    case 'hook':
      return { kind: 'hook', name: encoded[1] };
    case 'bad':
      return { kind: 'bad', problem: encoded[1] };
    case 'other':
      return { kind: 'other', type: encoded[1] };
  }
}

function runChild(
  python: string,
  location: string,
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
  cwd: string,
): Promise<Report> {
  return new Promise((resolvePromise, reject) => {
    const path = env.PYTHONPATH;
    const child = spawn(python, ['-m', 'nunicorn_worker.config', location, ...argv], {
      cwd,
      env: { ...env, PYTHONPATH: path ? `${PYTHON_PACKAGE_DIR}${delimiter}${path}` : PYTHON_PACKAGE_DIR },
      // What the file prints is for the user; our report has a descriptor of its own.
      stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
    });
    let text = '';
    let ending = '';
    const finish = (): void => {
      if (ending !== '' && text.endsWith('\n')) resolvePromise(JSON.parse(text) as Report);
    };
    const stream = child.stdio[REPORT_FD] as Readable;
    stream.setEncoding('utf8');
    stream.on('data', (chunk: string) => {
      text += chunk;
      if (!text.endsWith('\n')) return;
      // Not until the end of the stream: a process that the file started may hold it open. But until the exit: the thread
      // that this runs in may end, and nobody else would reap the child.
      stream.destroy();
      finish();
    });
    child.on('error', (error) =>
      reject(new NunicornError(`the configuration file ${location} could not be run by ${python}: ${error.message}`)),
    );
    child.on('exit', (code, signal) => {
      ending = signal === null ? `exit code ${code}` : `signal ${signal}`;
      finish();
    });
    child.on('close', () => {
      if (!text.endsWith('\n'))
        resolvePromise({ problem: `Python ended with ${ending} while it ran`, traceback: null });
    });
  });
}
