/**
 * Gunicorn's access log format, compiled once into a flat list of segments. Hot path: one pass over the segments for each
 * request, no regular expression but the one that finds characters to escape.
 */
import { NunicornError } from '../errors.ts';
import { escapeValue } from './escape.ts';
import { clock } from './local-time.ts';
import { type Directive, numberFormatter, textFormatter } from './python-format.ts';

/** What is known of one answered request. */
export interface AccessRecord {
  /** The client, as the application sees it; empty on a Unix socket. */
  readonly remoteAddress: string;
  /** The user of HTTP Basic authentication. When left out, it is read from the Authorization header if the format asks. */
  readonly user?: string | undefined;
  readonly method: string;
  /** The request target as it was sent. */
  readonly rawUri: string;
  /** The decoded path (PATH_INFO). */
  readonly path: string;
  readonly query: string;
  /** E.g. `HTTP/1.1`. */
  readonly protocol: string;
  readonly status: number;
  /** What stands behind the status; empty: nothing. */
  readonly reason: string;
  /** Bytes of the response body that were sent, without headers and chunk framing; null if unknown. */
  readonly bytesSent: number | null;
  readonly durationUs: number;
  /** Name, value, name, value ... */
  readonly requestHeaders: readonly string[];
  readonly responseHeaders: readonly string[];
  /** What is known of the WSGI environ without the application: `NAME\0value\0...`; for loggers of Python. */
  readonly environBlock: string;
  /** Variables of the WSGI environ that the format asks for, as the application left them; null: none are known. */
  readonly environ: ReadonlyMap<string, string> | null;
  /** The process that ran the application; 0: the front answered by itself. */
  readonly pid: number;
  /** The worker's number, from 1, and its thread's; 0: none. */
  readonly worker: number;
  readonly thread: number;
}

export type AccessFormatter = (record: AccessRecord) => string;

type Atom = (record: AccessRecord) => string;
type Count = (record: AccessRecord) => number | null;

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const MISSING = '-';

const TEXT_ATOMS: ReadonlyMap<string, Atom> = new Map<string, Atom>([
  ['h', (record) => escapeValue(record.remoteAddress)],
  ['l', () => MISSING],
  ['u', (record) => escapeValue(record.user ?? basicUser(record.requestHeaders) ?? '') || MISSING],
  ['r', (record) => `${escapeValue(record.method)} ${escapeValue(record.rawUri)} ${escapeValue(record.protocol)}`],
  ['m', (record) => escapeValue(record.method)],
  ['U', (record) => escapeValue(record.path)],
  ['q', (record) => escapeValue(record.query)],
  ['H', (record) => escapeValue(record.protocol)],
  ['b', (record) => (record.bytesSent === null ? MISSING : String(record.bytesSent))],
  ['f', (record) => header(record.requestHeaders, 'referer')],
  ['a', (record) => header(record.requestHeaders, 'user-agent')],
  ['L', (record) => (record.durationUs / 1e6).toFixed(6)],
  ['p', (record) => `<${record.pid}>`],
]);

const COUNT_ATOMS: ReadonlyMap<string, Count> = new Map<string, Count>([
  ['s', (record) => record.status],
  ['B', (record) => record.bytesSent],
  ['T', (record) => Math.floor(record.durationUs / 1e6)],
  ['M', (record) => Math.floor(record.durationUs / 1e3)],
  ['D', (record) => Math.round(record.durationUs)],
]);

/** The letters of the atoms, for tests and documentation. `t` depends on the clock and is made for each format. */
export const ATOM_NAMES: readonly string[] = [...TEXT_ATOMS.keys(), ...COUNT_ATOMS.keys(), 't'];

