/**
 * Serves clients in the event loop that runs the app: node:http with as little as possible in between. For each request a few
 * fields are set on its connection; time limits, drained connections and slow clients are found by looking at all connections
 * ten times a second.
 */
import { type Server as HttpServer, type IncomingMessage, ServerResponse, STATUS_CODES } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import { createServer as createNetServer, type Server as NetServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { now } from '../clock.ts';
import { percentDecode, splitTarget } from '../front/environ.ts';
import { rawErrorAnswer } from '../front/error-page.ts';
import { ENDED_EARLY, forget, LINGER_MS, linger } from '../front/linger.ts';
import type { FrontConfig } from '../front/messages.ts';
import { describeParseError } from '../front/not-http.ts';
import { afterAccepting, attachHandle, stopAccepting } from '../listening-handle.ts';
import type { Access } from '../log/access.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { OUTCOME } from '../metrics/counters.ts';
import type { FrontReport } from '../metrics/report.ts';
import type { RequestStatus } from '../metrics/status.ts';
import { NEW_CLIENT_MS } from '../policy/stopping.ts';
import { Sweeper } from '../sweeper.ts';
import { appStack } from './app-stack.ts';
import type { AsyncMetrics } from './async-metrics.ts';
import type { RequestListener } from './load.ts';
import { abortSignal } from './signal.ts';

export type AsyncServerConfig = Omit<FrontConfig, 'title'>;

export interface AsyncServerHandler {
  /** So many requests have come as it was told to count. */
  requestLimitReached(): void;
  /** The app has closed its server, and no more clients come. */
  closedByApp(): void;
  /** After `stop`: no request runs and no connection is left, but for upgraded ones. */
  stopped(): void;
}

/** A client's connection. */
interface Client {
  readonly socket: Socket;
  /** The last request that came, answered or not; with pipelining `earlier` ones may not be. */
  request: IncomingMessage | null;
  response: ServerResponse | null;
  startedAt: number;
  /** When the app was seen last to wait for more of that request's body. */
  waitedAt: number;
  /** Of that request: which one of the worker's it was. */
  id: number;
  earlier: { readonly response: ServerResponse }[] | null;
  /** Since when it has been idle. 0: it was not when it was last looked at. */
  idleSince: number;
  /** Of the socket, when it was found idle after its last answer. */
  bytesRead: number;
  /** How far it had got when something last moved, and when that was. */
  bytesMoved: number;
  movedAt: number;
  /** It is no HTTP any more (WebSocket). */
  upgraded: boolean;
  /** It has its last answer. */
  refused: boolean;
  /** What becomes of its requests if the app does not answer them: see OUTCOME. */
  outcome: number;
  /** Of an answer of ours. 0: there was none. */
  ownStatus: number;
}

const CLIENT = Symbol('client');
type ClientSocket = Socket & { [CLIENT]?: Client };

const COUNTED_FROM = Symbol('counted from');
/** A response whose request is counted when it is over: since when it runs. 0: it was counted. */
type Counted = ServerResponse & { [COUNTED_FROM]: number };

export class AsyncServer {
  /** Requests that have come. */
  served = 0;
  private readonly config: AsyncServerConfig;
  private readonly handler: AsyncServerHandler;
  private readonly log: ErrorLog;
  private readonly access: Access | null;
  private readonly metrics: AsyncMetrics | null;
  private readonly listener: RequestListener | null;
  private readonly requestLimit: number;
  private readonly server: HttpServer | HttpsServer;
  /** What accepts: `server` itself and one for each further address. */
  private readonly acceptors: NetServer[] = [];
  private readonly clients = new Set<Client>();
  private readonly sweeper: Sweeper;
  private stopping = false;
  private accepting = true;
  private stopIdleMs = 0;
  private stoppedSaid = false;
  private closedSaid = false;
  /** One function for all responses; its `this` is the response. */
  private readonly responseClosed: (this: Counted) => void;

  /**
   * `listener` null: the server is the app's own, and all that is set there stays as it is. `metrics` null: nobody wants them.
   */
  constructor(
    config: AsyncServerConfig,
    server: HttpServer | HttpsServer,
    listener: RequestListener | null,
    requestLimit: number,
    handler: AsyncServerHandler,
    log: ErrorLog,
    access: Access | null,
    metrics: AsyncMetrics | null,
  ) {
    this.config = config;
    this.server = server;
    this.listener = listener;
    this.requestLimit = requestLimit;
    this.handler = handler;
    this.log = log;
    this.access = access;
    this.metrics = metrics;
    this.responseClosed = function () {
      const startedAt = this[COUNTED_FROM];
      const client = (this.req.socket as ClientSocket)[CLIENT];
      if (startedAt === 0 || client === undefined) return;
      this[COUNTED_FROM] = 0;
      const status = this.headersSent ? this.statusCode : client.ownStatus;
      metrics?.over(status, this.writableFinished ? OUTCOME.answered : client.outcome, now() - startedAt);
    };
    server.prependListener('setSecureContext' in server ? 'secureConnection' : 'connection', (socket: Socket) =>
      this.connected(socket),
    );
    if (listener === null) {
      const requested = (request: IncomingMessage, response: ServerResponse): void =>
        void this.requested(request, response);
      server.prependListener('request', requested);
      whereHeard(server, 'checkContinue', requested);
      whereHeard(server, 'checkExpectation', requested);
    } else {
      server.on('request', (request, response) => this.run(listener, request, response));
      server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
        if (error.code === HEAD_LATE) this.headLate(error, socket);
        else this.notUnderstood(error, socket);
      });
    }
    const upgraded = (request: IncomingMessage): void => this.upgraded(request);
    whereHeard(server, 'upgrade', upgraded);
    whereHeard(server, 'connect', upgraded);
    this.sweeper = new Sweeper(
      () => this.sweep(),
      (lateMs) => this.metrics?.turned(lateMs),
    );
  }

  /** The server is the app's own. */
  get isOfApp(): boolean {
    return this.listener === null;
  }

  /** Has it accept from a listening handle. The first one becomes the server's own. */
  listen(handle: unknown, listening: () => void, failed: (code: string) => void): void {
    const acceptor = this.acceptors.length === 0 ? this.server : this.forwarder();
    this.acceptors.push(acceptor);
    attachHandle(acceptor, handle, this.config.backlog, listening, failed);
  }

  /**
   * Accepts no more, and lets go of each connection with its next answer, or when it has been idle for `idleMs`; not graceful:
   * now.
   */
  stop(graceful: boolean, idleMs: number): void {
    this.stopIdleMs = idleMs;
    if (!this.stopping) {
      this.stopping = true;
      this.sweeper.wake();
      afterAccepting(this.config.backlog, () => {
        for (const acceptor of this.acceptors) stopAccepting(acceptor);
        this.accepting = false;
        for (const client of this.clients) if (runs(client) && client.response) lastOf(client.response);
      });
    }
    if (!graceful) {
      for (const client of this.clients)
        if (!client.upgraded) this.giveUp(client, 503, 'The server is shutting down', OUTCOME.shutdown);
    }
  }

  /** After `stop`: answers what has no answer yet. */
  failAll(status: number, message: string): void {
    for (const client of this.clients)
      if (!client.upgraded && runs(client) && !begun(client)) this.giveUp(client, status, message, OUTCOME.worker_lost);
  }

  /** What it has counted. Null: nobody wants to know. */
  report(asked: number | null, withRequests: boolean): FrontReport | null {
    const { metrics, clients, stopping } = this;
    if (metrics === null) return null;
    const requests = [...clients].filter((client) => !client.upgraded && runs(client)).map(statusOf);
    return metrics.report({ connections: clients.size, stopping, requests }, this.access, asked, withRequests);
  }

  close(): void {
    this.sweeper.close();
    for (const { socket } of this.clients) socket.destroy();
  }

  private forwarder(): NetServer {
    const acceptor = createNetServer({ allowHalfOpen: true, noDelay: true });
    acceptor.on('connection', (socket: Socket) => this.server.emit('connection', socket));
    return acceptor;
  }

  private connected(socket: ClientSocket): void {
    const client: Client = {
      socket,
      request: null,
      response: null,
      startedAt: 0,
      waitedAt: 0,
      id: 0,
      earlier: null,
      idleSince: 0,
      bytesRead: 0,
      bytesMoved: 0,
      movedAt: 0,
      upgraded: false,
      refused: false,
      outcome: OUTCOME.client_left,
      ownStatus: 0,
    };
    this.metrics?.connected();
    this.sweeper.wake();
    // The socket keeps what it has been asked once. Of a client that has left nobody else could tell the address.
    void socket.remoteAddress;
    socket[CLIENT] = client;
    this.clients.add(client);
    socket.on('close', () => {
      this.clients.delete(client);
      if (client.request !== null && runs(client)) abortSignal(client.request);
    });
  }

  private run(listener: RequestListener, request: IncomingMessage, response: ServerResponse): void {
    if (!this.requested(request, response)) return;
    try {
      const result = listener(request, response);
      if (result instanceof Promise) result.catch((error: unknown) => this.failed(request, response, error));
    } catch (error) {
      this.failed(request, response, error);
    }
  }

  /** False: it was refused. */
  private requested(request: IncomingMessage, response: ServerResponse): boolean {
    const client = (request.socket as ClientSocket)[CLIENT];
    // The app hands on what it has heard as `checkContinue`.
    if (client === undefined || client.request === request) return true;
    if (client.refused) return false;
    if (client.response !== null && !client.response.writableFinished) {
      client.earlier ??= [];
      client.earlier = client.earlier.filter((one) => !one.response.writableFinished);
      client.earlier.push({ response: client.response });
    }
    client.request = request;
    client.response = response;
    client.startedAt = now();
    client.waitedAt = 0;
    client.idleSince = 0;
    client.movedAt = 0;
    if (this.stopping || this.config.keepaliveMs === 0) response.shouldKeepAlive = false;
    client.id = ++this.served;
    if (this.metrics !== null) {
      (response as Counted)[COUNTED_FROM] = client.startedAt;
      response.on('close', this.responseClosed);
    }
    if (this.served === this.requestLimit) this.handler.requestLimitReached();
    if (this.access !== null) this.logWhenOver(client, request, response);
    return this.listener === null || this.withinLimits(client, request);
  }

  private withinLimits(client: Client, request: IncomingMessage): boolean {
    const { limits, limitRequestBody } = this.config;
    const { url = '', method = '', rawHeaders, headers } = request;
    if (limits.line > 0 && url.length + method.length + LINE_REST_BYTES > limits.line) {
      this.refuse(client, 414, `Request Line is too large (more than ${limits.line} bytes)`, OUTCOME.refused);
    } else if (rawHeaders.length > limits.fields * 2) {
      this.refuse(client, 431, `more than ${limits.fields} header fields`, OUTCOME.refused);
    } else if (limitRequestBody > 0 && Number(headers['content-length']) > limitRequestBody) {
      this.refuse(client, 413, tooLarge(limitRequestBody), OUTCOME.refused);
    } else {
      if (limitRequestBody > 0 && headers['transfer-encoding'] !== undefined) {
        limitBody(request, limitRequestBody, (message) => this.refuse(client, 413, message, OUTCOME.refused));
      }
      return true;
    }
    return false;
  }

  /** The app's listener threw, or its promise was rejected, for this request. */
  private failed(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    this.log.error(`Error handling request ${request.method} ${request.url}\n${appStack(error)}`);
    const client = (request.socket as ClientSocket)[CLIENT];
    if (client !== undefined && !response.writableFinished) this.refuse(client, 500, '', OUTCOME.app_error);
  }

  private upgraded(request: IncomingMessage): void {
    const client = (request.socket as ClientSocket)[CLIENT];
    if (client !== undefined) client.upgraded = true;
  }

  /** Answers with a page of our own, or cuts the answer that had begun; either way it is the connection's last. */
  private refuse(client: Client, status: number, message: string, outcome: number): void {
    if (client.refused) return;
    client.refused = true;
    client.outcome = outcome;
    const { socket, request, response } = client;
    if (begun(client) || !socket.writable) {
      socket.destroy();
      return;
    }
    client.ownStatus = status;
    // Past the app's response: what it still writes there goes nowhere, as with a client that has left.
    if (response !== null) {
      response.detachSocket(socket);
      response.destroy();
      response.emit('close');
    }
    const answer = rawErrorAnswer(status, message);
    socket.end(answer);
    if (request !== null) {
      abortSignal(request);
      request.resume();
    }
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
    if (request !== null && this.access !== null) {
      this.logAccess(client, request, status, answer.length - answer.indexOf('\r\n\r\n') - 4);
    }
  }

  /** As `refuse` for what still runs; a connection without a request just ends. */
  private giveUp(client: Client, status: number, message: string, outcome: number): void {
    if (!runs(client)) client.socket.destroySoon();
    else this.refuse(client, status, message, outcome);
  }

  /** What came while the app computed is read first: it may be the head, and was not late. */
  private headLate(error: NodeJS.ErrnoException, duplex: Duplex): void {
    const client = (duplex as ClientSocket)[CLIENT];
    const before = client?.request;
    setImmediate(() => {
      if (client?.request === before) this.notUnderstood(error, duplex);
    });
  }

  private notUnderstood(error: NodeJS.ErrnoException, duplex: Duplex): void {
    const socket = duplex as ClientSocket;
    const client = socket[CLIENT];
    const running = client !== undefined && runs(client);
    const endedEarly = error.code === ENDED_EARLY;
    if (error.code === 'ECONNRESET' || !socket.writable || client?.refused || (running && endedEarly)) {
      socket.destroy();
      return;
    }
    const from = `from ip=${socket.remoteAddress ?? ''}`;
    if (endedEarly) this.log.debug(`Ignored premature client disconnection ${from}`);
    else this.log.warning(`Invalid request ${from}: ${describeParseError(error)}`);
    const status = STATUS_OF_ERROR[error.code ?? ''] ?? 400;
    if (running && client.request?.complete) {
      endBehind(client);
      return;
    }
    if (running) this.refuse(client, status, error.message, OUTCOME.refused);
    else {
      if (!endedEarly) this.metrics?.notUnderstood(status);
      if (client !== undefined) client.refused = true;
      socket.end(rawErrorAnswer(status, error.message));
    }
    if (!socket.destroyed) linger(socket);
  }

  // ---- time

  /** Returns whether there is something to watch. */
  private sweep(): boolean {
    const time = now();
    for (const client of this.clients) {
      if (client.upgraded || client.refused) continue;
      if (this.clientIsSlow(client, time)) continue;
      if (runs(client)) this.checkDeadline(client, time);
      else this.checkIdle(client, time);
    }
    if (!this.stopping && !this.closedSaid && this.acceptors.length > 0 && !this.server.listening) {
      this.closedSaid = true;
      this.handler.closedByApp();
    }
    if (!this.accepting && !this.stoppedSaid && !this.hasClients()) {
      this.stoppedSaid = true;
      this.handler.stopped();
    }
    return this.clients.size > 0 || this.stopping;
  }

  private hasClients(): boolean {
    for (const client of this.clients) if (!client.upgraded) return true;
    return false;
  }

  /** The client does not read its answer, or does not go on with its body. Closes the connection when it is too long. */
  private clientIsSlow(client: Client, time: number): boolean {
    const { socket, request } = client;
    const { responseTimeoutMs, bodyTimeoutMs } = this.config;
    const reading = socket.writableLength > 0;
    // The app has taken all that there is of the body, and waits for more.
    const sending = !reading && request !== null && !request.complete && request.readableLength === 0 && runs(client);
    if (!reading && !sending) {
      client.movedAt = 0;
      return false;
    }
    if (sending) client.waitedAt = time;
    const bytes = socket.bytesRead + socket.bytesWritten - socket.writableLength;
    if (client.movedAt === 0 || bytes !== client.bytesMoved) {
      client.bytesMoved = bytes;
      client.movedAt = time;
    } else if (reading && responseTimeoutMs > 0 && time - client.movedAt >= responseTimeoutMs) socket.destroy();
    else if (sending && bodyTimeoutMs > 0 && time - client.movedAt >= bodyTimeoutMs && this.listener !== null) {
      this.refuse(client, 408, `No piece of the request's body came for ${bodyTimeoutMs / 1000} s`, OUTCOME.refused);
    }
    return reading || begun(client);
  }

  /** Until the head of the answer, from when the app last waited for the client. Later a stream takes no thread from anybody, so it may take its time. */
  private checkDeadline(client: Client, time: number): void {
    const { timeoutMs } = this.config;
    const { request } = client;
    const since = Math.max(client.startedAt, client.waitedAt);
    if (timeoutMs === 0 || time - since < timeoutMs || begun(client) || request === null) return;
    const age = ((time - client.startedAt) / 1000).toFixed(1);
    this.log.critical(`WORKER TIMEOUT (pid:${process.pid}): ${request.method} ${request.url}, ${age} s old`);
    const message = `The application did not answer within ${timeoutMs / 1000} s`;
    abortSignal(request, new DOMException(message, 'TimeoutError'));
    if (!begun(client) && runs(client)) this.refuse(client, 504, message, OUTCOME.timeout);
  }

  private checkIdle(client: Client, time: number): void {
    const { socket } = client;
    if (client.idleSince === 0) {
      client.idleSince = time;
      if (client.request !== null) client.bytesRead = socket.bytesRead;
    }
    if (time - client.idleSince >= this.idleLimitMs(client)) socket.destroySoon();
  }

  private idleLimitMs({ socket, request, bytesRead }: Client): number {
    if (this.stopping) {
      // The head of the next request has begun to come: it has a limit of its own.
      if (socket.bytesRead !== bytesRead) return Number.POSITIVE_INFINITY;
      return request === null ? Math.max(this.stopIdleMs, NEW_CLIENT_MS) : this.stopIdleMs;
    }
    // So have the app's own server, and a connection on which nothing has come.
    return this.listener === null || request === null ? Number.POSITIVE_INFINITY : this.config.keepaliveMs;
  }

  // ---- access log

  private logWhenOver(client: Client, request: IncomingMessage, response: ServerResponse): void {
    countBytes(response);
    response.once('close', () => {
      // A client that left before its answer began was told no status.
      if (!client.refused && response.headersSent)
        this.logAccess(client, request, response.statusCode, bytesOf(request, response), response);
    });
  }

  private logAccess(
    client: Client,
    request: IncomingMessage,
    status: number,
    bytesSent: number,
    response: ServerResponse | null = null,
  ): void {
    const { url = '', method = '' } = request;
    const { path, query } = splitTarget(url);
    const { remoteAddress = '', remotePort } = client.socket;
    this.access?.write({
      remoteAddress,
      method,
      rawUri: url,
      path: percentDecode(path),
      query,
      protocol: `HTTP/${request.httpVersion}`,
      status,
      reason: (response === null ? STATUS_CODES[status] : response.statusMessage) ?? '',
      bytesSent,
      durationUs: (now() - client.startedAt) * 1000,
      requestHeaders: request.rawHeaders,
      responseHeaders: response === null ? [] : sentHeaders(response),
      pid: process.pid,
      worker: this.config.number,
      thread: 0,
      environBlock: remotePort === undefined ? '' : `REMOTE_PORT\0${remotePort}`,
      environ: null,
    });
  }
}

