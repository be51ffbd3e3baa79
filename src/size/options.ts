/** The command line of `nunicorn size`: its own options, and those of the server, which go through the one table of settings. */
import { EXIT, NunicornError } from '../errors.ts';
import { parseCommandLine } from '../settings/command-line.ts';
import { loadSettings } from '../settings/load.ts';
import { SETTINGS, type SettingName, type Settings } from '../settings/table.ts';
import type { Cell } from './cell.ts';
import { readReport } from './check.ts';
import { parseOwn, withoutOutput } from './own-options.ts';
import type { RateInfo, Report } from './report.ts';
import { parseSlo, type Slo } from './slo.ts';
import type { TrafficSource } from './traffic.ts';

export interface SizeOptions {
  readonly app: string;
  readonly traffic: TrafficSource;
  readonly host: string | undefined;
  readonly headers: readonly string[];
  readonly slo: Slo | undefined;
  readonly budgetMs: number;
  readonly warmUpMs: number | undefined;
  readonly memoryMb: number | undefined;
  readonly cpus: number | undefined;
  readonly databaseConnections: number | undefined;
  readonly expectedPerSecond: number | undefined;
  readonly compareGunicorn: boolean;
  readonly json: string | undefined;
  readonly html: string | undefined;
  /** Write a k6 script instead of measuring. */
  readonly exportK6: boolean;
  /** A report whose advice is to be checked. */
  readonly check: (Report & { readonly recommendation: RateInfo }) | undefined;
  /** Workers and threads that the user has set: one of the cells. */
  readonly configured: Pick<Cell, 'workers' | 'threads'> | undefined;
  readonly base: Pick<Cell, 'fronts' | 'preload'>;
  /** The server's options as they were given, without those that a cell sets. */
  readonly serve: readonly string[];
  /** The same for a server that is measured: nothing of it may reach the user's addresses, files and collectors. */
  readonly measured: readonly string[];
  readonly python: string | null;
  readonly cwd: string;
  /** Of the application. */
  readonly chdir: string;
  readonly env: Readonly<Record<string, string>>;
  readonly loaded: Awaited<ReturnType<typeof loadSettings>>;
}

export type SizeRequest =
  | { readonly kind: 'help'; readonly text: string }
  | { readonly kind: 'import'; readonly files: readonly string[]; readonly slo: Slo }
  | { readonly kind: 'size'; readonly argv: readonly string[]; readonly options: SizeOptions };

/** What a cell or the measurement itself sets, whatever the user says. */
const SET_BY_CELL: ReadonlySet<string> = new Set<string>([
  'bind',
  'workers',
  'threads',
  'fronts',
  'preload_app',
  'pidfile',
  'daemon',
  'worker_class',
]);

/**
 * @param argv the words after `nunicorn size`
 * @throws {NunicornError} with the first thing that is wrong
 */
export async function parseSizeOptions(
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
  cwd: string,
  columns: number,
): Promise<SizeRequest> {
  const first = await parseOwn(argv, columns);
  if (first.kind === 'help') return first;
  const file = first.text('check');
  const check = file === undefined ? undefined : readReport(file);
  // A check asks for what the report has asked for; what is said now counts more.
  const all = check === undefined ? argv : [...check.argv, ...argv];
  const own = check === undefined ? first : await parseOwn(all, columns);
  if (own.kind === 'help') return own;
  const { text, list, rest: words } = own;
  const imported = list('import');
  if (imported.length > 0) {
    const slo = text('slo');
    if (slo === undefined) throw usage('--import needs --slo: what shall be kept, such as p99<300ms');
    return { kind: 'import', files: imported, slo: parseSlo(slo) };
  }

  const commandLine = await parseCommandLine(words, 'the command line');
  if (commandLine.request !== undefined)
    throw new NunicornError(`--${commandLine.request} is for nunicorn itself: nunicorn size --help`, EXIT.USAGE);
  const loaded = await loadSettings(words, env, cwd);
  const { settings, sources } = loaded;
  if (loaded.nodeApp !== null)
    throw new NunicornError(
      `${loaded.app} is a Node app: nunicorn size measures Python apps only, so far. Under async as many --workers as ` +
        'processors are a good start; --admin-bind shows how busy they are',
      EXIT.USAGE,
    );
  const set = (name: SettingName): boolean => sources.get(name)?.kind !== 'default';
  const traffic = trafficSource(list('path'), text('har'), text('replay'));
  const headers = list('header');
  for (const header of headers)
    if (!/^[\w-]+:\s*[^\r\n]*$/.test(header)) throw usage(`--header '${header}': 'Name: value' is needed`);
  return {
    kind: 'size',
    argv: withoutOutput(all),
    options: {
      app: loaded.app,
      traffic,
      host: text('host'),
      headers,
      slo: optional(text('slo'), parseSlo) ?? check?.slo,
      budgetMs: duration('budget', text('budget') ?? '', 10),
      warmUpMs: optional(text('warmup'), (value) => duration('warmup', value, 0.1)),
      memoryMb: optional(text('memory'), megabytes),
      cpus: optional(text('cpus'), (value) => number('cpus', value, 0.1)),
      databaseConnections: optional(text('max-connections-db'), (value) =>
        Math.floor(number('max-connections-db', value, 1)),
      ),
      expectedPerSecond: optional(text('rate'), (value) => number('rate', value, 0.1)),
      compareGunicorn: text('compare') === 'gunicorn',
      json: text('json'),
      html: text('html'),
      exportK6: text('export') === 'k6',
      check,
      configured:
        set('workers') || set('threads')
          ? { workers: Math.max(1, settings.workers), threads: settings.threads }
          : undefined,
      base: { fronts: set('fronts') ? settings.fronts : 1, preload: settings.preload_app },
      serve: serveWords(commandLine.values, SET_BY_CELL),
      measured: measuredWords(commandLine.values, settings),
      python: settings.python,
      cwd,
      chdir: settings.chdir,
      env: loaded.env,
      loaded,
    },
  };
}

