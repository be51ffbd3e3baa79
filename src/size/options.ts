/** The command line of `nunicorn size`: its own options, and those of the server, which go through the one table of settings. */
import { EXIT, NunicornError } from '../errors.ts';
import { parseCommandLine } from '../settings/command-line.ts';
import { loadSettings } from '../settings/load.ts';
import { SETTINGS, type SettingName } from '../settings/table.ts';
import type { Cell } from './cell.ts';
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
  /** Workers and threads that the user has set: one of the cells. */
  readonly configured: Pick<Cell, 'workers' | 'threads'> | undefined;
  readonly base: Pick<Cell, 'fronts' | 'preload'>;
  /** The server's options as they were given, without those that a cell sets. */
  readonly serve: readonly string[];
  /** More of them for the measured server: nothing of it may reach the user's files, sockets and collectors. */
  readonly python: string | null;
  readonly cwd: string;
  /** Of the application. */
  readonly chdir: string;
  readonly env: Readonly<Record<string, string>>;
  readonly loaded: Awaited<ReturnType<typeof loadSettings>>;
}

export type SizeRequest =
  | { readonly kind: 'help'; readonly text: string }
  | { readonly kind: 'size'; readonly options: SizeOptions };

const OWN = {
  path: {
    string: true,
    array: true,
    requiresArg: true,
    describe: 'What to ask for, with its query. Can be given several times; each is asked for equally often.',
    group: 'Load:',
  },
  har: {
    string: true,
    requiresArg: true,
    describe: 'Ask for what a browser has recorded (HTTP archive): the GET requests to its first host.',
    group: 'Load:',
  },
  replay: {
    string: true,
    requiresArg: true,
    describe: "Ask for what an access log holds (Gunicorn's, nginx's): its GET requests, as often as there.",
    group: 'Load:',
  },
  host: {
    string: true,
    requiresArg: true,
    describe: 'The Host header, for applications that check it (ALLOWED_HOSTS).',
    group: 'Load:',
  },
  header: {
    string: true,
    array: true,
    requiresArg: true,
    describe: "A further header, 'Name: value'. Can be given several times.",
    group: 'Load:',
  },
  rate: {
    string: true,
    requiresArg: true,
    describe:
      'Requests per second that you expect at most: latencies are compared at this rate. Default: 70 % of what the best setting should carry.',
    group: 'Load:',
  },
  slo: {
    string: true,
    requiresArg: true,
    describe:
      'What must be kept: p99<300ms, p90<0.5s. Default: p99 below ten times an unhindered request, at least 100 ms.',
    group: 'Limits:',
  },
  cpus: {
    string: true,
    requiresArg: true,
    describe: 'CPUs that the server may use, such as 1 or 1.5; imposed on it.',
    group: 'Limits:',
  },
  memory: {
    string: true,
    requiresArg: true,
    describe: 'Memory of all its processes together, such as 900M or 2G.',
    group: 'Limits:',
  },
  'max-connections-db': {
    string: true,
    requiresArg: true,
    describe: 'Database connections there are for this server: workers x threads stays within.',
    group: 'Limits:',
  },
  budget: {
    string: true,
    requiresArg: true,
    default: '3m',
    describe: 'Time that it may take, such as 30s or 5m.',
    group: 'Measurement:',
  },
  warmup: {
    string: true,
    requiresArg: true,
    describe: 'Load on each server before it is measured, such as 2s.',
    group: 'Measurement:',
  },
  compare: {
    string: true,
    requiresArg: true,
    choices: ['gunicorn'],
    describe: 'Run the finalists through Gunicorn too.',
    group: 'Measurement:',
  },
  json: {
    string: true,
    requiresArg: true,
    describe: 'Write the report to this file: every cell, every window.',
    group: 'Report:',
  },
  help: { boolean: true, alias: 'h', describe: 'Show this help.', group: 'Help:' },
} as const;

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
  const { default: yargs } = await import('yargs');
  let y = yargs([...argv])
    .scriptName('nunicorn size')
    .help(false)
    .version(false)
    .exitProcess(false)
    .fail((message, error) => {
      throw error ?? new NunicornError(`${message} (from the command line)`, EXIT.USAGE);
    })
    .parserConfiguration({
      'boolean-negation': false,
      'camel-case-expansion': false,
      'dot-notation': false,
      'duplicate-arguments-array': true,
      'greedy-arrays': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      // The server's options are none of ours.
      'unknown-options-as-args': true,
    });
  for (const [name, option] of Object.entries(OWN)) y = y.option(name, option);
  y = y
    .usage(
      'Usage: $0 [OPTIONS] [OPTIONS OF THE SERVER] APP --path / | --har FILE | --replay FILE\n\nMeasures APP with several numbers of workers and threads on this machine and says what to run.\nThe application is really run and asked: choose paths that may be asked for thousands of times.',
    )
    .example('$0 --path / project.wsgi', 'What to run on this machine, in three minutes.')
    .example(
      "$0 --cpus 1 --memory 900M --slo 'p99<300ms' --path / --path /books/ project.wsgi",
      'For a server with one CPU and 1 GB.',
    )
    .example(
      '$0 --replay access.log --html report.html project.wsgi',
      'With the mix of a real day, and a page to look at.',
    )
    .epilogue('How it measures, how sure it is, and where its limits are: docs/sizing.md.');
  const parsed = await y.parseAsync();
  if (parsed.help) return { kind: 'help', text: await y.wrap(Math.min(columns, 110)).getHelp() };
  const words = parsed._.map(String);
  const text = (name: keyof typeof OWN): string | undefined => {
    const value: unknown = parsed[name];
    const last: unknown = Array.isArray(value) ? value.at(-1) : value;
    return typeof last === 'string' ? last : undefined;
  };
  const list = (name: keyof typeof OWN): readonly string[] => {
    const value: unknown = parsed[name];
    return Array.isArray(value) ? value.map(String) : [];
  };

  const commandLine = await parseCommandLine(words, 'the command line');
  if (commandLine.request !== undefined)
    throw new NunicornError(`--${commandLine.request} is for nunicorn itself: nunicorn size --help`, EXIT.USAGE);
  const loaded = await loadSettings(words, env, cwd);
  const { settings, sources } = loaded;
  const set = (name: SettingName): boolean => sources.get(name)?.kind !== 'default';
  const traffic = trafficSource(list('path'), text('har'), text('replay'));
  const headers = list('header');
  for (const header of headers)
    if (!/^[\w-]+:\s*[^\r\n]*$/.test(header)) throw usage(`--header '${header}': 'Name: value' is needed`);
  return {
    kind: 'size',
    options: {
      app: loaded.app,
      traffic,
      host: text('host'),
      headers,
      slo: optional(text('slo'), parseSlo),
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
      configured:
        set('workers') || set('threads')
          ? { workers: Math.max(1, settings.workers), threads: settings.threads }
          : undefined,
      base: { fronts: set('fronts') ? settings.fronts : 1, preload: settings.preload_app },
      serve: serveWords(commandLine.values),
      python: settings.python,
      cwd,
      chdir: settings.chdir,
      env: loaded.env,
      loaded,
    },
  };
}

/** The server's options in one form, without what a cell sets. */
function serveWords(values: ReadonlyMap<SettingName, string | readonly string[] | boolean>): readonly string[] {
  const words: string[] = [];
  for (const [name, value] of values) {
    if (SET_BY_CELL.has(name)) continue;
    const flags: readonly string[] = SETTINGS[name].flags;
    const flag = flags.find((each) => each.startsWith('--')) ?? '';
    if (value === true) words.push(flag);
    else for (const each of typeof value === 'string' ? [value] : value === false ? [] : value) words.push(flag, each);
  }
  return words;
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
