/**
 * The kinds of value that a setting can have. Each reads a raw value, either text (command line, environment) or what the
 * Python configuration file gave (JSON), and throws a `ValueError` that says what is needed.
 */
import { accessSync, constants, statSync } from 'node:fs';
import { isIPv4, isIPv6 } from 'node:net';
import { resolve } from 'node:path';
import { NunicornError } from '../errors.ts';
import { LOG_LEVELS, type LogFormat, type LogLevel } from '../log/levels.ts';
import { groupId, userId } from './accounts.ts';
import { parseAddress } from './address.ts';
import type { CountOrAuto } from './auto.ts';
import { parseStatsdAddress } from './statsd-address.ts';

/** What reading a value may need to know, and how it can speak to the user without failing. */
export interface ParseContext {
  /** The folder that the server was started in: relative paths start here. */
  readonly cwd: string;
  warn(text: string): void;
}

/** The value does not fit. Its message says what is needed; the caller adds which setting and where it came from. */
export class ValueError extends Error {}

/** It is no number where one is needed: among arguments a mistake in using the command, as argparse has it. */
export class NoNumberError extends ValueError {}

export interface ValueType<T> {
  /** For the documentation, e.g. `whole number`. */
  readonly label: string;
  /** How the command line takes it: with a value, with a value and repeatable, alone (true), or either (alone: ''). */
  readonly arity: 'one' | 'many' | 'flag' | 'optional';
  /** The values to offer, where these are few. */
  readonly choices?: readonly string[];
  /** None in a configuration file is no value: the default holds. */
  readonly noneIsUnset?: true;
  parse(raw: unknown, context: ParseContext): T;
}

export type WorkerClass = 'sync' | 'gthread' | 'async';

/** What is wrong with a text that `integer` does not take. */
function notInteger(raw: unknown, needed: string): ValueError {
  const isNumber = typeof raw !== 'string' || /^\s*[+-]?\d+\s*$/.test(raw);
  return isNumber ? new ValueError(needed) : new NoNumberError(needed);
}

const INTEGER = /^\+?(?:0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|\d+)$/;

/** As Python's `int(value, 0)` and Gunicorn's pos_int: 16, "16", "0x10", "1_000"; True is 1. */
function integer(raw: unknown): number | undefined {
  if (typeof raw === 'boolean') return Number(raw);
  if (typeof raw === 'number') return Number.isSafeInteger(raw) && raw >= 0 ? raw : undefined;
  if (typeof raw !== 'string') return undefined;
  const text = raw.trim().replace(/(?<=[0-9a-fA-F])_(?=[0-9a-fA-F])/g, '');
  if (!INTEGER.test(text)) return undefined;
  const value = Number(text.replace(/^\+/, ''));
  return Number.isSafeInteger(value) ? value : undefined;
}

/** @param unit what it counts, as `seconds`, where it counts anything else than things */
export function wholeNumberOf(unit?: string): ValueType<number> {
  const label = unit === undefined ? 'whole number' : `whole number of ${unit}`;
  return {
    label,
    arity: 'one',
    parse(raw) {
      const value = integer(raw);
      if (value === undefined) throw notInteger(raw, `a ${label}, 0 or more, is needed`);
      return value;
    },
  };
}

export const wholeNumber = wholeNumberOf();

/** A number of workers or threads, `least` or more, or `auto`: chosen at the start (auto.ts). */
function countOrAuto(least: 0 | 1): ValueType<CountOrAuto> {
  return {
    label: `whole number${least === 1 ? ', 1 or more' : ''}, or auto`,
    arity: 'one',
    parse(raw) {
      if (typeof raw === 'string' && raw.trim().toLowerCase() === 'auto') return 'auto';
      const value = integer(raw);
      if (value === undefined || value < least) {
        throw notInteger(raw, `a whole number, ${least} or more, or auto, is needed`);
      }
      return value;
    },
  };
}

export const workerCount = countOrAuto(0);
export const threadCount = countOrAuto(1);

