/** Writes answers to clients. Flat arrays of names and values keep the order and the duplicates of an app's headers. */
import { STATUS_CODES } from 'node:http';
import { errorPage } from './error-page.ts';
import type { Exchange } from './exchange.ts';

const SERVER = 'nunicorn';
/** Up to here a body is copied into a string and leaves with its head in one write. */
const ONE_WRITE_BYTES = 16 * 1024;

/** Sends the head of an answer; `block` is the head block of a frame: reason, then names and values. */
export function sendHead(exchange: Exchange, status: number, block: string, close: boolean): void {
  const headers = block.split('\0');
  const reason = headers.shift() ?? '';
  headers.push('Server', SERVER);
  if (close || exchange.closeAfter || status < 200) headers.push('Connection', 'close');
  exchange.status = status;
  exchange.responseBlock = block;
  exchange.response.writeHead(status, reason, headers);
}

/** Sends a whole answer, which has a Content-Length or no body. The body is `buffer[start..end)`, valid only during the call. */
export function sendWhole(
  exchange: Exchange,
  status: number,
  block: string,
  buffer: Buffer,
  start: number,
  end: number,
  close: boolean,
): void {
  const body =
    end - start <= ONE_WRITE_BYTES ? buffer.toString('latin1', start, end) : Buffer.from(buffer.subarray(start, end));
  sendComplete(exchange, status, block, body, close);
}

/** As sendWhole; a body that is text is latin-1. */
export function sendComplete(
  exchange: Exchange,
  status: number,
  block: string,
  body: string | Buffer,
  close: boolean,
): void {
  const { request, response } = exchange;
  exchange.bytesSent = body.length;
  // What waits behind another answer of its connection goes the long way.
  if (request.httpVersionMajor !== 1 || status < 200 || response.socket === null) {
    sendHead(exchange, status, block, close);
    if (typeof body === 'string') response.end(body, 'latin1');
    else response.end(body);
    return;
  }
  exchange.status = status;
  exchange.responseBlock = block;
  const last = close || exchange.closeAfter || !response.shouldKeepAlive || response.isLast;
  const head = headLines(status, block) + dateLine() + (last ? CLOSE : KEEP_ALIVE);
  response.sendAtOnce(response.socket, head, body, last);
}

const KEEP_ALIVE = 'Connection: keep-alive\r\n\r\n';
const CLOSE = 'Connection: close\r\n\r\n';

/** Status line and header lines of a head block, which the worker has checked. */
function headLines(status: number, block: string): string {
  let at = block.indexOf('\0');
  let lines = `HTTP/1.1 ${status} ${at < 0 ? block : block.slice(0, at)}\r\n`;
  while (at >= 0) {
    const nameEnd = block.indexOf('\0', at + 1);
    const next = block.indexOf('\0', nameEnd + 1);
    lines += `${block.slice(at + 1, nameEnd)}: ${next < 0 ? block.slice(nameEnd + 1) : block.slice(nameEnd + 1, next)}\r\n`;
    at = next;
  }
  return `${lines}Server: ${SERVER}\r\n`;
}

let dateSecond = 0;
let date = '';

/** The Date header, made anew once a second. */
function dateLine(): string {
  const second = Math.floor(Date.now() / 1000);
  if (second !== dateSecond) {
    dateSecond = second;
    date = `Date: ${new Date(second * 1000).toUTCString()}\r\n`;
  }
  return date;
}

/**
 * Answers with a page of the server's own and closes the connection. `whenToEnd` may put off the end, which closes it.
 */
export function finishWithPage(
  exchange: Exchange,
  status: number,
  message: string,
  whenToEnd: (end: () => void) => void = (end) => end(),
  extraHeaders: readonly string[] = [],
): void {
  const response = exchange.response;
  if (response.headersSent) {
    exchange.connection.socket.destroy();
    return;
  }
  const page = errorPage(status, message);
  const headers = ['Server', SERVER, 'Connection', 'close', 'Content-Type', 'text/html', 'Content-Length'];
  headers.push(String(Buffer.byteLength(page)), ...extraHeaders);
  exchange.status = status;
  const isHead = exchange.request.method === 'HEAD';
  exchange.bytesSent = isHead ? 0 : page.length;
  const reason = STATUS_CODES[status] ?? 'Error';
  exchange.responseBlock = [reason, ...headers].join('\0');
  response.writeHead(status, reason, headers);
  // The head leaves now, as the end may come too late for it: a write without a body would keep it back.
  if (isHead) response.flushHeaders();
  else response.write(page);
  whenToEnd(() => response.end());
}

/**
 * Ends the connection in the middle of an answer, so that the client sees that something is missing. What was written before goes
 * out: Node 26 keeps it in the response until the end of the turn.
 */
export function cut({ response, connection }: Exchange): void {
  while (response.writableCorked > 0) response.uncork();
  connection.socket.destroySoon();
}
