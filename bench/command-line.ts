/** The command line of a benchmark. */

import { type ParseArgsConfig, parseArgs } from 'node:util';

type Options = NonNullable<ParseArgsConfig['options']>;
type Values<O extends Options> = ReturnType<typeof parseArgs<{ options: O }>>['values'];

/**
 * What `read` makes of the options. Ends the process after --help, and after one line that says what is wrong.
 *
 * @param script its name in package.json
 * @param usage a line for each option
 * @param read throws an Error for a value that cannot be
 */
export function commandLine<const O extends Options, T>(
  script: string,
  usage: string,
  options: O,
  read: (values: Values<O>) => T,
): T {
  try {
    if (process.argv.includes('--help')) {
      console.log(`npm run ${script} -- [options]\n${usage}`);
      process.exit(0);
    }
    return read(parseArgs({ options }).values);
  } catch (error) {
    console.error(
      `npm run ${script}: ${error instanceof Error ? error.message : error}; see npm run ${script} -- --help`,
    );
    process.exit(2);
  }
}

/** A whole number from 1. */
export function positive(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} takes a whole number from 1, not ${text}`);
  return value;
}

/** A time in seconds. */
export function duration(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0 && value < Number.POSITIVE_INFINITY)) throw new Error(`--${name} takes seconds, not ${text}`);
  return value;
}

/** Of the names that are known those in a list such as `a,b`; all without a list. */
export function pick<N extends string>(name: string, text: string | undefined, known: readonly N[]): ReadonlySet<N> {
  const wanted = new Set<string>(text?.split(',') ?? known);
  const picked = new Set(known.filter((each) => wanted.delete(each)));
  if (wanted.size > 0) throw new Error(`--${name}: no ${[...wanted].join(', ')}; there are ${known.join(', ')}`);
  return picked;
}