/** Of a request line: two spaces, `HTTP/1.1` and CRLF. */
const LINE_REST_BYTES = 12;

/** Of node:http's errors: headersTimeout is over. */
const HEAD_LATE = 'ERR_HTTP_REQUEST_TIMEOUT';
const STATUS_OF_ERROR: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  [HEAD_LATE]: 408,
};

/** Whether a request of this connection has not been answered to its end. */
function runs({ response, earlier }: Client): boolean {
  if (response !== null && !response.writableFinished && !response.destroyed) return true;
  return earlier?.some((one) => !one.response.writableFinished && !one.response.destroyed) ?? false;
}

/** Something of the answer has gone out. */
function begun({ response, earlier }: Client): boolean {
  return response?.headersSent === true || (earlier?.some((one) => !one.response.writableFinished) ?? false);
}

/** The last request of this connection. */
function statusOf(client: Client): Omit<RequestStatus, 'front' | 'worker' | 'thread'> {
  const { id, request, socket, startedAt } = client;
  const age = (now() - startedAt) / 1000;
  return {
    id,
    method: request?.method ?? '',
    path: splitTarget(request?.url ?? '').path,
    client: socket.remoteAddress ?? '',
    age,
    phase: begun(client) ? 'answering' : 'running',
    running: age,
  };
}

