/** What a client sees of one exchange, as lines. */
import { createHash } from 'node:crypto';
import { DeadlineError } from '../helpers/deadline.ts';
import { Connection, type Response } from '../helpers/http.ts';
import type { Server } from '../helpers/server.ts';
import { normalise, type Transcript } from './parity.ts';

export interface View {
  /** Show how the length of the body was told. Otherwise: that it was told. */
  readonly framing?: boolean;
  /** Show all headers in the order they came; otherwise sorted, and without those that are always there. */
  readonly order?: boolean;
  /** Show no body: an error page says the same in other words. */
  readonly noBody?: boolean;
  /** Answers to read. */
  readonly answers?: number;
  /** For a server that may not answer at all: after this time that is what it is said to do. */
  readonly patienceMs?: number;
}

const FRAMING = /^(content-length|transfer-encoding): /i;
const ALWAYS = /^(server|date): /i;
const LONG = 300;

function shown(body: Buffer, server: Server): string {
  if (body.length <= LONG) return JSON.stringify(normalise(body.toString('latin1'), server));
  return `${body.length} bytes, sha256 ${createHash('sha256').update(body).digest('hex').slice(0, 16)}`;
}

/** Lines of one response. */
export function seen(response: Response, server: Server, view: View): string[] {
  let headers = response.lines.map((line) => normalise(line, server));
  if (!view.order) {
    headers = headers.filter((line) => !ALWAYS.test(line) && (view.framing || !FRAMING.test(line)));
    headers = headers.map((line) => line.replace(/^connection:/i, 'Connection:'));
    headers.sort((a, b) => a.localeCompare(b));
  }
  const isPage = response.lines.some((line) => /^content-type: text\/html/i.test(line)) && response.status >= 400;
  return [
    ...response.interim.flatMap((head) => [`HTTP/1.1 ${head.status} ${head.reason}`, ...head.lines]),
    `${view.order || view.framing ? response.version : 'HTTP'} ${response.status} ${response.reason}`,
    ...headers,
    ...(view.noBody || isPage ? [] : [`body: ${shown(response.body, server)}`]),
    ...(view.framing ? [`framing: ${response.framing}`] : []),
    ...(response.complete ? [] : ['the connection ends before the body does']),
  ];
}

/** Sends the bytes on a new connection and tells what comes back and whether the connection stays. */
export async function exchanged(server: Server, bytes: string | Buffer, view: View = {}): Promise<Transcript> {
  const connection = await Connection.open(server.address);
  const lines: string[] = [];
  try {
    void connection.send(bytes);
    const method = /^[A-Z]+/.exec(bytes.toString('latin1').slice(0, 20))?.[0] ?? 'GET';
    for (let answer = 0; answer < (view.answers ?? 1); answer++) {
      try {
        const response = await connection.response(method, view.patienceMs);
        lines.push(...seen(response, server, view));
        if (response.lines.some((line) => /^connection: close/i.test(line)) || !response.complete) {
          await connection.end();
          lines.push('closed');
          return lines;
        }
      } catch (error) {
        // What is no HTTP, or cut before its head, has no more than a name.
        if (error instanceof DeadlineError && view.patienceMs !== undefined) lines.push('no answer: it waits for more');
        else if (error instanceof DeadlineError) throw error;
        else
          lines.push(
            error instanceof Error && error.message.startsWith('not ') ? 'not HTTP' : 'closed without an answer',
          );
        return lines;
      }
    }
    lines.push('kept open');
    return lines;
  } finally {
    connection.close();
  }
}

/** A GET over HTTP/1.1 that leaves the connection open. */
export function asked(server: Server, path: string, view: View = {}, method = 'GET'): Promise<Transcript> {
  return exchanged(server, `${method} ${path} HTTP/1.1\r\nHost: test\r\n\r\n`, view);
}

/** The same over HTTP/1.0. */
export function asked10(server: Server, path: string, view: View = {}, headers = ''): Promise<Transcript> {
  return exchanged(server, `GET ${path} HTTP/1.0\r\nHost: test\r\n${headers}\r\n`, view);
}

/** How long a client waits that one of the two servers may leave without an answer. */
export const PATIENCE_MS = 5000;
export const WAITS = 'no answer: it waits';

/** What comes back within that time, in one line. */
export async function within(answer: Promise<Response>): Promise<string> {
  try {
    const { status, complete } = await answer;
    return complete ? `${status}` : `${status}, and the connection ends before the body does`;
  } catch (error) {
    return error instanceof DeadlineError ? WAITS : 'closed without an answer';
  }
}

/** The status of a GET on a connection of its own, or that there is none for PATIENCE_MS. */
export function patient(server: Server, path = '/'): Promise<string> {
  return within(server.get(path, '', PATIENCE_MS));
}
