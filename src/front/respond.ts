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
  exchange.responseHeaders = headers;
  exchange.response.writeHead(status, reason, headers);
}

/** Sends a whole answer. The body is `buffer[start..end)`, valid only during the call. */
export function sendWhole(
  exchange: Exchange,
  status: number,
  block: string,
  buffer: Buffer,
  start: number,
  end: number,
  close: boolean,
): void {
  sendHead(exchange, status, block, close);
  exchange.bytesSent = end - start;
  if (end - start <= ONE_WRITE_BYTES) exchange.response.end(buffer.toString('latin1', start, end), 'latin1');
  else exchange.response.end(Buffer.from(buffer.subarray(start, end)));
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
  exchange.bytesSent = page.length;
  exchange.responseHeaders = headers;
  response.writeHead(status, STATUS_CODES[status] ?? 'Error', headers);
  response.write(page);
  whenToEnd(() => response.end());
}
