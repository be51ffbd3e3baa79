/** What an operator sees of a server: log lines, exit codes, files. */
import type { Server } from '../helpers/server.ts';
import { normalise, type Transcript } from './parity.ts';

/** A line of the log may begin behind half a line: of the stack of a process that was killed while it wrote. */
const LINE_END = /\n|(?=\[\d{4}-\d\d-\d\d )/;

/** The lines of the log that match, normalised, in their order. */
export function logLines(server: Server, pattern: RegExp, from = 0): Transcript {
  return server.log
    .slice(from)
    .split(LINE_END)
    .filter((line) => pattern.test(line))
    .map((line) => normalise(line, server));
}

/** Waits for the end; gives the exit code and the log lines that match. */
export async function ends(server: Server, pattern: RegExp): Promise<Transcript> {
  const { code, signal } = await server.exit(40_000);
  return [...logLines(server, pattern), `exit code ${code}${signal === null ? '' : `, ${signal}`}`];
}