/**
 * Hears an event before the app does, but only where the app listens too: with a listener, node:http takes what it stands for
 * no more for an ordinary request.
 */
function whereHeard(
  server: HttpServer | HttpsServer,
  event: string,
  listener: (request: IncomingMessage, response: ServerResponse) => void,
): void {
  if (server.listenerCount(event) > 0) {
    server.prependListener(event, listener);
    return;
  }
  const added = (name: string | symbol): void => {
    if (name !== event) return;
    server.off('newListener', added);
    server.prependListener(event, listener);
  };
  server.on('newListener', added);
}

function tooLarge(limitBytes: number): string {
  return `The request's body is larger than ${limitBytes} bytes`;
}

/** Of a body without a Content-Length: what comes beyond the limit, and its end, the app never sees. */
function limitBody(request: IncomingMessage, limitBytes: number, exceeded: (message: string) => void): void {
  let bytes = 0;
  const { push } = request;
  request.push = function (this: IncomingMessage, piece: Buffer | null, encoding?: BufferEncoding): boolean {
    if (bytes <= limitBytes) {
      bytes += piece?.length ?? 0;
      if (bytes <= limitBytes) return push.call(this, piece, encoding);
      exceeded(tooLarge(limitBytes));
    }
    return true;
  };
}

function lastOf(response: ServerResponse): void {
  if (!response.headersSent) response.shouldKeepAlive = false;
}

