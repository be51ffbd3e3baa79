/** Loads the app and serves it in this event loop. */
import { createServer, type Server as HttpServer, type ServerOptions } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import type { TLSSocket } from 'node:tls';
import { NunicornError } from '../errors.ts';
import type { WorkerHooks } from '../hooks/worker-hooks.ts';
import type { Access } from '../log/access.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { AsyncMetrics } from './async-metrics.ts';
import { AsyncServer, type AsyncServerHandler } from './async-server.ts';
import { loadApp } from './load.ts';
import type { NodeWorkerConfig } from './messages.ts';
import { listensLater } from './own-server.ts';
import { provideSignal } from './signal.ts';

/**
 * @param hooks null: the configuration has none of a worker
 * @throws whatever the app throws, and NunicornError if it is no app
 */
export async function serveApp(
  config: NodeWorkerConfig,
  handler: AsyncServerHandler,
  log: ErrorLog,
  access: Access | null,
  metrics: AsyncMetrics | null,
  hooks: WorkerHooks | null,
): Promise<AsyncServer> {
  provideSignal();
  const { front } = config;
  let served: HttpServer | null = null;
  const app = await loadApp(
    config.app,
    (text) => log.warning(text),
    (server) => listensLater(server, front.listeners, server === served),
  );
  if (app.kind === 'server') {
    if (front.tls !== null) {
      throw new NunicornError('--certfile: the app makes its server itself, so it has to be the one that speaks TLS');
    }
    served = app.server;
    const own = new AsyncServer(front, app.server, null, config.requestLimit, handler, log, access, metrics);
    hooks?.aroundServer(app.server);
    return own;
  }
  const server = await serverFor(config);
  server.maxHeadersCount = 0; // --limit-request-fields
  const listener = hooks?.around(app.listener) ?? app.listener;
  return new AsyncServer(front, server, listener, config.requestLimit, handler, log, access, metrics);
}

async function serverFor({ front }: NodeWorkerConfig): Promise<HttpServer | HttpsServer> {
  const options: ServerOptions = {
    keepAliveTimeout: 0, // AsyncServer closes idle connections: one timer for all
    headersTimeout: front.headerTimeoutMs,
    requestTimeout: 0,
    connectionsCheckingInterval: 1000,
    maxHeaderSize: front.maxHeaderBytes,
    noDelay: true,
  };
  const { tls: config } = front;
  if (config === null) return createServer(options);
  const tls = await import('../front/tls.ts');
  const server = tls.createTlsServer(config, options);
  server.on('secureConnection', (socket: TLSSocket) => {
    if (!tls.isAcceptable(socket, config)) socket.destroy();
  });
  return server;
}