/** The server's options in one form, but for some. */
function serveWords(
  values: ReadonlyMap<SettingName, string | readonly string[] | boolean>,
  without: ReadonlySet<string>,
): readonly string[] {
  const words: string[] = [];
  for (const [name, value] of values) {
    if (without.has(name)) continue;
    const flags: readonly string[] = SETTINGS[name].flags;
    const flag = flags.find((each) => each.startsWith('--')) ?? '';
    if (value === true) words.push(flag);
    else for (const each of typeof value === 'string' ? [value] : value === false ? [] : value) words.push(flag, each);
  }
  return words;
}

/** Settings that reach out of a server. What a configuration file says of them is taken back by an empty value. */
const REACHES_OUT: Readonly<Record<string, string>> = {
  pidfile: '--pid=',
  admin_bind: '--admin-bind=',
  statsd_host: '--statsd-host=',
  control_socket: '--control-socket=',
};

/** @throws {NunicornError} for what cannot be taken back */
function measuredWords(
  values: ReadonlyMap<SettingName, string | readonly string[] | boolean>,
  settings: Settings,
): readonly string[] {
  for (const name of ['daemon', 'reload'] as const)
    if (settings[name])
      throw new NunicornError(`${name} is set: a server that is measured runs without it; leave it out`);
  const words = serveWords(values, new Set([...SET_BY_CELL, ...Object.keys(REACHES_OUT), 'accesslog', 'errorlog']));
  const set = new Map<string, unknown>(Object.entries(settings));
  const back = Object.entries(REACHES_OUT).filter(([name]) => (set.get(name) ?? null) !== null);
  return [...words, ...back.map(([, word]) => word)];
}

function trafficSource(paths: readonly string[], har: string | undefined, replay: string | undefined): TrafficSource {
  const given = [paths.length > 0, har !== undefined, replay !== undefined].filter(Boolean).length;
  if (given > 1) throw usage('--path, --har and --replay exclude each other: one of them says what to ask for');
  if (har !== undefined) return { kind: 'har', file: har };
  if (replay !== undefined) return { kind: 'log', file: replay };
  if (paths.length > 0) return { kind: 'paths', paths };
  throw usage('what shall be asked for? Name it with --path / (or --har FILE, or --replay ACCESS.LOG)');
}

function optional<T>(text: string | undefined, parse: (text: string) => T): T | undefined {
  return text === undefined ? undefined : parse(text);
}

function number(name: string, text: string, least: number): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value < least)
    throw usage(`--${name} '${text}': a number, ${least} or more, is needed`);
  return value;
}

/** In ms. */
function duration(name: string, text: string, leastSeconds: number): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?$/.exec(text.trim());
  const unit = { ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000 }[match?.[2] ?? 's'] ?? 1000;
  const ms = Number(match?.[1]) * unit;
  if (!(ms >= leastSeconds * 1000))
    throw usage(`--${name} '${text}': a time such as 30s or 3m, at least ${leastSeconds}s, is needed`);
  return ms;
}

function megabytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?$/i.exec(text.trim());
  const factor =
    { '': 1 / 1024 / 1024, K: 1 / 1024, M: 1, G: 1024, T: 1024 * 1024 }[match?.[2]?.toUpperCase() ?? ''] ?? 1;
  const mb = Number(match?.[1]) * factor;
  if (!(mb >= 32)) throw usage(`--memory '${text}': a size such as 900M or 2G, at least 32M, is needed`);
  return mb;
}

function usage(message: string): NunicornError {
  return new NunicornError(`${message} (from the command line; nunicorn size --help)`, EXIT.USAGE);
}