/** What came behind the requests that run is no HTTP: these are answered, then the connection ends. */
function endBehind({ socket, response }: Client): void {
  if (response === null) return;
  lastOf(response);
  response.once('finish', () => socket.destroySoon());
  forget(socket);
}

/** Names and values as they went out, also those that writeHead() was given. */
function sentHeaders(response: ServerResponse): string[] {
  const { _header: head } = response as ServerResponse & { _header?: string | null };
  const lines = head?.split('\r\n').slice(1) ?? [];
  return lines.flatMap((line) => {
    const colon = line.indexOf(':');
    return colon < 0 ? [] : [line.slice(0, colon), line.slice(colon + 1).trim()];
  });
}

const BYTES = Symbol('bytes of the body');
type Counting = ServerResponse & { [BYTES]: number };

/** Counts the bytes of the body that the app gives to `response`, without chunk framing. */
function countBytes(response: ServerResponse): void {
  (response as Counting)[BYTES] = 0;
  response.write = countingWrite as typeof response.write;
  response.end = countingEnd as typeof response.end;
}

function countingWrite(this: Counting, ...args: Parameters<ServerResponse['write']>): boolean {
  this[BYTES] += lengthOf(args);
  return ServerResponse.prototype.write.apply(this, args);
}

function countingEnd(this: Counting, ...args: Parameters<ServerResponse['end']>): ServerResponse {
  this[BYTES] += lengthOf(args);
  return ServerResponse.prototype.end.apply(this, args);
}

function lengthOf([chunk, encoding]: readonly unknown[]): number {
  if (typeof chunk === 'string')
    return Buffer.byteLength(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8');
  return chunk instanceof Uint8Array ? chunk.length : 0;
}

function bytesOf(request: IncomingMessage, response: ServerResponse): number {
  const { statusCode } = response;
  if (request.method === 'HEAD' || statusCode === 204 || statusCode === 304) return 0;
  return (response as Counting)[BYTES];
}