export const seconds: ValueType<number> = {
  label: 'seconds',
  arity: 'one',
  parse(raw) {
    const value = typeof raw === 'string' && /^\s*\d+\.\d+\s*$/.test(raw) ? Number(raw) : raw;
    if (typeof value === 'number' && Number.isFinite(value) && value >= 0) return value;
    const whole = integer(raw);
    if (whole === undefined) throw new ValueError('a number of seconds, 0 or more, is needed');
    return whole;
  },
};

/** A mode for files. Text that begins with 0 is octal, as in the shell's `umask 022`. */
export const octal: ValueType<number> = {
  label: 'whole number, octal when it begins with 0',
  arity: 'one',
  parse(raw) {
    const octalText = typeof raw === 'string' && /^0[0-7]+$/.test(raw.trim());
    const invalidOctal = typeof raw === 'string' && /^0\d+$/.test(raw.trim()) && !octalText;
    const value = octalText ? Number.parseInt(raw, 8) : integer(raw);
    if (value === undefined || invalidOctal || value > 0o7777) {
      throw new ValueError('a number from 0 to 07777 is needed, octal when it begins with 0, such as 022');
    }
    return value;
  },
};

export const flag: ValueType<boolean> = {
  label: 'true or false',
  arity: 'flag',
  noneIsUnset: true,
  parse(raw) {
    const value = typeof raw === 'string' ? raw.trim().toLowerCase() : raw;
    if (value === true || value === 'true') return true;
    if (value === false || value === 'false') return false;
    throw new ValueError('True or False is needed');
  },
};

export const text: ValueType<string> = {
  label: 'text',
  arity: 'one',
  noneIsUnset: true,
  parse(raw) {
    if (typeof raw !== 'string') throw new ValueError('text is needed');
    return raw.trim();
  },
};

export const logFormat: ValueType<LogFormat> = choice('text', 'json');

/** A dictionary for Python's logging. What in it has no form in JSON stands here by its type's name, and stays in Python. */
export const logDictionary: ValueType<Readonly<Record<string, unknown>>> = {
  label: 'dictionary',
  arity: 'one',
  parse(raw) {
    if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw new ValueError('a dictionary is needed');
    return { ...raw };
  },
};

/** The name of gunicorn's own logger, which ours stands for. */
export const GUNICORN_LOGGER = 'gunicorn.glogging.Logger';

export const loggerClass: ValueType<string> = {
  label: 'dotted name of a class',
  arity: 'one',
  parse(raw, context) {
    const value = text.parse(raw, context);
    if (value === '' || value === 'simple') return GUNICORN_LOGGER;
    if (!value.includes('.'))
      throw new ValueError('the dotted name of a class is needed, such as package.module.Logger');
    return value;
  },
};

/** A server hook, by the name of its function. The function itself stays in the configuration file. */
export const hook: ValueType<string | null> = {
  label: 'function',
  arity: 'one',
  parse(raw) {
    if (raw === null) return null;
    if (typeof raw === 'string' && raw.trim() !== '') return raw.trim();
    throw new ValueError('a function, or its dotted name such as package.module.function, is needed');
  },
};

export const optionalText: ValueType<string | null> = {
  label: 'text',
  arity: 'one',
  parse(raw, context) {
    const value = raw === null ? '' : text.parse(raw, context);
    return value === '' ? null : value;
  },
};

/** Where the admin server listens: no default for the port, lest it be that of the app. */
export const adminAddress: ValueType<string | null> = {
  label: 'address',
  arity: 'one',
  parse(raw, context) {
    const address = optionalText.parse(raw, context);
    if (address === null) return null;
    parseOrExplain(address);
    if (!address.startsWith('unix:') && !/:\d+$/.test(address))
      throw new ValueError('a port is needed, such as 127.0.0.1:9464, or unix:PATH');
    return address;
  },
};

