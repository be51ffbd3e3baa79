/** Start of a worker of a Node app. */

import { EXIT, NunicornError } from '../errors.ts';
import type { FrontConfig, ListenerFacts } from '../front/messages.ts';
import { removeRemains } from '../front/remains.ts';
import type { WorkerHooks } from '../hooks/worker-hooks.ts';
import type { Access } from '../log/access.ts';
import { type ErrorLog, openErrorLog } from '../log/error-log.ts';
import { type SwitchableLog, switchableLog } from '../log/switchable-log.ts';
import type { FrontReport } from '../metrics/report.ts';
import type { Statsd } from '../metrics/statsd.ts';
import { tellParent } from '../parent.ts';
import { bootStack } from './app-stack.ts';
import { AsyncWorker } from './async-worker.ts';
import { hearUncaught, interceptEvents, Lifecycle } from './lifecycle.ts';
import {
  type Envelope,
  type FromNodeWorker,
  type NodeWorkerConfig,
  opened,
  READY,
  type ToNodeWorker,
} from './messages.ts';

/** What serves the clients: the app in this event loop, in several, or on threads. */
export interface Engine {
  readonly served: number;
  /** What it has counted. Null: nobody wants to know, or it does not serve yet. `asked`: the number of the master's question. */
  report(asked: number | null, withRequests: boolean): FrontReport | null;
  listen(index: number, handle: unknown): void;
  stop(graceful: boolean, idleMs: number): void;
  reopenLogs(): void;
  /** Where its threads stand, in lines. */
  stacks(): Promise<string>;
  /** Something was thrown that nobody caught. */
  threw(error: unknown): void;
  /** What the app does at its end. True: it ends the process by itself. */
  end(): Promise<boolean>;
}

export interface EngineHandler {
  /** The app is imported. Resolves when clients may be served. */
  imported(): Promise<void>;
  /** It is imported, and is to say that it is ready. */
  waitsForApp(): void;
  /** The engine may be given the listening handles. */
  loaded(): void;
  ready(): void;
  bootFailed(error: unknown): void;
  /** The system does not let it listen; `code` is the system's. */
  listenFailed(code: string, listener: ListenerFacts): void;
  requestLimitReached(): void;
  appFailed(): void;
  /** The system's numbers of the threads that run the app. */
  threads(ids: readonly number[]): void;
  /** A thread cannot be ended. */
  stuck(): void;
  stopped(): void;
}

/** How often the master hears how much has been answered, and what was counted. */
const SERVED_MS = 1000;

function tell(message: FromNodeWorker): void {
  tellParent({ nunicorn: message } satisfies Envelope<FromNodeWorker>);
}

// Without a listener Node opens its debugger, a port for whoever can reach it. That logs are to be reopened the master says.
process.on('SIGUSR1', () => {});

let engine: Engine | null = null;
let log: SwitchableLog | null = null;
let access: Access | null = null;
let statsd: Statsd | null = null;
let appPath = '';
let front: FrontConfig | null = null;
let hooks: WorkerHooks | null = null;
const held: { message: ToNodeWorker; handle: unknown }[] = [];

function bootFailed(error: unknown): never {
  if (error instanceof NunicornError) log?.error(error.message);
  else log?.error(`Exception in worker process\n${bootStack(error, appPath)}`);
  process.exit(error instanceof NunicornError ? error.exitCode : EXIT.WORKER_BOOT_ERROR);
}

async function start(config: NodeWorkerConfig): Promise<void> {
  appPath = config.app.path;
  front = config.front;
  process.title = config.front.title;
  process.chdir(config.chdir);
  process.argv[1] = config.app.path;
  process.argv.length = 2; // no room for a title
  const { errorLog, access: accessSettings } = config.front;
  log = switchableLog(await openErrorLog(errorLog));
  try {
    access = accessSettings === null ? null : await (await import('../log/access.ts')).openAccess(accessSettings, log);
    statsd = await openStatsd(config, log);
    hooks = await openHooks(config, log);
    log.info(`Booting worker with pid: ${process.pid}`);
    await hooks?.forked();
  } catch (error) {
    bootFailed(error);
  }
  const handler: EngineHandler = {
    imported: async () => await hooks?.imported().catch(bootFailed),
    waitsForApp: () => tell({ op: 'imported' }),
    loaded: () => tell({ op: 'loaded' }),
    ready: () => tell({ op: 'ready' }),
    bootFailed,
    listenFailed: async (code, listener) =>
      bootFailed((await import('../listen-failure.ts')).cannotListenAfterBind(code, listener)),
    requestLimitReached: () => tell({ op: 'request-limit' }),
    appFailed: () => tell({ op: 'app-failed', requests: engine?.served ?? 0 }),
    stuck: () => tell({ op: 'stuck' }),
    threads: (ids) => {
      if (config.front.metrics) tell({ op: 'threads', ids });
    },
    stopped: () => {
      report(null, false); // nothing that was counted is lost
      tell({ op: 'stopped' });
    },
  };
  engine = await engineOf(config, handler, log);
  hearUncaught((error) => engine?.threw(error));
  setInterval(() => {
    tell({ op: 'served', requests: engine?.served ?? 0 });
    report(null, false);
  }, SERVED_MS).unref();
  for (const { message, handle } of held.splice(0)) act(message, handle);
}

