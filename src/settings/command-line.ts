/**
 * The command line. Words are first brought into one form (`--name=value`) with argparse's rules, which Gunicorn's users
 * know: unambiguous prefixes, `-w2`, `-w 2`, `-w=2`, `--`. yargs' parser then reads that form; the rest of yargs, which every
 * start would wait for, has nothing to do here.
 */
import parser from 'yargs-parser';
import { EXIT, NunicornError } from '../errors.ts';
import { nearest } from './nearest.ts';
import { AS_TYPED } from './parser.ts';
import type { Setting } from './setting.ts';
import { SETTING_NAMES, SETTINGS, type SettingName } from './table.ts';
import type { ValueType } from './types.ts';
import { VERSION } from './version.ts';

export interface CommandLine {
  /** Raw values, for `ValueType.parse`: text, a list of texts, or what a flag means. */
  readonly values: ReadonlyMap<SettingName, string | readonly string[] | boolean>;
  /** What is not an option: the application. */
  readonly positionals: readonly string[];
  /** `--help` or `--version` was given: nothing else counts. */
  readonly request?: 'help' | 'version';
}

/** What the flag table knows about one flag, e.g. `-w` or `--workers`. */
interface Flag {
  readonly name: string;
  /** The form that goes to the parser. */
  readonly long: string;
  readonly takes: 'value' | 'nothing' | 'optional';
  readonly origin: 'gunicorn' | 'nunicorn';
}

const REQUESTS = { help: ['-h', '--help'], version: ['-v', '--version'] } as const;

const FLAGS: ReadonlyMap<string, Flag> = collectFlags();
const PARSER_OPTIONS = parserOptions();

function collectFlags(): ReadonlyMap<string, Flag> {
  const flags = new Map<string, Flag>();
  const add = (names: readonly string[], flag: Omit<Flag, 'long'>): void => {
    const long = names.find((name) => name.startsWith('--')) ?? '';
    for (const name of names) flags.set(name, { ...flag, long });
  };
  for (const name of SETTING_NAMES) {
    const { flags: names, type, origin } = SETTINGS[name];
    const takes = type.arity === 'flag' ? 'nothing' : type.arity === 'optional' ? 'optional' : 'value';
    add(names, { name, takes, origin });
  }
  for (const [name, names] of Object.entries(REQUESTS)) add(names, { name, takes: 'nothing', origin: 'gunicorn' });
  return flags;
}

function parserOptions(): parser.Options {
  const long = (names: readonly string[]): string[] => names.filter((name) => name.startsWith('--')).map(stripDashes);
  const options = { string: [] as string[], boolean: [] as string[], configuration: AS_TYPED };
  for (const name of SETTING_NAMES) {
    const { flags, type }: Setting<unknown> = SETTINGS[name];
    options[type.arity === 'flag' ? 'boolean' : 'string'].push(...long(flags).slice(0, 1));
  }
  return options;
}

/**
 * @param where for messages, e.g. `the command line` or `GUNICORN_CMD_ARGS`
 * @throws {NunicornError} with exit code 2 if the words cannot be understood
 */
export function parseCommandLine(words: readonly string[], where: string): CommandLine {
  const { options, positionals, request } = normalize(words, where);
  if (request !== undefined) return { values: new Map(), positionals, request };
  const parsed = parser([...options], PARSER_OPTIONS);
  const values = new Map<SettingName, string | readonly string[] | boolean>();
  for (const name of SETTING_NAMES) {
    const { flags, type, flagMeans = true }: Setting<unknown> = SETTINGS[name];
    const long = flags.find((flag) => flag.startsWith('--'));
    const value: unknown = long === undefined ? undefined : parsed[long.slice(2)];
    if (value !== undefined) values.set(name, type.arity === 'flag' ? flagMeans : rawValue(value, type.arity));
  }
  return { values, positionals };
}

/** A scalar that is given more than once: the last counts. A list: each counts. */
function rawValue(value: unknown, arity: ValueType<unknown>['arity']): string | readonly string[] {
  const list = (Array.isArray(value) ? value : [value]).map(String);
  return arity === 'many' ? list : (list.at(-1) ?? '');
}

export function versionText(): string {
  return `nunicorn (version ${VERSION})`;
}

