/** Python's `%` formatting of one value, as far as values of the access log need it: text, and whole numbers from 0. */

/** `%(name)FLAGS WIDTH .PRECISION CONVERSION` without its name. */
export interface Directive {
  /** Of `-+ #0`. */
  readonly flags: string;
  readonly width: number;
  readonly precision: number | undefined;
  readonly conversion: string;
}

type Shown = (value: number, alternate: boolean, precision: number | undefined) => string;

/** What stands for a number between its sign and its width; `0x` and the like not yet before it. */
const NUMBERS: ReadonlyMap<string, Shown> = new Map<string, Shown>([
  ['d', whole(10)],
  ['i', whole(10)],
  ['u', whole(10)],
  ['o', whole(8)],
  ['x', whole(16)],
  ['X', whole(16)],
  ['f', fixed],
  ['F', fixed],
  ['e', scientific],
  ['E', scientific],
  ['g', general],
  ['G', general],
]);
const PREFIXES: Readonly<Record<string, string>> = { o: '0o', x: '0x', X: '0x' };

const TEXTS: ReadonlyMap<string, (text: string) => string> = new Map([
  ['s', (text: string) => text],
  ['r', (text: string) => quoted(text, /[\p{C}\p{Z}]/u)],
  ['a', (text: string) => quoted(text, /[^\x20-\x7e]/)],
]);

/** Null: Python does not show text that way. */
export function textFormatter(directive: Directive): ((text: string) => string) | null {
  const { precision, conversion } = directive;
  const convert = TEXTS.get(conversion);
  if (convert === undefined) return null;
  const pad = padder(directive);
  if (precision === undefined) return (text) => pad(convert(text));
  return (text) => pad(convert(text).slice(0, precision));
}

/** Null: Python does not show a number that way. */
export function numberFormatter(directive: Directive): ((value: number) => string) | null {
  const { flags, width, precision, conversion } = directive;
  if ('sra'.includes(conversion)) {
    const format = textFormatter({ ...directive, conversion: 's' });
    return format && ((value) => format(String(value)));
  }
  const pad = padder(directive);
  if (conversion === 'c') return (value) => pad(value > 0x10ffff ? '' : String.fromCodePoint(value));
  const show = NUMBERS.get(conversion);
  if (show === undefined) return null;
  const alternate = flags.includes('#');
  const sign = flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '';
  const start = sign + (alternate ? (PREFIXES[conversion] ?? '') : '');
  const zeros = flags.includes('0') && !flags.includes('-') ? width - start.length : 0;
  const format = (value: number): string => pad(start + show(value, alternate, precision).padStart(zeros, '0'));
  return 'XEG'.includes(conversion) ? (value) => format(value).toUpperCase() : format;
}

/** To the width with spaces; zeros are what a number fills up with before. */
function padder({ flags, width }: Directive): (text: string) => string {
  if (width === 0) return (text) => text;
  return flags.includes('-') ? (text) => text.padEnd(width) : (text) => text.padStart(width);
}

function whole(base: number): Shown {
  return (value, _, precision = 0) => value.toString(base).padStart(precision, '0');
}

function fixed(value: number, alternate: boolean, precision = 6): string {
  return withFraction(String(value), '0'.repeat(precision), alternate);
}

function scientific(value: number, alternate: boolean, precision = 6): string {
  const { digits, exponent } = rounded(value, precision + 1);
  return withExponent(withFraction(digits.slice(0, 1), digits.slice(1), alternate), exponent);
}

/** Whichever of the two is shorter, without the zeros at its end. */
function general(value: number, alternate: boolean, precision = 6): string {
  const { digits, exponent } = rounded(value, Math.max(1, precision));
  const isFixed = exponent < Math.max(1, precision);
  const before = isFixed ? exponent + 1 : 1;
  const fraction = alternate ? digits.slice(before) : digits.slice(before).replace(/0+$/, '');
  const text = withFraction(digits.slice(0, before), fraction, alternate);
  return isFixed ? text : withExponent(text, exponent);
}

function withFraction(before: string, fraction: string, alternate: boolean): string {
  return fraction === '' && !alternate ? before : `${before}.${fraction}`;
}

function withExponent(text: string, exponent: number): string {
  return `${text}e+${String(exponent).padStart(2, '0')}`;
}

/** A whole number to so many digits, ties to even as in Python: toExponential() and toPrecision() round them up. */
function rounded(value: number, count: number): { readonly digits: string; readonly exponent: number } {
  const all = String(value);
  const exponent = all.length - 1;
  if (count >= all.length) return { digits: all.padEnd(count, '0'), exponent };
  const kept = Number(all.slice(0, count));
  const rest = all.slice(count);
  const half = '5'.padEnd(rest.length, '0');
  const up = rest > half || (rest === half && kept % 2 === 1);
  const digits = String(up ? kept + 1 : kept);
  return digits.length > count ? { digits: digits.slice(0, count), exponent: exponent + 1 } : { digits, exponent };
}

/** As repr() and ascii(). */
function quoted(text: string, escaped: RegExp): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let result = quote;
  for (const character of text) {
    if (character === quote || character === '\\') result += `\\${character}`;
    else if (character !== ' ' && escaped.test(character)) result += escapeOf(character);
    else result += character;
  }
  return result + quote;
}

const SHORT_ESCAPES: Readonly<Record<string, string>> = { '\t': '\\t', '\n': '\\n', '\r': '\\r' };

function escapeOf(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  const [letter, digits] = code < 0x100 ? ['x', 2] : code < 0x10000 ? ['u', 4] : ['U', 8];
  return SHORT_ESCAPES[character] ?? `\\${letter}${code.toString(16).padStart(Number(digits), '0')}`;
}
