/**
 * The clients' side of a front: node:http, with gunicorn's policy on top. Reads each request whole, body and all, hands it over
 * as an Exchange, and keeps the time limits for what clients do. What a request is answered with is not decided here, except
 * where it never gets as far as the app.
 */
import { createServer, type IncomingMessage, type ServerOptions, STATUS_CODES } from 'node:http';
import { Server as NetServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { PATH_ENCODED } from '../bridge/frames.ts';
import { now } from '../clock.ts';
import { afterAccepting } from '../listening-handle.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { escapeValue } from '../log/escape.ts';
import { OUTCOME } from '../metrics/counters.ts';
import { NEW_CLIENT_MS } from '../policy/stopping.ts';
import { answerBufferBytes } from './answer-buffer.ts';
import { BodyReader } from './body-reader.ts';
import type { ClientConnection, Pipelined } from './client-connection.ts';
import { type ClientDescriptors, clientDescriptors, descriptorLimit, descriptorShortage } from './descriptors.ts';
import { type ConnectionFacts, EnvironBuilder, RequestError } from './environ.ts';
import { rawErrorAnswer } from './error-page.ts';
import { Exchange } from './exchange.ts';
import type { FirstBytes } from './first-bytes.ts';
import { headBlock } from './head-block.ts';
import { ENDED_EARLY, forget, LINGER_BYTES, LINGER_MS, linger } from './linger.ts';
import type { FrontConfig, ListenerFacts } from './messages.ts';
import { describeParseError } from './not-http.ts';
import type { ProxyHeader } from './proxy-protocol.ts';
import { Request } from './request.ts';
import { finishWithPage } from './respond.ts';
import { Response } from './response.ts';
import { type TrustCheck, trustCheck } from './trusted-peers.ts';

declare module 'node:net' {
  interface Socket {
    nunicorn?: ClientConnection;
  }
}

export interface ClientHandler {
  /** The request has been read and may run; or, with `bodyOpen`, as much of it as is kept in memory. */
  requestRead(exchange: Exchange, now: number): void;
  /** Whether requests are handed over while their bodies still come: those larger than what is kept in memory. */
  readonly takesOpenBodies?: boolean;
  /** A client that ends its side has left, as node:http sees it. Left out: it may still read its answer (RFC 9112, 9.6). */
  readonly endIsLeaving?: boolean;
  /** The client left before its request was over. */
  clientLeft(exchange: Exchange): void;
  /** Its body is no HTTP: it has been answered with this, and what may run of it is not wanted. */
  malformed(exchange: Exchange): void;
  /** The exchange is over without having been handed over, or after. Called once for each. */
  exchangeOver(exchange: Exchange): void;
  connected(): void;
  /** What came was no HTTP and was answered with this status; no exchange began. */
  notUnderstood(status: number): void;
}

/** A server of node:http or node:https. */
export type HttpServer =
  | import('node:http').Server<typeof Request, typeof Response>
  | import('node:https').Server<typeof Request, typeof Response>;

/** What only some configurations need, and only then is loaded. */
export interface ClientServerParts {
  readonly tls: typeof import('./tls.ts') | null;
  readonly firstBytes: FirstBytes | null;
}

/** How long an idle connection may live on when the server stops: a request may be under way, and is answered. */
const STOP_GRACE_MS = 100;
const SHORTAGE_LOG_MS = 1000;
/** With as many requests waiting behind the one that is served, or heads and bodies of this size, no more is read of a connection. */
const MAX_PIPELINED = 100;
const MAX_PIPELINED_BYTES = 64 * 1024;
/** How often the log says that there are too many clients. */
const CROWDED_LOG_MS = 60_000;
const MAX_REQUEST_ID = 0xffffffff;

export class ClientServer {
  readonly connections = new Set<ClientConnection>();
  private config: FrontConfig;
  private readonly handler: ClientHandler;
  private readonly log: ErrorLog;
  private parts: ClientServerParts;
  /** Of the present and of earlier settings: those that have had connections since the last sweep, and that hold some. */
  private readonly guards = new Set<FirstBytes>();
  private readonly bodies: BodyReader;
  private readonly servers: HttpServer[] = [];
  /** The servers of the settings before, until those of the present ones listen. */
  private servedBefore: HttpServer[] = [];
  private environ: EnvironBuilder;
  private trusted: TrustCheck;
  private stopping = false;
  private stopIdleMs = STOP_GRACE_MS;
  /** Pieces of answers that the clients have not taken, all together. */
  private owedBytes = 0;
  private descriptors: ClientDescriptors = clientDescriptors(0, descriptorLimit());
  /** The most that was reserved for workers so far. */
  private mostReserved = 0;
  private shortageTimer: NodeJS.Timeout | null = null;
  /** Connections of other protocols. */
  private handedOver = 0;
  private crowdedSaidAt = Number.NEGATIVE_INFINITY;
  // Not from 1: a worker outlives a front, and the ids of the next front must not be taken for those of the last.
  private lastId = Math.floor(Math.random() * MAX_REQUEST_ID);

  /** One function for all connections; its `this` is the socket. */
  private readonly connectionClosed: (this: Socket) => void;

  constructor(config: FrontConfig, handler: ClientHandler, log: ErrorLog, parts: ClientServerParts) {
    this.config = config;
    this.handler = handler;
    this.log = log;
    this.parts = parts;
    this.environ = new EnvironBuilder(config.policy, config.limits);
    this.trusted = trustCheck(config.forwardedAllowIps);
    this.bodies = new BodyReader(
      {
        takesOpenBodies: handler.takesOpenBodies === true,
        bodyRead: (exchange) => handler.requestRead(exchange, now()),
        refuse: (exchange, status, message) => this.refuse(exchange, status, message),
        mayOpenFile: () => this.mayOpenFile(),
      },
      log,
    );
    const { connections } = this;
    const over = this.over.bind(this);
    const taken = this.taken.bind(this);
    this.connectionClosed = function () {
      const connection = this.nunicorn;
      if (connection === undefined) return;
      connections.delete(connection);
      // Of an answer that waits behind another one node:http never says what became of its pieces.
      taken(connection, connection.owedBytes);
      connection.pipelined = null;
      const exchange = connection.current;
      if (exchange === null) return;
      handler.clientLeft(exchange);
      over(exchange);
    };
  }

  /** New settings. A server is made for each listening socket anew; then `retire` lets go of the ones before. */
  reconfigure(config: FrontConfig, parts: ClientServerParts): void {
    this.config = config;
    this.parts = parts;
    this.environ = new EnvironBuilder(config.policy, config.limits);
    this.trusted = trustCheck(config.forwardedAllowIps);
    this.servedBefore.push(...this.servers.splice(0));
  }

  /** Connections that came under earlier settings end with their next answer. */
  retire(): void {
    const before = this.servedBefore.splice(0);
    afterAccepting(this.config.backlog, () => {
      for (const server of before) closeServer(server);
    });
  }

  /** Descriptors that the connections to workers take from now on, beside those of the clients. */
  reserveDescriptors(forWorkers: number): void {
    this.descriptors = clientDescriptors(forWorkers, this.descriptors.limit);
    if (forWorkers <= this.mostReserved) return;
    this.mostReserved = forWorkers;
    // Workers come one after the other.
    this.shortageTimer ??= setTimeout(() => {
      this.shortageTimer = null;
      const shortage = descriptorShortage(
        this.mostReserved,
        clientDescriptors(this.mostReserved, this.descriptors.limit),
      );
      if (shortage !== null) this.log.warning(shortage);
    }, SHORTAGE_LOG_MS).unref();
  }

  get isStopping(): boolean {
    return this.stopping;
  }

  /** Whether a connection ends with its present answer. */
  closes(connection: ClientConnection): boolean {
    return !connection.server.listening || this.config.keepaliveMs === 0;
  }

  /** Whether no client has a connection. */
  get isEmpty(): boolean {
    return this.connections.size === 0 && [...this.guards].every((guard) => guard.isEmpty);
  }

  /** Of clients: connections and bodies in files. */
  private get openDescriptors(): number {
    let open = this.connections.size + this.bodies.files + this.handedOver;
    for (const guard of this.guards) open += guard.size;
    return open;
  }

  /** A server for one listening socket, to be attached to its handle by the caller. */
  createServer(listener: ListenerFacts): HttpServer {
    const { config, parts } = this;
    const options: ServerOptions<typeof Request, typeof Response> = {
      IncomingMessage: Request,
      ServerResponse: Response,
      keepAliveTimeout: 0, // `sweep` closes idle connections: one timer for all
      headersTimeout: config.headerTimeoutMs,
      requestTimeout: 0,
      connectionsCheckingInterval: 1000,
      maxHeaderSize: config.maxHeaderBytes,
      requireHostHeader: false,
      noDelay: true,
    };
    const { tls } = config;
    const server = tls === null || parts.tls === null ? createServer(options) : parts.tls.createTlsServer(tls, options);
    server.on(tls === null ? 'connection' : 'secureConnection', (socket: Socket) =>
      this.connected(socket, server, listener, parts),
    );
    const { firstBytes } = parts;
    if (firstBytes !== null) {
      firstBytes.guard(
        server,
        (socket) => isGone(socket, listener) || this.openDescriptors >= this.descriptors.forRefusals,
      );
      // Not once for all: a server of earlier settings accepts for as long as those of the present ones are on their way.
      server.on('connection', () => this.guards.add(firstBytes));
    }
    server.on('request', (request, response) => this.requested(request, response, false));
    server.on('checkContinue', (request, response) => this.requested(request, response, true));
    server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) =>
      this.notUnderstood(error, socket as Socket),
    );
    server.on('checkExpectation', (request, response) => this.requested(request, response, false));
    (server as HttpServer & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = !this.handler.endIsLeaving;
    server.maxHeadersCount = 0; // --limit-request-fields
    server.on('connect', (_: IncomingMessage, socket: Duplex) => this.refuseTunnel(socket as Socket));
    this.servers.push(server);
    return server;
  }

  /** Checks the time limits of all connections. */
  sweep(now: number): void {
    for (const guard of this.guards) {
      guard.sweep(now, this.stopping ? Math.max(this.stopIdleMs, NEW_CLIENT_MS) : Number.POSITIVE_INFINITY);
      if (guard.isEmpty) this.guards.delete(guard);
    }
    for (const connection of this.connections) {
      const { current: exchange, socket } = connection;
      if (socket.writableLength > 0) {
        const bytesTaken = socket.bytesWritten - socket.writableLength;
        if (connection.takenAt === 0 || bytesTaken !== connection.bytesTaken) {
          connection.bytesTaken = bytesTaken;
          connection.takenAt = now;
        } else if (this.config.responseTimeoutMs > 0 && now - connection.takenAt >= this.config.responseTimeoutMs) {
          socket.destroy();
        }
        continue;
      }
      connection.takenAt = 0;
      if (exchange === null) {
        const idleMs = now - connection.idleSince;
        const limitMs = this.idleLimitMs(connection);
        // The head of the next request may have begun to come: it has a limit of its own, unless it was but an empty line.
        const headMs =
          socket.bytesRead === connection.bytesRead ? 0 : this.config.headerTimeoutMs || Number.POSITIVE_INFINITY;
        if (idleMs >= limitMs + headMs) socket.destroySoon();
      } else if (exchange.phase === 'reading') {
        if (this.config.bodyTimeoutMs > 0 && now - exchange.pieceAt >= this.config.bodyTimeoutMs) {
          this.refuse(exchange, 408, `No piece of the request's body came for ${this.config.bodyTimeoutMs / 1000} s`);
        }
      }
    }
  }

  private idleLimitMs({ used }: ClientConnection): number {
    if (this.stopping) return used ? this.stopIdleMs : Math.max(this.stopIdleMs, NEW_CLIENT_MS);
    return used ? this.config.keepaliveMs : Number.POSITIVE_INFINITY;
  }

  /** Accepts no more and lets go of each connection as soon as it has nothing to do. */
  stop(idleMs = STOP_GRACE_MS): void {
    this.stopIdleMs = idleMs;
    if (this.stopping) return;
    afterAccepting(this.config.backlog, () => {
      this.stopping = true;
      for (const server of [...this.servers, ...this.servedBefore]) closeServer(server);
      const time = now();
      for (const connection of this.connections) connection.idleSince = time;
    });
  }

  /** After `stop`: lets go of the clients whose request has not come whole. */
  refuseUnread(status: number, message: string, outcome: number): void {
    for (const { current: exchange, socket } of this.connections) {
      if (exchange?.phase === 'reading') this.refuse(exchange, status, message, outcome);
      else if (exchange === null && socket.writableLength === 0) socket.destroySoon();
    }
    for (const guard of this.guards) guard.destroyAll();
  }

  /** The exchange is over: the next request of its connection may come. */
  over(exchange: Exchange, time = now()): void {
    if (exchange.phase === 'over') return;
    exchange.phase = 'over';
    this.bodies.drop(exchange);
    const connection = exchange.connection;
    if (connection.current === exchange) {
      connection.current = null;
      connection.idleSince = time;
      connection.bytesRead = connection.socket.bytesRead;
      if (exchange.response.isLast) {
        // Nobody would hear of what is run after the last answer, and its sender may send it again.
        connection.ending = true;
        connection.pipelined = null;
      } else if (exchange.closeAfter && !connection.ending) {
        // Known only after its head had been sent.
        connection.ending = true;
        connection.pipelined = null;
        whenFinished(exchange.response, () => connection.socket.destroySoon());
      } else if (connection.pipelined?.length) {
        // One answer at a time waits for a client that does not read, not all that it has asked for.
        whenFinished(exchange.response, () => whenTaken(connection.socket, () => this.beginNext(connection)));
      }
    }
    this.handler.exchangeOver(exchange);
  }

  private beginNext(connection: ClientConnection): void {
    const { pipelined, socket } = connection;
    if (pipelined === null || connection.current !== null) return;
    const next = pipelined.shift();
    if (!isFull(pipelined)) readOn(socket);
    next?.begin();
  }

  /**
   * Writes a piece of an answer; `then` is called when the kernel has it, unless the connection ends before. False: as much is
   * kept for this client as may be. A text is latin-1.
   */
  writePiece({ response, connection }: Exchange, piece: string | Buffer, then: () => void): boolean {
    const { length } = piece;
    this.owedBytes += length;
    connection.owedBytes += length;
    response.write(piece, 'latin1', () => {
      this.taken(connection, length);
      then();
    });
    return response.writableLength <= answerBufferBytes(this.owedBytes);
  }

  private taken(connection: ClientConnection, bytes: number): void {
    const owed = Math.min(bytes, connection.owedBytes); // nothing is, once it is closed
    connection.owedBytes -= owed;
    this.owedBytes -= owed;
  }

  /** Answers with a page of our own and closes the connection; what the client still sends is read for a moment. */
  refuse(
    exchange: Exchange,
    status: number,
    message: string,
    outcome: number = OUTCOME.refused,
    extraHeaders: readonly string[] = [],
  ): void {
    const request = exchange.request;
    exchange.outcome = outcome;
    if (request.complete) {
      finishWithPage(exchange, status, message, undefined, extraHeaders);
      this.over(exchange);
      return;
    }
    const timer = setTimeout(() => exchange.connection.socket.destroy(), LINGER_MS);
    let left = LINGER_BYTES;
    request.becomeStream();
    request.removeAllListeners('data');
    request.on('data', (piece: Buffer) => {
      left -= piece.length;
      if (left < 0) exchange.connection.socket.destroy();
    });
    request.once('close', () => clearTimeout(timer));
    request.resume();
    finishWithPage(exchange, status, message, (end) => request.once('end', end), extraHeaders);
    this.over(exchange);
  }

  /**
   * The connection speaks another protocol from now on, beginning with the answer to this request, and is the caller's: it reads
   * and writes the socket, and closes it.
   */
  handOver(exchange: Exchange, status: number): Socket {
    const { connection, response } = exchange;
    const { socket } = connection;
    exchange.status = status;
    this.connections.delete(connection);
    connection.ending = true;
    connection.pipelined = null;
    this.handedOver++;
    socket.once('close', () => this.handedOver--);
    response.detachSocket(socket);
    this.over(exchange);
    // The parser hears nothing of it any more.
    socket.removeAllListeners('data');
    socket.removeAllListeners('end');
    return socket;
  }

  /** CONNECT. node:http has let go of the socket: nobody else reads it or hears its errors. */
  private refuseTunnel(socket: Socket): void {
    socket.on('error', () => socket.destroy());
    const connection = socket.nunicorn;
    if (connection === undefined || connection.ending) {
      socket.destroy();
    } else if (connection.current !== null || connection.pipelined?.length) {
      this.endBehind(connection);
    } else {
      this.handler.notUnderstood(501);
      connection.ending = true;
      socket.end(rawErrorAnswer(501, 'CONNECT is not supported'));
      linger(socket);
    }
  }

  /** What came behind the requests that are being served cannot be: these are answered, then the connection ends. */
  private endBehind(connection: ClientConnection): void {
    const { socket, current, pipelined } = connection;
    if (pipelined?.length) pipelined.push({ bytes: () => 0, begin: () => socket.destroySoon() });
    else if (current !== null) current.closeAfter = true;
    forget(socket);
  }

  private connected(
    socket: Socket,
    server: HttpServer,
    listener: ListenerFacts,
    { firstBytes, tls }: ClientServerParts,
  ): void {
    const header = firstBytes?.httpBegins(socket);
    if (isGone(socket, listener)) {
      socket.destroy();
      return;
    }
    if (tls !== null && this.config.tls !== null && !tls.isAcceptable(socket as TLSSocket, this.config.tls)) {
      this.log.warning(
        `Invalid request from ip=${socket.remoteAddress ?? ''}: the client's certificate is not accepted`,
      );
      socket.destroy();
      return;
    }
    const connection: ClientConnection = {
      socket,
      server,
      facts: this.factsOf(socket, listener, header),
      remoteAddress: header?.addresses?.client ?? socket.remoteAddress ?? '',
      current: null,
      pipelined: null,
      idleSince: now(),
      bytesRead: 0,
      bytesTaken: 0,
      takenAt: 0,
      owedBytes: 0,
      used: false,
      cutOff: null,
      ending: false,
    };
    socket.nunicorn = connection;
    this.connections.add(connection);
    this.handler.connected();
    socket.on('end', endOfClient);
    // node:http, whose own listener comes first, reads on at each drain.
    socket.on('drain', restWhenFull);
    socket.on('close', this.connectionClosed);
    if (this.openDescriptors > this.descriptors.forClients) this.turnAway(connection);
  }

  /** Ends a connection at once, lest there be no descriptor left with which to reach a worker. */
  private turnAway(connection: ClientConnection): void {
    const { socket } = connection;
    const { limit, forRefusals } = this.descriptors;
    this.handler.notUnderstood(503);
    this.sayCrowded(`Connections are turned away with 503: ${this.openDescriptors} are open`, limit);
    connection.ending = true;
    if (this.openDescriptors > forRefusals) {
      socket.destroy();
      return;
    }
    socket.end(rawErrorAnswer(503, 'Too many connections'));
    linger(socket);
  }

  private mayOpenFile(): boolean {
    if (this.openDescriptors <= this.descriptors.forClients) return true;
    this.sayCrowded('A request was turned away with 503: no file can be opened for it', this.descriptors.limit);
    return false;
  }

  private sayCrowded(what: string, limit: number): void {
    if (now() - this.crowdedSaidAt < CROWDED_LOG_MS) return;
    this.crowdedSaidAt = now();
    this.log.error(`${what}, and this process may have ${limit} descriptors (ulimit -n)`);
  }

  private factsOf(socket: Socket, listener: ListenerFacts, header: ProxyHeader | undefined): ConnectionFacts {
    const unix = listener.kind === 'unix';
    let block = unix ? '' : `SERVER_NAME\0${listener.host}\0SERVER_PORT\0${listener.port}\0`;
    if (header !== undefined) block += `PROXY_PROTOCOL\0${header.protocol}\0`;
    if (header?.addresses) {
      const { client, clientPort, proxy, proxyPort } = header.addresses;
      block += `REMOTE_ADDR\0${client}\0REMOTE_PORT\0${clientPort}\0PROXY_ADDR\0${proxy}\0PROXY_PORT\0${proxyPort}`;
    } else if (unix) block += 'REMOTE_ADDR\0';
    else block += `REMOTE_ADDR\0${socket.remoteAddress}\0REMOTE_PORT\0${socket.remotePort}`;
    return {
      block,
      unixPath: unix ? listener.path : null,
      // Headers are believed by who sent them, and that is the proxy.
      trusted: unix || this.trusted(socket.remoteAddress),
      scheme: this.config.tls === null ? 'http' : 'https',
    };
  }

  private requested(request: Request, response: Response, expectsContinue: boolean): void {
    const connection = request.socket.nunicorn;
    if (connection === undefined || connection.ending) return;
    if (connection.current !== null || connection.pipelined?.length) {
      // Pipelined: in order and one at a time, since the first may change what the second sees.
      connection.pipelined ??= [];
      request.becomeStream(); // what comes of its body is kept
      const begin = (): void => this.begin(connection, request, response, expectsContinue);
      const head = headBytes(request);
      connection.pipelined.push({ bytes: () => head + request.readableLength, begin });
      if (isFull(connection.pipelined)) stopReading(connection.socket);
      return;
    }
    this.begin(connection, request, response, expectsContinue);
  }

  private begin(connection: ClientConnection, request: Request, response: Response, expectsContinue: boolean): void {
    connection.used = true;
    const startedAt = now();
    let head: ReturnType<EnvironBuilder['build']>;
    try {
      head = this.environ.build(
        request.method ?? '',
        request.url ?? '',
        request.httpVersionMajor,
        request.httpVersionMinor,
        request.rawHeaders,
        connection.facts,
      );
      if (head.expectsUnknown) throw new RequestError(417, 'The only expectation known is 100-continue');
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      const exchange = new Exchange(this.nextId(), request, response, connection, '', 0, startedAt);
      connection.current = exchange;
      this.log.warning(`Invalid request from ip=${connection.remoteAddress}: ${escapeValue(error.message)}`);
      this.refuse(exchange, error.status, error.message);
      return;
    }
    const flags = head.pathEncoded ? PATH_ENCODED : 0;
    const exchange = new Exchange(this.nextId(), request, response, connection, head.block, flags, startedAt);
    connection.current = exchange;
    exchange.closeAfter = head.upgrades;
    if (connection.cutOff !== null && !request.complete) {
      this.refuse(exchange, connection.cutOff.status, connection.cutOff.message);
      return;
    }
    if (!head.hasBody) {
      if (expectsContinue) response.writeContinue();
      this.handler.requestRead(exchange, startedAt);
      return;
    }
    request.becomeStream();
    const limit = this.config.limitRequestBody;
    if (limit > 0 && head.contentLength > limit) {
      this.refuse(exchange, 413, `The request's body is larger than ${limit} bytes`);
      return;
    }
    if (expectsContinue) response.writeContinue();
    this.bodies.read(exchange, limit, this.config.spoolFolder);
  }

  private nextId(): number {
    this.lastId = (this.lastId % MAX_REQUEST_ID) + 1;
    return this.lastId;
  }

  /** What came is no HTTP, or came too slowly. */
  private notUnderstood(error: NodeJS.ErrnoException, socket: Socket): void {
    const connection = socket.nunicorn;
    if (connection?.ending && error.code !== 'ECONNRESET') {
      // It has its answer, or will when it has taken all of it; this is what it sent on top.
      socket.destroySoon();
      return;
    }
    if (error.code === 'ECONNRESET' || !socket.writable) {
      socket.destroy();
      return;
    }
    // Not its sender is late: we do not read.
    if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT' && (socket as Socket & Paused)._paused) return;
    const status = STATUS_OF_ERROR[error.code ?? ''] ?? 400;
    if (connection === undefined) {
      // A handshake that failed: there is nobody to answer.
      const { reason = error.code } = error as { readonly reason?: string };
      this.log.warning(`Invalid request from ip=${socket.remoteAddress ?? ''}: TLS: ${reason}`);
      socket.destroy();
      return;
    }
    const exchange = connection.current;
    const endedEarly = error.code === ENDED_EARLY;
    // Its client has left, as with a reset: most uploads that are broken off look so behind a proxy that passes them on unread.
    if (endedEarly) this.log.debug(`Ignored premature client disconnection from ip=${connection.remoteAddress}`);
    else this.log.warning(`Invalid request from ip=${connection.remoteAddress}: ${describeParseError(error)}`);
    if (connection.pipelined?.length || (exchange !== null && isWhole(exchange))) {
      connection.cutOff = new RequestError(status, error.message);
      this.endBehind(connection);
      return;
    }
    if (exchange?.response.headersSent) {
      socket.destroy();
      return;
    }
    connection.ending = true;
    const answer = rawErrorAnswer(status, error.message);
    socket.end(answer);
    linger(socket);
    if (endedEarly) return;
    if (exchange === null) {
      this.handler.notUnderstood(status);
      return;
    }
    exchange.status = status;
    exchange.bytesSent = answer.length - answer.indexOf('\r\n\r\n') - 4;
    exchange.responseBlock = headBlock(STATUS_CODES[status] ?? 'Error', []);
    this.handler.malformed(exchange);
    this.over(exchange);
  }
}