/** The shell has taken its quotes off; the parser takes off a pair that is part of the value. */
function quoted(value: string): string {
  return /^(["']).*\1$/s.test(value) ? `"${value}"` : value;
}

function stripDashes(flag: string): string {
  return flag.replace(/^-+/, '');
}

interface Normalized {
  readonly options: readonly string[];
  readonly positionals: readonly string[];
  readonly request?: 'help' | 'version';
}

function normalize(words: readonly string[], where: string): Normalized {
  const options: string[] = [];
  const positionals: string[] = [];
  const queue = [...words];

  /** Takes note of one flag; `attached` is the value that was written in the same word. Returns a request, if it is one. */
  const take = (typed: string, flag: Flag, attached: string | undefined): 'help' | 'version' | undefined => {
    if (flag.name === 'help' || flag.name === 'version') return flag.name;
    let value = attached;
    if (flag.takes === 'nothing' && value !== undefined) {
      throw usage(`${typed} takes no value, but '${value}' was given`, where);
    }
    if (flag.takes !== 'nothing' && value === undefined && isValue(queue[0])) value = queue.shift();
    if (flag.takes === 'value' && value === undefined) throw usage(`${typed} needs a value`, where);
    options.push(value === undefined ? flag.long : `${flag.long}=${quoted(value)}`);
    return undefined;
  };

  for (let word = queue.shift(); word !== undefined; word = queue.shift()) {
    let request: 'help' | 'version' | undefined;
    if (word === '--') {
      positionals.push(...queue.splice(0));
    } else if (word.startsWith('--')) {
      const equals = word.indexOf('=');
      const typed = equals === -1 ? word : word.slice(0, equals);
      request = take(typed, longFlag(typed, where), equals === -1 ? undefined : word.slice(equals + 1));
    } else if (word.startsWith('-') && word !== '-') {
      request = takeShort(word, take, where);
    } else if (/^[\u2010-\u2015\u2212]/.test(word)) {
      throw usage(`${word} begins with a dash as texts have it: an option begins with hyphens, as --workers`, where);
    } else {
      positionals.push(word);
    }
    if (request !== undefined) return { options, positionals, request };
  }
  return { options, positionals };
}

/** `-w2`, `-w=2`, `-w` (its value is the next word), or several flags in one word. */
function takeShort(
  word: string,
  take: (typed: string, flag: Flag, attached: string | undefined) => 'help' | 'version' | undefined,
  where: string,
): 'help' | 'version' | undefined {
  // -bind would be -b with the value ind.
  if (FLAGS.has(`-${word.replace(/=.*/s, '')}`)) throw unknown(word.replace(/=.*/s, ''), where);
  for (let i = 1; i < word.length; i++) {
    const typed = `-${word.charAt(i)}`;
    const flag = FLAGS.get(typed);
    if (flag === undefined) throw unknown(i === 1 ? word : typed, where);
    const rest = word.slice(i + 1);
    if (flag.takes === 'nothing' && !rest.startsWith('=')) {
      const request = take(typed, flag, undefined);
      if (request !== undefined) return request;
    } else {
      return take(typed, flag, rest === '' ? undefined : rest.replace(/^=/, ''));
    }
  }
  return undefined;
}

/** As argparse decides whether a word can be a value: `-` and negative numbers can, other words with a dash cannot. */
function isValue(word: string | undefined): boolean {
  if (word === undefined) return false;
  return !word.startsWith('-') || word === '-' || /^-\d+$|^-\d*\.\d+$/.test(word) || word.includes(' ');
}

/** The flag of this name, or the only one that begins so. Gunicorn's come first: what is unambiguous there is so here. */
function longFlag(typed: string, where: string): Flag {
  const exact = FLAGS.get(typed);
  if (exact !== undefined) return exact;
  for (const origin of ['gunicorn', 'nunicorn'] as const) {
    const matches = [...FLAGS].filter(
      ([name, flag]) => name.startsWith(typed) && name.startsWith('--') && flag.origin === origin,
    );
    const [match] = matches;
    if (match === undefined) continue;
    if (matches.length === 1) return match[1];
    throw usage(`${typed} is ambiguous: it could be ${matches.map(([name]) => name).join(', ')}`, where);
  }
  throw unknown(typed, where);
}

function unknown(typed: string, where: string): NunicornError {
  // The name that a setting has in the configuration file is a likely slip: accesslog is --access-logfile here.
  const meant = new Map<string, string>();
  for (const [flag, { name, long }] of FLAGS) if (flag.startsWith('--')) meant.set(flag, flag).set(`--${name}`, long);
  for (const name of SETTING_NAMES) if (SETTINGS[name].flags.length === 0) meant.set(`--${name}`, name);
  const likely = meant.get(nearest(typed, meant.keys()) ?? '');
  if (likely === undefined) return usage(`unknown option ${typed}; nunicorn --help lists them all`, where);
  const hint = likely.startsWith('--') ? `did you mean ${likely}?` : `${likely} is set in the configuration file only`;
  return usage(`unknown option ${typed}: ${hint}`, where);
}

function usage(message: string, where: string): NunicornError {
  return new NunicornError(`${message} (from ${where})`, EXIT.USAGE);
}
