/**
 * Brings the settings together. Later sources win, a list replaces a list: defaults (some from the environment), the
 * configuration file, GUNICORN_CMD_ARGS, NUNICORN_CMD_ARGS, the command line.
 */
import { readFileSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { EXIT, NunicornError } from '../errors.ts';
import { compileAccessFormat } from '../log/access-format.ts';
import { readMachine } from '../machine.ts';
import { formatAddress, parseAddress } from './address.ts';
import { checkAdmin } from './admin.ts';
import { type NodeAppUri, parseAppUri, parseNodeApp } from './app.ts';
import { type Counts, chooseCounts } from './auto.ts';
import { type CommandLine, parseCommandLine } from './command-line.ts';
import { COMMAND_NAMES } from './command-names.ts';
import {
  type ConfigFile,
  configLocation,
  type FileValue,
  isConfigFile,
  type NodeHooks,
  runConfigFile,
} from './config-file.ts';
import { WORKER_HOOKS } from './hook-names.ts';
import { isPython, needsLogProcess } from './hooks.ts';
import { nearest } from './nearest.ts';
import type { Setting } from './setting.ts';
import { shellWords } from './shell-words.ts';
import { isSettingName, SETTING_NAMES, SETTINGS, type SettingName, type Settings, type ValueOf } from './table.ts';
import { NoNumberError, type ParseContext, ValueError, type WorkerClass } from './types.ts';

/** Where the value of a setting came from. */
export type Source =
  | { readonly kind: 'default' }
  /** `variable` itself holds the value (PORT), or words of a command line (GUNICORN_CMD_ARGS). */
  | { readonly kind: 'environment'; readonly variable: string }
  /** `line`: of the assignment, where it could be found. */
  | { readonly kind: 'file'; readonly location: string; readonly line?: number }
  | { readonly kind: 'command line' };

export interface LoadedSettings {
  readonly settings: Settings;
  /**
   * The application as the user named it: `MODULE`, `MODULE:CALLABLE` or `MODULE:FACTORY(ARGUMENTS)`. Empty only where a
   * configuration file that names none is checked.
   */
  readonly app: string;
  /** Null: it is a Python app. */
  readonly nodeApp: NodeAppUri | null;
  readonly sources: ReadonlyMap<SettingName, Source>;
  /** Null: no server hook is a function of JavaScript. */
  readonly nodeHooks: NodeHooks | null;
  /** The location of a configuration file in Python: what it does is to be there in every process of the application. */
  readonly pythonFile: string | null;
  /** The application's environment: that of the start, what the configuration file changed in it, and `raw_env`. */
  readonly env: Readonly<Record<string, string>>;
  /** The folder the server was started in. Not `settings.chdir`. */
  readonly cwd: string;
  /** For the user, in order; a start prints them, a reload logs them. */
  readonly warnings: readonly string[];
  /** For the log, one line each: what was chosen and why. */
  readonly notices: readonly string[];
}

/** One source's raw values. */
interface Layer {
  sourceOf(name: SettingName): Source;
  readonly values: ReadonlyMap<SettingName, unknown>;
}

const COMMAND_LINE: Source = { kind: 'command line' };
/** Words as on the command line; the later variable wins. */
const ARGS_VARIABLES = ['GUNICORN_CMD_ARGS', 'NUNICORN_CMD_ARGS'];

/**
 * Reads all sources again each time: a reload gives it the same `argv`, `env` and `cwd` as the start.
 *
 * @param argv without the program itself
 * @throws {NunicornError} the first thing that is wrong, with the exit code
 */
export async function loadSettings(
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
  cwd: string,
): Promise<LoadedSettings> {
  const warnings: string[] = [];
  const commandLine = fileToCheck(parseCommandLine(argv, describeSource(COMMAND_LINE)), cwd);
  const layers: Layer[] = [...environmentLayers(env, warnings), layerOf(COMMAND_LINE, commandLine)];

  const { location, ignored } = configLocation(lastText(layers, 'config'), cwd);
  if (ignored.length > 0) warnings.push(`${location} is read; ${ignored.join(' and ')} beside it is not`);
  const python = lastText(layers, 'python') ?? null;
  const file = location === undefined ? undefined : await runConfigFile(location, python, argv, env, cwd);
  const context: ParseContext = { cwd, warn: (text) => warnings.push(text) };
  if (location !== undefined && file !== undefined) layers.unshift(fileLayer(location, file, context));
  const paste = lastText(layers, 'paste');
  if (paste !== undefined) layers.unshift(pasteLayer(paste, cwd));

  const { values, sources } = merge(layers, env, context);
  const { app, nodeApp, source } = appOf(commandLine, values, cwd);
  if (source !== undefined) sources.set('wsgi_app', source);
  const nodeHooks = file?.nodeHooks ?? null;
  if (nodeHooks !== null && nodeApp === null) checkNodeHooks(nodeHooks, sources);
  const counts = chooseCounts(...countsGiven(values), readMachine());
  const completed = complete(values, sources, counts, app);
  const given = (name: SettingName): boolean => sources.get(name)?.kind !== 'default';
  const worker_class = workerClassFor(nodeApp !== null, completed, given('worker_class'));
  const settings: Settings = { ...completed, worker_class };
  checkAdmin(settings.admin_bind, settings.admin_token);
  checkAccessFormat(settings, sources);
  if (nodeApp !== null) {
    const hasPool = worker_class === 'gthread' || settings.threads > 1;
    for (const name of withoutMeaningForNode(hasPool).filter(given)) {
      const how = hasPool ? worker_class : `${worker_class} with one thread`;
      warnings.push(`${name} has no effect: ${app} is a Node app that runs under ${how}`);
    }
  }
  const notices = [...(counts.reason === undefined ? [] : [counts.reason]), ...withoutEffect(values, sources, context)];
  const appEnv = applicationEnv(env, file, settings.raw_env);
  const pythonFile = location !== undefined && isPython(location) ? location : null;
  return { settings, app, nodeApp, sources, nodeHooks, pythonFile, env: appEnv, cwd, warnings, notices };
}

/** The workers of a Python app run Python alone. */
function checkNodeHooks({ names }: NodeHooks, sources: ReadonlyMap<SettingName, Source>): void {
  const refused: readonly string[] = WORKER_HOOKS;
  const name = names.find((hook) => refused.includes(hook));
  if (name === undefined) return;
  const source = sources.get(name);
  const reason =
    `${name} runs in the workers, and those of a Python app are Python: it cannot be a function of JavaScript. ` +
    `Name one of Python here (${name}: 'my_hooks.${name}'), or write it in gunicorn.conf.py`;
  throw new NunicornError(`${reason}${source === undefined ? '' : ` (from ${describeSource(source)})`}`);
}

/** A logger of Python's has a form of its own. */
function checkAccessFormat(settings: Settings, sources: ReadonlyMap<SettingName, Source>): void {
  const { accesslog, access_log_format: format } = settings;
  if (accesslog === null || format === 'json' || needsLogProcess(settings)) return;
  try {
    compileAccessFormat(format);
  } catch (error) {
    const source = sources.get('access_log_format');
    if (!(error instanceof NunicornError) || source === undefined) throw error;
    throw new NunicornError(`${error.message} (from ${describeSource(source)})`);
  }
}

/** `--check-config gunicorn.conf.py`, as guides write it: a file in the application's place is the file to check. */
function fileToCheck(commandLine: CommandLine, cwd: string): CommandLine {
  const { values, positionals } = commandLine;
  const [file = '', ...more] = positionals;
  const checks = values.has('check_config') || values.has('print_config');
  if (!checks || more.length > 0 || values.has('config') || !isConfigFile(file, cwd)) return commandLine;
  return { values: new Map([...values, ['config', file]]), positionals: [] };
}

/** E.g. `from the command line`, for messages. */
export function describeSource(source: Source): string {
  switch (source.kind) {
    case 'default':
      return 'the default';
    case 'environment':
      return `the environment variable ${source.variable}`;
    case 'file':
      return source.line === undefined ? source.location : `${source.location}:${source.line}`;
    case 'command line':
      return 'the command line';
  }
}

function environmentLayers(env: NodeJS.ProcessEnv, warnings: string[]): Layer[] {
  const layers: Layer[] = [];
  for (const variable of ARGS_VARIABLES) {
    const text = env[variable];
    if (!text) continue;
    const words = shellWords(text);
    if (words === undefined) {
      throw new NunicornError(
        `${variable}: a quotation mark or a backslash at its end has no partner: ${text}`,
        EXIT.USAGE,
      );
    }
    const source: Source = { kind: 'environment', variable };
    const parsed = parseCommandLine(words, variable);
    if (parsed.request !== undefined) {
      throw new NunicornError(`${variable}: --${parsed.request} works on the command line only`, EXIT.USAGE);
    }
    for (const word of parsed.positionals) {
      warnings.push(
        `'${word}' in ${variable} is no option and is not used: the application is named on the command line`,
      );
    }
    layers.push(layerOf(source, parsed));
  }
  return layers;
}

function layerOf(source: Source, { values }: CommandLine): Layer {
  return { sourceOf: () => source, values };
}

function lastText(layers: readonly Layer[], name: SettingName): string | undefined {
  const value = layers.findLast((layer) => layer.values.has(name))?.values.get(name);
  return typeof value === 'string' ? value : undefined;
}

function fileLayer(location: string, file: ConfigFile, context: ParseContext): Layer {
  const values = new Map<SettingName, unknown>();
  const sourceOf = (name: string): Source => {
    const line = file.lines.get(name);
    return { kind: 'file', location, ...(line === undefined ? {} : { line }) };
  };
  for (const [name, value] of file.values) {
    const from = describeSource(sourceOf(name));
    if (isSettingName(name)) {
      if (isUnset(name, value)) continue;
      const misfit = file.onlySettings ? undefined : ownMisfit(name, value, from, context);
      if (misfit === undefined) values.set(name, rawOf(name, value, from));
      else context.warn(misfit);
    } else if (file.onlySettings || file.lines.has(name)) {
      // Imported, or of a loop: nobody has set it.
      const meant = isConstant(name) && !meantAsSetting(name, file) ? undefined : likelyMeant(name, value);
      if (meant !== undefined) context.warn(`${from}: ${name} is not a setting, did you mean ${meant}?`);
      else if (file.onlySettings) context.warn(`${from}: ${name} is not a setting; docs/settings.md lists them all`);
    }
  }
  // Gunicorn takes the location from the command line only.
  values.delete('config');
  return { sourceOf, values };
}

/**
 * A Python file may have variables of its own under names that are settings of nunicorn's alone (log_format, python), and
 * Gunicorn takes no notice of them: a value that does not fit says so. The warning, or undefined.
 */
function ownMisfit(name: SettingName, value: FileValue, from: string, context: ParseContext): string | undefined {
  const { origin, type }: Setting<unknown> = SETTINGS[name];
  if (origin === 'gunicorn') return undefined;
  try {
    // What has no form in JSON fits none of them.
    type.parse(value.kind === 'value' ? value.value : undefined, { ...context, warn: () => {} });
    return undefined;
  } catch (error) {
    if (!(error instanceof ValueError)) throw error;
    return `${from}: ${name} is taken for a variable of the file and sets nothing: for the setting of nunicorn ${error.message}`;
  }
}

function isUnset(name: SettingName, value: FileValue): boolean {
  const { type }: Setting<unknown> = SETTINGS[name];
  return value.kind === 'value' && value.value === null && type.noneIsUnset === true;
}

function rawOf(name: SettingName, value: FileValue, from: string): unknown {
  if (value.kind === 'value') return value.value;
  if (value.kind === 'class' || value.kind === 'hook') return value.name;
  // A hook that is never called here.
  if (value.kind === 'other' && value.type === 'function' && 'status' in SETTINGS[name]) return name;
  if (value.kind === 'bad') throw new NunicornError(`invalid value for ${name}: ${value.problem} (from ${from})`);
  throw new NunicornError(
    `invalid value for ${name}: a setting's value cannot be of type ${value.type} (from ${from})`,
  );
}

/** DATABASE_HOST: a file computes its settings from such names. */
function isConstant(name: string): boolean {
  return name === name.toUpperCase();
}

/** WORKERS, where nothing sets workers. */
function meantAsSetting(name: string, { values }: ConfigFile): boolean {
  const setting = name.toLowerCase();
  return isSettingName(setting) && !values.has(setting);
}

/** Most names in a file are variables of its own. Only plain values under a name that is nearly a setting's are worth a word. */
function likelyMeant(name: string, value: FileValue): string | undefined {
  if (value.kind !== 'value' || name.length < 4) return undefined;
  const byFlag = SETTING_NAMES.find((setting) =>
    (SETTINGS[setting].flags as readonly string[]).includes(`--${name.toLowerCase().replaceAll('_', '-')}`),
  );
  const near = nearest(name, SETTING_NAMES);
  // max_workers is no slip: the file computes workers from it.
  const builtOn = near !== undefined && name.toLowerCase().split('_').includes(near);
  return byFlag ?? (builtOn ? undefined : near);
}

interface Merged {
  readonly values: ReadonlyMap<SettingName, unknown>;
  readonly sources: Map<SettingName, Source>;
}

/**
 * Each given value is checked, also one that a later source replaces: a mistake in a file does not hide until it matters.
 * But the class of a worker that only Gunicorn has is no mistake in a file that both read.
 */
function merge(layers: readonly Layer[], env: NodeJS.ProcessEnv, context: ParseContext): Merged {
  const values = new Map<SettingName, unknown>();
  const sources = new Map<SettingName, Source>();
  for (const [index, { sourceOf, values: given }] of layers.entries()) {
    const later = layers.slice(index + 1);
    for (const [name, raw] of given) {
      if (name === 'worker_class' && later.some(({ values }) => values.has(name))) continue;
      const source = sourceOf(name);
      values.set(name, parse(name, raw, source, context));
      sources.set(name, source);
    }
  }
  for (const name of SETTING_NAMES) {
    if (values.has(name)) continue;
    const { raw, source } = defaultOf(name, env);
    values.set(name, parse(name, raw, source, context));
    sources.set(name, source);
  }
  return { values, sources };
}

/**
 * One line for each setting that asks for something that nunicorn has no use for.
 *
 * @throws {NunicornError} if a setting asks for something that is refused
 */
function withoutEffect(
  values: ReadonlyMap<SettingName, unknown>,
  sources: ReadonlyMap<SettingName, Source>,
  context: ParseContext,
): readonly string[] {
  return SETTING_NAMES.flatMap((name) => {
    const { status, default: raw, type }: Setting<unknown> = SETTINGS[name];
    const source = sources.get(name);
    if (status === undefined || source === undefined || source.kind === 'default') return [];
    const value = values.get(name);
    if (isDeepStrictEqual(value, type.parse(raw, context))) return [];
    const what = `${label(name, source)} = ${show(value)}`;
    const from = describeSource(source);
    if (status.kind === 'no effect') return [`${what} has no effect: ${status.because} (from ${from})`];
    if (status.with !== undefined && values.get(status.with) === null) {
      return [`${what} has no effect: ${status.with} is not set (from ${from})`];
    }
    throw new NunicornError(`${what} is refused: ${status.instead} (from ${from})`);
  });
}

function defaultOf(name: SettingName, env: NodeJS.ProcessEnv): { readonly raw: unknown; readonly source: Source } {
  const { default: raw, env: fromEnv }: Setting<unknown> = SETTINGS[name];
  const value = fromEnv === undefined ? undefined : env[fromEnv.variable];
  if (fromEnv === undefined || value === undefined) return { raw, source: { kind: 'default' } };
  return { raw: fromEnv.raw(value), source: { kind: 'environment', variable: fromEnv.variable } };
}

function parse(name: SettingName, raw: unknown, source: Source, context: ParseContext): unknown {
  const from = describeSource(source);
  try {
    return SETTINGS[name].type.parse(raw, {
      ...context,
      warn: (text) => context.warn(`${label(name, source)}: ${text} (from ${from})`),
    });
  } catch (error) {
    if (!(error instanceof ValueError)) throw error;
    const isUsage = error instanceof NoNumberError && fromArguments(source);
    throw new NunicornError(
      `invalid value for ${label(name, source)}: ${show(raw)}: ${error.message} (from ${from})`,
      isUsage ? EXIT.USAGE : EXIT.ERROR,
    );
  }
}

function fromArguments(source: Source): boolean {
  return source.kind === 'command line' || (source.kind === 'environment' && ARGS_VARIABLES.includes(source.variable));
}

/** The name that the user wrote: a flag, or the setting's own. */
function label(name: SettingName, source: Source): string {
  const flags: readonly string[] = SETTINGS[name].flags;
  return source.kind === 'file' || source.kind === 'default'
    ? name
    : (flags.find((flag) => flag.startsWith('--')) ?? name);
}

function show(raw: unknown): string {
  if (typeof raw === 'string') return `'${raw}'`;
  if (raw === null) return 'None';
  if (typeof raw === 'boolean') return raw ? 'True' : 'False';
  const list = Array.isArray(raw) && raw.length === 1 ? raw[0] : raw;
  return typeof list === 'string' ? `'${list}'` : JSON.stringify(list);
}

interface NamedApp {
  readonly app: string;
  /** Null: it is a Python app. */
  readonly nodeApp: NodeAppUri | null;
  /** Left out: that of the setting wsgi_app. */
  readonly source?: Source;
}

function appOf(commandLine: CommandLine, values: ReadonlyMap<SettingName, unknown>, cwd: string): NamedApp {
  const paste = values.get('paste');
  if (typeof paste === 'string') return { app: resolve(cwd, paste), nodeApp: null };
  const [positional, ...more] = commandLine.positionals;
  if (more.length > 0) {
    const given = commandLine.positionals.map((word) => `'${word}'`).join(' and ');
    const command = nearest(positional ?? '', COMMAND_NAMES);
    const hint = command === undefined ? '' : `; or is it the command that was meant: nunicorn ${command} ...`;
    throw new NunicornError(
      `one application is served, but ${given} were given${hint} (from the command line)`,
      EXIT.USAGE,
    );
  }
  const app = positional ?? values.get('wsgi_app');
  const checksFileOnly = values.get('check_config') === true || values.get('print_config') === true;
  if (app === null && checksFileOnly && commandLine.values.has('config')) return { app: '', nodeApp: null };
  if (typeof app !== 'string' || app === '') {
    throw new NunicornError(
      'No application module specified. Name one: nunicorn MODULE:CALLABLE, or wsgi_app in gunicorn.conf.py',
    );
  }
  const chdir = values.get('chdir');
  const folder = typeof chdir === 'string' ? chdir : cwd;
  const nodeApp = parseNodeApp(app, folder);
  if (nodeApp === null) parseAppUri(app, folder);
  return { app, nodeApp, ...(positional === undefined ? {} : { source: COMMAND_LINE }) };
}

function countsGiven(values: ReadonlyMap<SettingName, unknown>): [ValueOf<'workers'>, ValueOf<'threads'>] {
  return [values.get('workers') as ValueOf<'workers'>, values.get('threads') as ValueOf<'threads'>];
}

/** A file that describes an app may configure logging too. */
function pasteLayer(paste: string, cwd: string): Layer {
  const [location = ''] = resolve(cwd, paste).split('#');
  let hasLoggers: boolean;
  try {
    hasLoggers = /^\[loggers\]/m.test(readFileSync(location, 'utf8'));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new NunicornError(
      `--paste '${paste}': '${location}' ${code === 'ENOENT' ? 'not found' : `cannot be read (${code})`}`,
    );
  }
  return { sourceOf: () => ({ kind: 'file', location }), values: new Map(hasLoggers ? [['logconfig', location]] : []) };
}

/** Settings whose value follows from others. */
function complete(
  values: ReadonlyMap<SettingName, unknown>,
  sources: ReadonlyMap<SettingName, Source>,
  { workers, threads }: Counts,
  app: string,
): Settings {
  // Each value was read by the type of its own setting, which is where the type Settings comes from.
  const given = { ...Object.fromEntries(values), workers, threads } as unknown as Settings;
  const ownSpool = sources.get('spool_dir')?.kind !== 'default';
  const settings = { ...given, spool_dir: ownSpool ? given.spool_dir : (given.tmp_upload_dir ?? given.spool_dir) };
  const chdir = settings.chdir;
  const absolute = SETTING_NAMES.filter((name) => 'path' in SETTINGS[name]).map((name) => [
    name,
    absolutePath(settings[name], chdir),
  ]);
  return {
    ...settings,
    ...Object.fromEntries(absolute),
    pythonpath: settings.pythonpath.map((folder) => resolve(chdir, folder)),
    bind: settings.bind.map((address) => absoluteSocket(address, chdir)),
    admin_bind: settings.admin_bind === null ? null : absoluteSocket(settings.admin_bind, chdir),
    // One without a worker could answer nobody.
    fronts: Math.min(settings.fronts || defaultFronts(workers), Math.max(workers, 1)),
    proc_name: settings.proc_name || (settings.default_proc_name === 'gunicorn' ? app : settings.default_proc_name),
  };
}

/** sync with more than one thread is gthread. A Node app is async unless threads or a class are asked for; its sync is gthread with one thread. */
function workerClassFor(isNode: boolean, { worker_class, threads }: Settings, given: boolean): WorkerClass {
  if (!isNode) {
    if (worker_class === 'async') {
      throw new NunicornError(
        'the worker class async runs Node apps (./app.js); for a Python app use sync, or gthread with --threads N',
      );
    }
    return worker_class === 'sync' && threads > 1 ? 'gthread' : worker_class;
  }
  if (!given) return threads > 1 ? 'gthread' : 'async';
  return worker_class === 'sync' ? 'gthread' : worker_class;
}

const PYTHON_ONLY = ['python', 'pythonpath', 'preload_app', 'fronts'] as const;
const POOL_ONLY = [
  'max_queue',
  'queue_timeout',
  'spool_dir',
  'thread_memory_limit',
  'limit_request_field_size',
  'proxy_protocol',
  'proxy_allow_ips',
  'forwarded_allow_ips',
  'secure_scheme_headers',
  'forwarder_headers',
  'header_map',
] as const;

/** Settings that do nothing for a Node app: there are no fronts, and without threads there is no queue, and what proxies say is left to the app. */
function withoutMeaningForNode(hasPool: boolean): readonly SettingName[] {
  return hasPool ? PYTHON_ONLY : [...PYTHON_ONLY, ...POOL_ONLY];
}

function absolutePath(value: unknown, chdir: string): unknown {
  return typeof value === 'string' && value !== '-' ? resolve(chdir, value) : value;
}

/** `unix:PATH` with an absolute path; other addresses as they are. */
function absoluteSocket(text: string, chdir: string): string {
  const address = parseAddress(text);
  if (address.kind !== 'unix' || isAbsolute(address.path)) return text;
  return formatAddress({ ...address, path: resolve(chdir, address.path) });
}

const WORKERS_PER_FRONT = 8;

/** 1 for up to 8 workers, then one for each further 8. */
export function defaultFronts(workers: number): number {
  return Math.max(1, Math.ceil(workers / WORKERS_PER_FRONT));
}

function applicationEnv(
  env: NodeJS.ProcessEnv,
  file: ConfigFile | undefined,
  rawEnv: readonly string[],
): Readonly<Record<string, string>> {
  const result = new Map(Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined));
  for (const name of file?.env.unset ?? []) result.delete(name);
  for (const [name, value] of Object.entries(file?.env.set ?? {})) result.set(name, value);
  for (const entry of rawEnv) {
    const equals = entry.indexOf('=');
    result.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  return Object.fromEntries(result);
}
