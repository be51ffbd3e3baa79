/** A Web-standard `fetch(Request) => Response` handler as a (request, response) listener. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { RequestListener } from './load.ts';

export type FetchHandler = (request: Request) => Response | Promise<Response>;

/** The body streams both ways: the handler may answer before it has read all, and a slow client slows the handler's stream. */
export function listenerOf(handler: FetchHandler): RequestListener {
  return async (request, response) => {
    let given: Request;
    try {
      given = toRequest(request);
    } catch {
      // There is no such Request: its Host names no host, it is `OPTIONS *`, or a TRACE.
      response.writeHead(400, { 'Content-Type': 'text/plain', Connection: 'close' }).end('Bad Request\n');
      return;
    }
    const answer = await handler(given);
    if (response.destroyed) {
      await answer.body?.cancel();
      return;
    }
    await send(answer, response, request.method === 'HEAD');
  };
}

function toRequest(request: IncomingMessage): Request {
  const scheme = (request.socket as TLSSocket).encrypted ? 'https' : 'http';
  const target = request.url ?? '/';
  const url = target.startsWith('/') ? `${scheme}://${request.headers.host ?? 'localhost'}${target}` : target;
  const headers = new Headers();
  const raw = request.rawHeaders;
  for (let at = 0; at + 1 < raw.length; at += 2) headers.append(raw[at] ?? '', raw[at + 1] ?? '');
  const { method = 'GET' } = request;
  const { signal } = request as IncomingMessage & { readonly signal: AbortSignal };
  if (method === 'GET' || method === 'HEAD') return new Request(url, { method, headers, signal });
  const body = Readable.toWeb(request) as ReadableStream<Uint8Array>;
  return new Request(url, { method, headers, body, signal, duplex: 'half' });
}

async function send(answer: Response, response: ServerResponse, headOnly: boolean): Promise<void> {
  const headers: string[] = [];
  for (const [name, value] of answer.headers) headers.push(name, value);
  if (answer.statusText === '') response.writeHead(answer.status, headers);
  else response.writeHead(answer.status, answer.statusText, headers);
  if (answer.body === null || headOnly) {
    response.end();
    await answer.body?.cancel();
    return;
  }
  const reader = answer.body.getReader();
  const gone = (): void => void reader.cancel().catch(() => {});
  response.once('close', gone);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (!response.write(value) && !response.destroyed) await drained(response);
  }
  response.off('close', gone);
  response.end();
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done);
      response.off('close', done);
      resolve();
    };
    response.on('drain', done);
    response.on('close', done);
  });
}
