/**
 * `--admin-bind`: what the master knows, over HTTP. Read-only. It runs in the master, which never touches a request, so it
 * answers while every worker hangs and the queue is full.
 */
import { timingSafeEqual } from 'node:crypto';
import { rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { NunicornError } from '../errors.ts';
import { listenFailure } from '../listen-failure.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { formatAddress } from '../settings/address.ts';
import { parseAdminAddress } from '../settings/admin.ts';
import { listenWithMode } from '../socket-mode.ts';
import { removeStaleSocket } from '../stale-socket.ts';
import type { Format } from './exposition.ts';
import { LIVE_PAGE_POLICY, LiveStream, livePage } from './live.ts';
import type { MasterMetrics, Readiness } from './master-metrics.ts';

export interface AdminSource {
  readonly metrics: MasterMetrics;
  /** The text for a scrape, with the app's own metrics. */
  expose(format: Format): Promise<{ readonly contentType: string; readonly text: string }>;
}

/** As --bind does. */
const TRIES = 5;
const RETRY_MS = 1000;
const REQUEST_LIMIT_MS = 5000;
/** At the same time: each has a descriptor of the master's, who needs some for its workers. */
const MAX_CONNECTIONS = 100;
/** Of a Unix socket: its owner asks, nobody else. */
const SOCKET_MODE = 0o600;

const REFUSALS: ReadonlySet<number> = new Set([401, 403, 405]);

type Answer =
  | { readonly status: number; readonly json: unknown }
  | { readonly status: number; readonly contentType: string; readonly text: string; readonly policy?: string }
  /** The answer has begun and goes on. */
  | 'streams';

export class AdminServer {
  private readonly address: ReturnType<typeof parseAdminAddress>;
  private readonly token: Buffer | null;
  private readonly source: AdminSource;
  private readonly server: Server;
  private readonly live: LiveStream;
  private readonly routes: Readonly<
    Record<string, (request: IncomingMessage, response: ServerResponse) => Promise<Answer> | Answer>
  >;

  constructor(bind: string, token: string | null, source: AdminSource) {
    this.address = parseAdminAddress(bind);
    this.token = token === null ? null : Buffer.from(token);
    this.source = source;
    const { metrics } = source;
    this.live = new LiveStream(() => metrics.status());
    this.routes = {
      '/metrics': (request) => this.scrape(request),
      '/livez': () => check({ ok: true, reasons: [] }),
      '/readyz': () => check(metrics.readiness()),
      '/startupz': () => check(metrics.startup()),
      '/status': async () => ({ status: 200, json: await metrics.status() }),
      '/requests': async () => ({ status: 200, json: await metrics.requests() }),
      '/events': (request, response) => {
        if (request.method === 'HEAD') return { status: 200, contentType: 'text/event-stream', text: '' };
        return this.live.add(response) ? 'streams' : { status: 503, json: { error: 'too many live pages are open' } };
      },
      '/': (request) =>
        /\btext\/html\b/.test(request.headers.accept ?? '')
          ? { status: 200, contentType: 'text/html; charset=utf-8', text: livePage(), policy: LIVE_PAGE_POLICY }
          : { status: 200, json: { paths: Object.keys(this.routes).filter((path) => path !== '/') } },
    };
    this.server = createServer(
      {
        headersTimeout: REQUEST_LIMIT_MS,
        requestTimeout: REQUEST_LIMIT_MS,
        connectionsCheckingInterval: 1000,
        keepAliveTimeout: 60_000,
      },
      (request, response) => void this.respond(request, response),
    );
    this.server.maxConnections = MAX_CONNECTIONS;
    // A connection that could not be accepted is its client's loss alone.
    this.server.on('error', () => {});
    this.server.unref();
  }

  /** Throws NunicornError if the address cannot be had. */
  async listen(log: ErrorLog): Promise<void> {
    const where = formatAddress(this.address);
    for (let attempt = 1; ; attempt++) {
      try {
        await this.bind(where);
        break;
      } catch (error) {
        if (error instanceof NunicornError) throw error;
        const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
        if (code !== 'EADDRINUSE' || attempt === TRIES)
          throw new NunicornError(`Can't listen at ${where} (--admin-bind): ${listenFailure(code, this.address)}`);
        log.warning(`Connection in use: ${where} (--admin-bind). Retrying in 1 second.`);
        await sleep(RETRY_MS);
      }
    }
    log.info(`Admin server at: ${this.address.kind === 'tcp' ? 'http://' : ''}${where}`);
  }

  close(): void {
    this.live.close();
    this.server.close();
    this.server.closeAllConnections();
    if (this.address.kind === 'unix') rmSync(this.address.path, { force: true });
  }

  private async bind(where: string): Promise<void> {
    const { address, server } = this;
    // With a listener there it fails as it does with a port that is taken.
    if (address.kind === 'unix' && (await removeStaleSocket(address.path)) === 'file')
      throw new NunicornError(`Can't listen at ${where} (--admin-bind): there is a file that is no socket`);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.once('listening', () => {
        server.off('error', reject);
        resolve();
      });
      // The master of a cluster: it listens by itself.
      if (address.kind === 'unix') listenWithMode(server, address.path, SOCKET_MODE);
      else server.listen({ host: address.host, port: address.port, exclusive: true });
    });
  }

  private async respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let answer: Answer;
    try {
      answer = this.refusal(request) ?? (await this.answer(request, response));
    } catch (error) {
      answer = { status: 500, json: { error: error instanceof Error ? error.message : String(error) } };
    }
    if (answer === 'streams') return;
    const [contentType, text] =
      'json' in answer
        ? ['application/json; charset=utf-8', `${JSON.stringify(answer.json)}\n`]
        : [answer.contentType, answer.text];
    response.writeHead(answer.status, {
      'Content-Type': contentType,
      'Content-Length': Buffer.byteLength(text),
      'Cache-Control': 'no-store',
      'X-Content-Type-Options': 'nosniff',
      ...('policy' in answer ? { 'Content-Security-Policy': answer.policy } : {}),
      // Basic is for browsers, which ask for it: any name, and the token as the password.
      ...(answer.status === 401 ? { 'WWW-Authenticate': ['Bearer', 'Basic realm="nunicorn"'] } : {}),
      ...(answer.status === 405 ? { Allow: 'GET, HEAD' } : {}),
      // Kept open for a minute, those of whoever has no token would be all that there may be.
      ...(REFUSALS.has(answer.status) ? { Connection: 'close' } : {}),
    });
    response.end(request.method === 'HEAD' ? undefined : text);
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<Answer> {
    const path = (request.url ?? '').split('?')[0] ?? '';
    const route = Object.hasOwn(this.routes, path) ? this.routes[path] : undefined;
    return route === undefined ? { status: 404, json: { error: 'no such page' } } : route(request, response);
  }

  private refusal(request: IncomingMessage): Answer | null {
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return { status: 405, json: { error: 'read-only: GET or HEAD' } };
    if (this.token !== null) {
      const given = Buffer.from(tokenIn(request.headers.authorization ?? ''));
      if (given.length === this.token.length && timingSafeEqual(given, this.token)) return null;
      return { status: 401, json: { error: 'Authorization: Bearer with the token of --admin-token is needed' } };
    }
    // A page in a browser of this machine could reach it under a name of its own (DNS rebinding).
    if (this.address.kind === 'tcp' && !namesThisMachine(request.headers.host))
      return { status: 403, json: { error: 'without --admin-token, Host must be localhost or an IP address' } };
    return null;
  }

  private async scrape(request: IncomingMessage): Promise<Answer> {
    const { contentType, text } = await this.source.expose(formatOf(request.headers.accept));
    return { status: 200, contentType, text };
  }
}

