/** Which server the commands `ctl` and `top` mean. */
import { EXIT, NunicornError } from '../errors.ts';

export const SOCKET_VARIABLE = 'NUNICORN_CONTROL_SOCKET';

/** @throws NunicornError if none is named */
export function socketPath(given: string | undefined, command: string): string {
  const path = given ?? process.env[SOCKET_VARIABLE] ?? '';
  if (path !== '') return path;
  throw new NunicornError(
    `nunicorn ${command}: which server? Give -s SOCKET, the path its --control-socket names, or set ${SOCKET_VARIABLE}`,
    EXIT.USAGE,
  );
}