/** All of the request has come. Its end may not have been heard of yet: of a body, node:http tells it a moment later. */
function isWhole({ request, phase, bodyOpen }: Exchange): boolean {
  return request.complete || (phase !== 'reading' && !bodyOpen);
}

const STATUS_OF_ERROR: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
};

/** Its client was gone before it could be asked who it is: nobody waits for an answer, and nobody's name must not pass for trust. */
function isGone(socket: Socket, listener: ListenerFacts): boolean {
  return listener.kind !== 'unix' && socket.remoteAddress === undefined;
}

/** Calls `then` when all of the response has been given to the socket. */
function whenFinished(response: Response, then: () => void): void {
  if (response.isFinished) then();
  else response.once('finish', then);
}

function whenTaken(socket: Socket, then: () => void): void {
  if (socket.writableNeedDrain) socket.once('drain', then);
  else then();
}

/** What node:http keeps of a socket. While `_paused` is set, the parser rests; but `readOn`, only a drain of the socket changes that. */
interface Paused {
  _paused: boolean;
  readonly parser: { resume(): void } | null;
}

function stopReading(socket: Socket): void {
  (socket as Socket & Paused)._paused = true;
  socket.pause();
}

function readOn(socket: Socket): void {
  const paused = socket as Socket & Paused;
  if (!paused._paused) return;
  paused._paused = false;
  paused.parser?.resume();
  socket.resume();
}

/** Closes the listening socket; the connections live on. Of these http.Server#close would end the idle ones. */
function closeServer(server: HttpServer): void {
  // When the last connection is gone it has nothing to end, and stops its own timer.
  server.once('close', () => server.close());
  NetServer.prototype.close.call(server);
}

function restWhenFull(this: Socket): void {
  if (isFull(this.nunicorn?.pipelined ?? [])) stopReading(this);
}

function isFull(pipelined: readonly Pipelined[]): boolean {
  if (pipelined.length >= MAX_PIPELINED) return true;
  let bytes = 0;
  for (const one of pipelined) bytes += one.bytes();
  return bytes >= MAX_PIPELINED_BYTES;
}

function headBytes({ url = '', rawHeaders }: Request): number {
  let bytes = url.length;
  for (const part of rawHeaders) bytes += part.length;
  return bytes;
}

/** Nobody may be there any more. What runs is answered all the same; what waits is not worth running. */
function endOfClient(this: Socket): void {
  if (this.nunicorn?.current?.queued) this.destroy();
}