export const statsdAddress: ValueType<string | null> = {
  label: 'address',
  arity: 'one',
  parse(raw, context) {
    const address = optionalText.parse(raw, context);
    if (address !== null) {
      try {
        parseStatsdAddress(address);
      } catch (error) {
        throw error instanceof NunicornError ? new ValueError(error.message) : error;
      }
    }
    return address;
  },
};

function listOf(raw: unknown, entry: string): readonly string[] {
  if (raw === null || raw === '') return [];
  const list = typeof raw === 'string' ? [raw] : raw;
  if (!Array.isArray(list)) throw new ValueError(`${entry}, or a list of them, is needed`);
  return list.map((item: unknown) => {
    if (typeof item !== 'string') throw new ValueError(`${entry}, or a list of them, is needed`);
    return item.trim();
  });
}

/** Addresses to listen at, kept as the user wrote them: `parseAddress` reads each. */
export const addresses: ValueType<readonly string[]> = {
  label: 'list of addresses',
  arity: 'many',
  parse(raw) {
    const list = listOf(raw, 'an address');
    if (list.length === 0) throw new ValueError('at least one address is needed, such as 127.0.0.1:8000');
    for (const item of list) parseOrExplain(item);
    return list;
  },
};

function parseOrExplain(address: string): void {
  try {
    parseAddress(address);
  } catch (error) {
    throw error instanceof NunicornError ? new ValueError(error.message) : error;
  }
}

export const environment: ValueType<readonly string[]> = {
  label: 'list of KEY=VALUE',
  arity: 'many',
  parse(raw) {
    const list = listOf(raw, 'KEY=VALUE');
    const wrong = list.find((item) => !/^[^=\0]+=[^\0]*$/.test(item));
    if (wrong !== undefined) throw new ValueError(`KEY=VALUE is needed, '${wrong}' is not of that form`);
    return list;
  },
};

export function choice<const Value extends string>(...values: readonly Value[]): ValueType<Value> {
  return {
    label: values.join(', '),
    arity: 'one',
    choices: values,
    noneIsUnset: true,
    parse(raw, context) {
      const given = text.parse(raw, context).toLowerCase();
      const value = values.find((known) => known === given);
      if (value === undefined) throw new ValueError(`one of ${values.join(', ')} is needed`);
      return value;
    },
  };
}

/** Texts: one flag with commas, or a flag for each. */
export function list(arity: 'one' | 'many'): ValueType<readonly string[]> {
  return {
    label: arity === 'one' ? 'list, separated by commas' : 'list',
    arity,
    noneIsUnset: true,
    parse: (raw) => (arity === 'one' ? commaList(raw, 'text') : listOf(raw, 'text')),
  };
}

