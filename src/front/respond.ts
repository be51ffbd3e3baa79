/** Writes answers to clients. Flat arrays of names and values keep the order and the duplicates of an app's headers. */
import { STATUS_CODES } from 'node:http';
import { errorPage } from './error-page.ts';
import type { Exchange } from './exchange.ts';
import { headBlock, headersOf, reasonOf } from './head-block.ts';

const SERVER = 'nunicorn';
/** Up to here a body is copied into a string and leaves with its head in one write. */
const ONE_WRITE_BYTES = 16 * 1024;

/** Sends the head of an answer, by its head block. */
export function sendHead(exchange: Exchange, status: number, block: string, close: boolean): void {
  const headers = headersOf(block);
  headers.push('Server', SERVER);
  if (close || exchange.closeAfter || status < 200) headers.push('Connection', 'close');
  exchange.status = status;
  exchange.responseBlock = block;
  exchange.response.writeHead(status, reasonOf(block), headers);
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
  response.sendAtOnce(response.socket, `HTTP/1.1 ${status} ${block}${ownLines(last)}`, body, last);
}

let second = 0;
let keepAliveLines = '';
let closeLines = '';

/** The server's own headers, which end the head. Made anew once a second. */
function ownLines(last: boolean): string {
  const now = Date.now();
  if (now < second || now >= second + 1000) {
    second = now - (now % 1000);
    const lines = `Server: ${SERVER}\r\nDate: ${new Date(second).toUTCString()}\r\nConnection: `;
    keepAliveLines = `${lines}keep-alive\r\n\r\n`;
    closeLines = `${lines}close\r\n\r\n`;
  }
  return last ? closeLines : keepAliveLines;
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
  exchange.responseBlock = headBlock(reason, headers);
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