/** The token of an Authorization header: of Bearer (RFC 6750), or the password of Basic (RFC 7617). */
function tokenIn(authorization: string): string {
  const [, scheme = '', credentials = ''] = /^(\S+) +(.*)$/.exec(authorization) ?? [];
  if (scheme.toLowerCase() === 'bearer') return credentials;
  if (scheme.toLowerCase() !== 'basic') return '';
  const pair = Buffer.from(credentials, 'base64').toString();
  return pair.slice(pair.indexOf(':') + 1);
}

function check({ ok, reasons }: Readiness): Answer {
  return { status: ok ? 200 : 503, json: { status: ok ? 'ok' : 'failed', reasons } };
}

/** What a scraper prefers. Of equals, the older one. */
export function formatOf(accept: string | undefined): Format {
  let best: Format = 'prometheus';
  let bestWeight = -1;
  for (const part of (accept ?? '').split(',')) {
    const [type, ...parameters] = part.split(';').map((text) => text.trim().toLowerCase());
    const weight = Number(parameters.find((text) => text.startsWith('q='))?.slice(2) ?? 1);
    const format = type === 'application/openmetrics-text' ? 'openmetrics' : 'prometheus';
    const known =
      type === 'application/openmetrics-text' || type === 'text/plain' || type === '*/*' || type === 'text/*';
    if (known && (weight > bestWeight || (weight === bestWeight && format === 'prometheus'))) {
      best = format;
      bestWeight = weight;
    }
  }
  return best;
}

function namesThisMachine(host: string | undefined): boolean {
  const name = /^\[(.*)\](?::\d+)?$/.exec(host ?? '')?.[1] ?? (host ?? '').replace(/:\d+$/, '');
  return name === '' || isIP(name) !== 0 || name.toLowerCase() === 'localhost';
}