/** Python's `%(name)FLAGS WIDTH .PRECISION CONVERSION`, or `%%`. */
const DIRECTIVE = /%(?:%|\(([^()]*)\)([-+ #0]*)(\d*)(?:\.(\d*))?[hlL]?([a-zA-Z]))/g;

/**
 * Compiles a format such as `%(h)s "%(r)s" %(s)s`. Whatever a client can choose is escaped, so that it cannot end a quoted
 * part or a line: `"` and `\` get a backslash, control characters become `\xNN`. What is not there reads `-`.
 *
 * @param now milliseconds since 1970, for `%(t)s`: the moment of logging
 * @throws {NunicornError} if the format is not one
 */
export function compileAccessFormat(format: string, now: () => number = Date.now): AccessFormatter {
  const literals: string[] = [];
  const atoms: Atom[] = [];
  let literal = '';
  let end = 0;
  for (const match of format.matchAll(DIRECTIVE)) {
    literal += plain(format, format.slice(end, match.index));
    end = match.index + match[0].length;
    const [directive, name, flags = '', width = '', precision, conversion = ''] = match;
    if (name === undefined) {
      literal += '%';
      continue;
    }
    literals.push(literal);
    literal = '';
    const shown = {
      flags,
      width: Number(width),
      precision: precision === undefined ? undefined : Number(precision),
      conversion,
    };
    const atom = convert(name, shown, now);
    if (atom === null) {
      throw new NunicornError(
        `invalid access log format '${format}': ${directive} cannot be shown that way; write %(${name})s`,
      );
    }
    atoms.push(atom);
  }
  literal += plain(format, format.slice(end));

  return (record) => {
    let line = '';
    for (let i = 0; i < atoms.length; i++) {
      // Both lists have this length: the checks only satisfy the compiler.
      line += (literals[i] ?? '') + (atoms[i]?.(record) ?? '');
    }
    return line + literal;
  };
}

function plain(format: string, part: string): string {
  if (!part.includes('%')) return part;
  throw new NunicornError(
    `invalid access log format '${format}': a % that is no identifier is at '${part.slice(part.indexOf('%'), part.indexOf('%') + 12)}'; write %(h)s for a value, %% for a percent sign`,
  );
}

/** Null: it cannot be shown that way. */
function convert(name: string, directive: Directive, now: () => number): Atom | null {
  const count = COUNT_ATOMS.get(name);
  if (count !== undefined) {
    const ofNumber = numberFormatter(directive);
    const ofNone = textFormatter({ ...directive, conversion: 's' });
    if (ofNumber === null || ofNone === null) return null;
    const show = directive.conversion === 'c' ? (value: number) => escapeValue(ofNumber(value)) : ofNumber;
    return (record) => {
      const value = count(record);
      return value === null ? ofNone(MISSING) : show(value);
    };
  }
  const ofText = textFormatter(directive);
  if (ofText === null) return null;
  const text = name === 't' ? timeAtom(now) : (TEXT_ATOMS.get(name) ?? namedAtom(name) ?? (() => MISSING));
  const { width, precision, conversion } = directive;
  if (conversion === 's' && width === 0 && precision === undefined) return text;
  return (record) => ofText(text(record));
}

/** The variables of the environ that a format names, as it names them: `REMOTE_USER` of `%({REMOTE_USER}e)s`. */
export function environNames(format: string): readonly string[] {
  return [...format.matchAll(/%\(\{([^{}()]*)\}e\)/gi)].map((match) => match[1] ?? '');
}

/** `{Name}i`, `{name}o` and `{name}e`: a request header, a response header, a variable of the environ. */
function namedAtom(name: string): Atom | undefined {
  const match = /^\{([^{}]*)\}([ioe])$/i.exec(name);
  const key = match?.[1];
  const kind = match?.[2]?.toLowerCase();
  if (key === undefined || kind === undefined) return undefined;
  const lower = key.toLowerCase();
  if (kind === 'i') return (record) => header(record.requestHeaders, lower);
  if (kind === 'o') return (record) => header(record.responseHeaders, lower);
  return (record) => variable(record.environ, key, lower);
}

/** `[20/Nov/2026:23:16:58 +0000]`, made once a second. */
function timeAtom(now: () => number): Atom {
  let second = Number.NaN;
  let text = '';
  return () => {
    const current = Math.floor(now() / 1000);
    if (current !== second) {
      second = current;
      const { year, month, day, time, zone } = clock(new Date(current * 1000));
      text = `[${day}/${MONTHS[Number(month) - 1]}/${year}:${time} ${zone}]`;
    }
    return text;
  };
}

/** The last header of this name, which is the one that Gunicorn shows. `headers`: name, value, name, value ... */
export function headerValue(headers: readonly string[], lowerName: string): string | undefined {
  for (let i = headers.length - 2; i >= 0; i -= 2) {
    const name = headers[i] ?? '';
    if (name.length === lowerName.length && name.toLowerCase() === lowerName) return headers[i + 1];
  }
  return undefined;
}

function header(headers: readonly string[], lowerName: string): string {
  const value = headerValue(headers, lowerName);
  return value === undefined ? MISSING : escapeValue(value);
}

function variable(environ: ReadonlyMap<string, string> | null, name: string, lowerName: string): string {
  if (environ === null) return MISSING;
  const value = environ.get(name) ?? environ.get(name.toUpperCase());
  if (value !== undefined) return escapeValue(value);
  for (const [key, other] of environ) if (key.toLowerCase() === lowerName) return escapeValue(other);
  return MISSING;
}

/** Of HTTP Basic authentication. */
export function basicUser(headers: readonly string[]): string | undefined {
  for (let i = headers.length - 2; i >= 0; i -= 2) {
    if (headers[i]?.toLowerCase() !== 'authorization') continue;
    const match = /^basic\s+(\S+)\s*$/i.exec(headers[i + 1] ?? '');
    return match?.[1] === undefined ? undefined : Buffer.from(match[1], 'base64').toString('utf8').split(':', 1)[0];
  }
  return undefined;
}
