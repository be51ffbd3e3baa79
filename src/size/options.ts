/** The command line of `nunicorn size`: its own options, and those of the server, which go through the one table of settings. */
import { EXIT, NunicornError } from '../errors.ts';
import { parseCommandLine } from '../settings/command-line.ts';
import { loadSettings } from '../settings/load.ts';
import type { SettingName } from '../settings/table.ts';
import type { Cell } from './cell.ts';
import { readReport } from './check.ts';
import { checkMeasurable, type Served } from './measured.ts';
import { parseOwn, withoutOutput } from './own-options.ts';
import type { RateInfo, Report } from './report.ts';
import { parseSlo, type Slo } from './slo.ts';
import type { TrafficSource } from './traffic.ts';

export interface SizeOptions {
  readonly served: Served;
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
}

export type SizeRequest =
  | { readonly kind: 'help'; readonly text: string }
  | { readonly kind: 'import'; readonly files: readonly string[]; readonly slo: Slo }
  | { readonly kind: 'size'; readonly argv: readonly string[]; readonly options: SizeOptions };

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

  const commandLine = parseCommandLine(words, 'the command line');
  if (commandLine.request !== undefined)
    throw new NunicornError(`--${commandLine.request} is for nunicorn itself: nunicorn size --help`, EXIT.USAGE);
  const loaded = await loadSettings(words, env, cwd);
  const { settings, sources } = loaded;
  checkMeasurable(settings);
  const kind = loaded.nodeApp === null ? 'python' : settings.worker_class === 'async' ? 'async' : 'pool';
  const set = (name: SettingName): boolean => sources.get(name)?.kind !== 'default';
  const compareGunicorn = text('compare') === 'gunicorn';
  if (compareGunicorn && kind !== 'python') throw usage(`--compare gunicorn: ${loaded.app} is a Node app`);
  if (kind === 'async' && text('max-connections-db') !== undefined)
    throw usage(
      '--max-connections-db counts workers x threads, but an async worker has a pool of connections: set its size to ' +
        'the connections there are, divided by the workers recommended',
    );
  const traffic = trafficSource(list('path'), text('har'), text('replay'));
  const headers = list('header');
  for (const header of headers)
    if (!/^[\w-]+:\s*[^\r\n]*$/.test(header)) throw usage(`--header '${header}': 'Name: value' is needed`);
  return {
    kind: 'size',
    argv: withoutOutput(all),
    options: {
      served: { kind, app: loaded.app, values: commandLine.values, loaded, cwd },
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
      compareGunicorn,
      json: text('json'),
      html: text('html'),
      exportK6: text('export') === 'k6',
      check,
      configured:
        set('workers') || set('threads')
          ? { workers: Math.max(1, settings.workers), threads: settings.threads }
          : undefined,
      base:
        kind === 'python'
          ? { fronts: set('fronts') ? settings.fronts : 1, preload: settings.preload_app }
          : { fronts: 1, preload: false },
    },
  };
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