async function openStatsd({ front }: NodeWorkerConfig, log: SwitchableLog): Promise<Statsd | null> {
  if (front.statsd === null) return null;
  const opened = await (await import('../metrics/statsd.ts')).Statsd.open(front.statsd, log);
  log.watch((level) => opened.count(`gunicorn.log.${level}`, 1));
  return opened;
}

async function openHooks(
  { hooks: config, serial, front }: NodeWorkerConfig,
  log: ErrorLog,
): Promise<WorkerHooks | null> {
  if (config === null) return null;
  const opened = await (await import('../hooks/worker-hooks.ts')).WorkerHooks.open(config, serial, front.number, log);
  process.once('SIGABRT', () => void aborted(opened));
  return opened;
}

/** The worker did not leave in time: SIGKILL is about to follow. */
async function aborted(opened: WorkerHooks): Promise<void> {
  await opened.aborted();
  await opened.leaving();
  process.exit(EXIT.ERROR);
}

function report(asked: number | null, withRequests: boolean): void {
  const report = engine?.report(asked, withRequests) ?? null;
  if (report !== null) tell({ op: 'report', report });
}

async function engineOf(config: NodeWorkerConfig, handler: EngineHandler, log: SwitchableLog): Promise<Engine> {
  const { serial, front } = config;
  let appIsReady = (): void => {};
  const saidReady = new Promise<void>((resolve) => {
    appIsReady = resolve;
  });
  const lifecycle = new Lifecycle(log, appIsReady);
  lifecycle.holdSignals((signal) => {
    if (signal === 'SIGTERM') tell({ op: 'asked-to-leave', why: `sent ${signal}` });
  });
  if (config.workerClass === 'async' && config.threads === 1) {
    const metrics = front.metrics
      ? new (await import('./async-metrics.ts')).AsyncMetrics(serial, front.number, statsd)
      : null;
    hearReady(appIsReady);
    return new AsyncWorker(config, lifecycle, saidReady, handler, log, access, metrics, hooks);
  }
  const metrics = front.metrics
    ? new (await import('../front/front-metrics.ts')).FrontMetrics(front.number, statsd)
    : null;
  const [{ PoolWorker }, { loadParts }] = await Promise.all([import('./pool-worker.ts'), import('../front/parts.ts')]);
  return new PoolWorker(config, await loadParts(front, log), handler, log, access, metrics);
}

function act(message: ToNodeWorker, handle: unknown): void {
  if (message.op === 'start') {
    void start(message.config);
    return;
  }
  if (message.op === 'ping') {
    tell({ op: 'pong' });
    return;
  }
  if (engine === null) {
    held.push({ message, handle });
    return;
  }
  switch (message.op) {
    case 'report':
      report(message.asked, message.requests);
      return;
    case 'stacks':
      void engine.stacks().then((text) => tell({ op: 'stacks', text }));
      return;
    case 'listen':
      engine.listen(message.index, handle);
      return;
    case 'stop':
      engine.stop(message.graceful, message.idleMs);
      return;
    case 'reopen-logs':
      log?.reopen();
      access?.reopen();
      engine.reopenLogs();
      return;
    case 'leave':
      void leave(engine, message.quick);
  }
}

/** What the master says is not for the app, which may listen to the same channel: not everybody takes what is none of theirs lightly. */
function hearMaster(): void {
  interceptEvents((event, [given, handle]) => {
    const message = event === 'message' ? opened<ToNodeWorker>(given) : null;
    if (message !== null) act(message, handle);
    return message !== null;
  });
  process.on('message', () => {}); // without a listener messages wait for one
}

/** The app says it as under PM2. What else it sends nobody hears. */
function hearReady(appIsReady: () => void): void {
  const send = process.send?.bind(process) as ((...args: readonly unknown[]) => boolean) | undefined;
  process.send = (...args: readonly unknown[]): boolean => {
    if (args[0] === READY) appIsReady();
    return send?.(...args) ?? false;
  };
}

async function leave(engine: Engine, quick: boolean): Promise<void> {
  if (quick) await hooks?.interrupted();
  await hooks?.leaving();
  const byItself = await engine.end();
  await Promise.all([access?.close(), statsd?.close()]);
  if (!byItself) process.exit(0);
  // The app's listeners for SIGTERM end it, or it ends when nothing keeps it; the master waits for --graceful-timeout.
  process.channel?.unref();
}

hearMaster();
// Before node:cluster's own listener, which ends the process.
process.prependListener('disconnect', () => {
  removeRemains(front); // the master is gone without a word
  process.exit(1);
});
tell({ op: 'online' });
