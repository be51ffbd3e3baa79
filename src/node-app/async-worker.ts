/** A worker whose main thread runs the app and serves its clients. */
import { EXIT, NunicornError } from '../errors.ts';
import type { WorkerHooks } from '../hooks/worker-hooks.ts';
import type { Access } from '../log/access.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { FrontReport } from '../metrics/report.ts';
import { appStack } from './app-stack.ts';
import type { AsyncMetrics } from './async-metrics.ts';
import type { AsyncServer } from './async-server.ts';
import type { Lifecycle } from './lifecycle.ts';
import type { Engine, EngineHandler } from './main.ts';
import type { NodeWorkerConfig } from './messages.ts';
import { serveApp } from './serve-app.ts';

/** After an error that nobody caught: how long requests have to be answered, the one among them that failed never will. */
const LAST_ANSWERS_MS = 5000;

export class AsyncWorker implements Engine {
  private readonly config: NodeWorkerConfig;
  private readonly lifecycle: Lifecycle;
  private readonly saidReady: Promise<void>;
  private readonly handler: EngineHandler;
  private readonly log: ErrorLog;
  private server: AsyncServer | null = null;
  private listening = 0;
  private isReady = false;
  private broken = false;

  constructor(
    config: NodeWorkerConfig,
    lifecycle: Lifecycle,
    saidReady: Promise<void>,
    handler: EngineHandler,
    log: ErrorLog,
    access: Access | null,
    metrics: AsyncMetrics | null,
    hooks: WorkerHooks | null,
  ) {
    this.config = config;
    this.lifecycle = lifecycle;
    this.saidReady = saidReady;
    this.handler = handler;
    this.log = log;
    serveApp(
      config,
      {
        requestLimitReached: () => handler.requestLimitReached(),
        closedByApp: () => this.closedByApp(),
        stopped: () => handler.stopped(),
      },
      log,
      access,
      metrics,
      hooks,
    ).then(
      async (server) => {
        await handler.imported();
        if (config.waitReady) handler.waitsForApp();
        // A program with a server of its own may say so when that listens, and not before.
        if (config.waitReady && !server.isOfApp) await saidReady;
        this.server = server;
        handler.loaded();
      },
      (error: unknown) => handler.bootFailed(error),
    );
  }

  get served(): number {
    return this.server?.served ?? 0;
  }

  report(asked: number | null, withRequests: boolean): FrontReport | null {
    return this.server?.report(asked, withRequests) ?? null;
  }

  listen(index: number, handle: unknown): void {
    const { listeners } = this.config.front;
    const listener = listeners[index];
    if (listener === undefined) return;
    const listening = (): void => {
      this.listening++;
      if (this.listening !== listeners.length) return;
      this.handler.threads([process.pid]); // the main thread's number is the process's
      if (this.config.waitReady) void this.saidReady.then(() => this.ready());
      else this.ready();
    };
    this.server?.listen(handle, listening, (code) => this.handler.listenFailed(code, listener));
  }

  stop(graceful: boolean, idleMs: number): void {
    if (this.server === null) this.handler.stopped();
    else this.server.stop(graceful, idleMs);
  }

  reopenLogs(): void {}

  /** Asked in the event loop: then that is where it stands. */
  async stacks(): Promise<string> {
    return '(in no JavaScript: its event loop turns)';
  }

  threw(error: unknown): void {
    if (!this.isReady) {
      this.handler.bootFailed(error);
      return;
    }
    this.log.critical(`Uncaught error in the application\n${appStack(error)}`);
    if (this.lifecycle.endsItself) process.exit(EXIT.ERROR); // it will not any more
    if (this.broken) return;
    this.broken = true;
    this.handler.appFailed();
    setTimeout(() => this.server?.failAll(502, 'The worker that ran this request has failed'), LAST_ANSWERS_MS);
  }

  async end(): Promise<boolean> {
    const byItself = await this.lifecycle.end();
    this.server?.close();
    return byItself;
  }

  private ready(): void {
    this.isReady = true;
    this.handler.ready();
  }

  private closedByApp(): void {
    const text = 'The application has closed its server';
    if (!this.isReady) {
      this.handler.bootFailed(new NunicornError(`${text} before it was ready`, EXIT.WORKER_BOOT_ERROR));
      return;
    }
    this.log.error(text);
    this.handler.appFailed();
  }
}