/** Names separated by commas, or a list. */
function commaList(raw: unknown, entry: string): readonly string[] {
  return listOf(raw, entry)
    .flatMap((item) => item.split(','))
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

export const folders: ValueType<readonly string[]> = {
  label: 'folders, separated by commas',
  arity: 'one',
  parse: (raw) => commaList(raw, 'a folder'),
};

export const headerNames: ValueType<readonly string[]> = {
  label: 'header names, separated by commas',
  arity: 'one',
  parse: (raw) => commaList(raw, 'a header name'),
};

export const networks: ValueType<readonly string[]> = {
  label: 'IP addresses or networks, separated by commas, or *',
  arity: 'one',
  parse(raw) {
    const list = commaList(raw, 'an IP address or a network');
    for (const item of list) if (item !== '*') checkNetwork(item);
    return list;
  },
};

/** An address, or a network in CIDR form whose host bits are all zero: 192.168.1.1/24 is more often a mistake than meant. */
function checkNetwork(item: string): void {
  const [address = '', prefix, ...rest] = item.split('/');
  const bits = isIPv4(address) ? 32 : isIPv6(address) ? 128 : 0;
  if (
    bits === 0 ||
    rest.length > 0 ||
    (prefix !== undefined && !(/^\d{1,3}$/.test(prefix) && Number(prefix) <= bits))
  ) {
    throw new ValueError(`'${item}' is not an IP address or a network such as 10.0.0.0/8, nor *`);
  }
  if (prefix === undefined) return;
  const value = bits === 32 ? ipv4Value(address) : ipv6Value(address);
  const hostBits = BigInt(bits - Number(prefix));
  if (value !== (value >> hostBits) << hostBits) {
    throw new ValueError(`'${item}' has host bits set: write the network itself, or the address without /${prefix}`);
  }
}

function ipv4Value(address: string): bigint {
  return address.split('.').reduce((value, part) => (value << 8n) | BigInt(part), 0n);
}

function ipv6Value(address: string): bigint {
  const plain = address.replace(/(\d+\.\d+\.\d+\.\d+)$/, (v4) => {
    const value = ipv4Value(v4);
    return `${(value >> 16n).toString(16)}:${(value & 0xffffn).toString(16)}`;
  });
  const [head = '', tail] = plain.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? [] : new Array<string>(8 - left.length - right.length).fill('0');
  return [...left, ...zeros, ...right].reduce((value, part) => (value << 16n) | BigInt(`0x${part}`), 0n);
}

/** Header names with the value that says "this request came over https". */
export const headerValues: ValueType<Readonly<Record<string, string>>> = {
  label: 'dictionary of header name to value',
  arity: 'one',
  parse(raw) {
    if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw new ValueError('a dictionary is needed');
    const entries = Object.entries(raw).map(([name, value]): [string, string] => {
      if (typeof value !== 'string') throw new ValueError(`the value of '${name}' must be text`);
      return [name, value];
    });
    return Object.fromEntries(entries);
  },
};

/** What becomes of headers with an underscore, which would be the same environ key as those with a hyphen. */
export type HeaderMap = 'drop' | 'refuse' | 'dangerous';

export const headerMap: ValueType<HeaderMap> = {
  label: 'drop, refuse or dangerous',
  arity: 'one',
  parse(raw, context) {
    // As Gunicorn, which refuses the header unless the setting says otherwise.
    if (raw === null) return 'refuse';
    const value = text.parse(raw, context).toLowerCase();
    if (value === 'drop' || value === 'refuse' || value === 'dangerous') return value;
    throw new ValueError('drop, refuse or dangerous is needed');
  },
};

/** Which versions of the PROXY protocol are looked for. */
export type ProxyProtocol = 'off' | 'v1' | 'v2' | 'auto';

/** Gunicorn's spellings. Alone on the command line it is auto. */
const PROXY_PROTOCOLS: Readonly<Record<string, ProxyProtocol>> = {
  off: 'off',
  false: 'off',
  none: 'off',
  '0': 'off',
  v1: 'v1',
  v2: 'v2',
  auto: 'auto',
  true: 'auto',
  '1': 'auto',
  '': 'auto',
};

export const proxyProtocol: ValueType<ProxyProtocol> = {
  label: 'off, v1, v2 or auto',
  arity: 'optional',
  parse(raw) {
    const name = raw === null ? 'off' : typeof raw === 'boolean' || typeof raw === 'string' ? String(raw) : '?';
    const mode = PROXY_PROTOCOLS[name.trim().toLowerCase()];
    if (mode === undefined) throw new ValueError('off, v1, v2 or auto is needed');
    return mode;
  },
};

export type ClientCertificates = 'none' | 'optional' | 'required';

export const clientCertificates: ValueType<ClientCertificates> = {
  label: '0 (none), 1 (optional) or 2 (required)',
  arity: 'one',
  parse(raw) {
    const kinds: readonly ClientCertificates[] = ['none', 'optional', 'required'];
    const kind = kinds.find((name) => name === raw) ?? kinds[integer(raw) ?? -1];
    if (kind === undefined) throw new ValueError('0 (none), 1 (optional) or 2 (required) is needed');
    return kind;
  },
};

/** Whatever names a version of TLS: a constant of Python's ssl, or its name. 2 is ssl.PROTOCOL_TLS, Gunicorn's default. */
export const sslVersion: ValueType<string | number> = {
  label: 'anything',
  arity: 'one',
  parse: (raw) => (typeof raw === 'string' || typeof raw === 'number' ? raw : 2),
};

export const existingFolder: ValueType<string> = {
  label: 'folder',
  arity: 'one',
  parse(raw, context) {
    const path = resolve(context.cwd, text.parse(raw, context));
    try {
      if (!statSync(path).isDirectory()) throw new ValueError('a folder is needed, and this is none');
      accessSync(path, constants.X_OK);
    } catch (error) {
      if (error instanceof ValueError) throw error;
      const isDenied = (error as NodeJS.ErrnoException).code === 'EACCES';
      throw new ValueError(
        isDenied ? 'a folder that this user may enter is needed (EACCES)' : 'a folder that exists is needed',
      );
    }
    return path;
  },
};

export const optionalFolder: ValueType<string | null> = {
  label: 'folder',
  arity: 'one',
  parse: (raw, context) => (raw === null || raw === '' ? null : existingFolder.parse(raw, context)),
};

export const logLevel: ValueType<LogLevel> = {
  label: LOG_LEVELS.join(', '),
  arity: 'one',
  choices: LOG_LEVELS,
  parse(raw, context) {
    const name = text.parse(raw, context).toLowerCase();
    const level = LOG_LEVELS.find((known) => known === name);
    if (level !== undefined) return level;
    // Gunicorn falls back to info without a word.
    context.warn(`'${name}' is no log level, info is used; the levels are ${LOG_LEVELS.join(', ')}`);
    return 'info';
  },
};

export type ReloadEngine = 'auto' | 'poll' | 'inotify';

const WORKER_CLASSES: ReadonlyMap<string, WorkerClass> = new Map([
  ['sync', 'sync'],
  ['gthread', 'gthread'],
  ['async', 'async'],
  ['gunicorn.workers.sync.SyncWorker', 'sync'],
  ['gunicorn.workers.gthread.ThreadWorker', 'gthread'],
]);

export const workerClass: ValueType<WorkerClass> = {
  label: 'sync, gthread or async',
  arity: 'one',
  choices: ['sync', 'gthread', 'async'],
  parse(raw, context) {
    const name = text.parse(raw, context).replace(/^egg:gunicorn#/, '');
    const known = WORKER_CLASSES.get(name);
    if (known === undefined) throw new ValueError(insteadOfClass(name));
    return known;
  },
};

function insteadOfClass(name: string): string {
  const gthread = 'gthread with --threads N runs N requests at a time in each worker';
  if (/gevent|eventlet|tornado/i.test(name)) {
    return `nunicorn does not run this worker class; ${gthread}, and slow clients hold no thread here`;
  }
  if (/asgi|uvicorn|aiohttp|sanic/i.test(name)) {
    return 'nunicorn serves WSGI applications only, with the worker classes sync and gthread; one for asyncio needs a server of its kind';
  }
  if (/[.:]/.test(name)) {
    return 'nunicorn runs no worker class but sync and gthread: write one of these, and what a class of your own adds to them into hooks, such as post_fork for its init_process';
  }
  return `the worker classes here are sync and gthread, for Node apps async and gthread; ${gthread}`;
}

export const user: ValueType<number | null> = {
  label: 'user name or id',
  arity: 'one',
  parse: (raw) => account(raw, 'user', userId),
};

export const group: ValueType<number | null> = {
  label: 'group name or id',
  arity: 'one',
  parse: (raw) => account(raw, 'group', groupId),
};

function account(raw: unknown, noun: string, lookUp: (name: string) => number | undefined): number | null {
  if (raw === null) return null;
  const id = integer(raw) ?? (typeof raw === 'string' && raw.trim() !== '' ? lookUp(raw.trim()) : undefined);
  if (id === undefined) throw new ValueError(`the name or number of a ${noun} of this machine is needed`);
  return id;
}
