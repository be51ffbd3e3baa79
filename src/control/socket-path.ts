/** Which server the commands `ctl` and `top` mean. */
import { type Stats, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { EXIT, NunicornError } from '../errors.ts';

export const SOCKET_VARIABLE = 'NUNICORN_CONTROL_SOCKET';

/** @throws NunicornError if none is named, or something else is there */
export function socketPath(given: string | undefined, command: string): string {
  const named = given ?? process.env[SOCKET_VARIABLE] ?? '';
  if (named === '') {
    throw new NunicornError(
      `nunicorn ${command}: which server? Give -s SOCKET, the path its --control-socket names, or set ${SOCKET_VARIABLE}`,
      EXIT.USAGE,
    );
  }
  const path = resolve(named);
  // connect() gives one error for these and for a socket that nobody listens at.
  const there = statOf(path);
  if (there === undefined || there.isSocket()) return path;
  const what = there.isDirectory() ? 'a folder' : 'a file';
  throw new NunicornError(`${path}: this is ${what} and no socket; give the path that --control-socket names`);
}

/** Undefined: nothing is there, or it cannot be seen; then connect() says why. */
function statOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}
