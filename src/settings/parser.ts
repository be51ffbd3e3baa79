import { EXIT, NunicornError } from '../errors.ts';

/** How yargs reads a command line here: values stay text, whatever they look like, and names stay names. */
export const AS_TYPED = {
  'boolean-negation': false,
  'camel-case-expansion': false,
  'dot-notation': false,
  'duplicate-arguments-array': true,
  'greedy-arrays': false,
  'parse-numbers': false,
  'parse-positional-numbers': false,
} as const;

/**
 * For yargs' `fail`: what it says of the words becomes an error in one line.
 *
 * @param command as the user calls it, e.g. `nunicorn top`
 */
export function failAs(command: string): (message: string, error: Error | undefined) => never {
  return (message, error) => {
    // Some of its own complaints yargs passes as an error, too, of a class that it does not export.
    if (error !== undefined && error.name !== 'YError') throw error;
    throw new NunicornError(`${command}: ${oneLine(message)}; see ${command} --help`, EXIT.USAGE);
  };
}

function oneLine(message: string): string {
  return message
    .replace(
      /^Not enough arguments following: (.+)$/,
      (_, name: string) => `${name.length === 1 ? '-' : '--'}${name} needs a value`,
    )
    .replace(/\s*\n\s*/g, ' ');
}
