/** Start of a front's process. Loads only what serves requests. */

import { NunicornError } from '../errors.ts';
import { attachHandle, type ListeningHandle } from '../listening-handle.ts';
import type { Access } from '../log/access.ts';
import { type ErrorLog, openErrorLog } from '../log/error-log.ts';
import { type SwitchableLog, switchableLog } from '../log/switchable-log.ts';
import type { Statsd } from '../metrics/statsd.ts';
import { tellParent } from '../parent.ts';
import { Front } from './front.ts';
import type { FrontMetrics } from './front-metrics.ts';
import type { FrontConfig, ListenerFacts, ToFront, ToMaster } from './messages.ts';
import { loadParts } from './parts.ts';
import { removeRemains } from './remains.ts';

// The terminal sends Ctrl-C to every process of the group, but the master alone decides what ends when.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH'] as const) {
  process.on(signal, () => {});
}

let front: Front | null = null;
let config: FrontConfig | null = null;
let log: SwitchableLog | null = null;
let access: Access | null = null;
let statsd: Statsd | null = null;
const workerPids = new Map<number, number>();
let listening = 0;
/** The settings given last could not be used: neither are their listening sockets. */
let refused = false;

function tell(message: ToMaster): void {
  tellParent(message);
}

async function openAccess({ access }: FrontConfig, log: ErrorLog): Promise<Access | null> {
  return access === null ? null : await (await import('../log/access.ts')).openAccess(access, log);
}

async function openMetrics(given: FrontConfig, log: SwitchableLog): Promise<FrontMetrics | null> {
  if (!given.metrics) return null;
  const { FrontMetrics } = await import('./front-metrics.ts');
  if (given.statsd !== null) {
    const { Statsd } = await import('../metrics/statsd.ts');
    const opened = await Statsd.open(given.statsd, log);
    log.watch((level) => opened.count(`gunicorn.log.${level}`, 1));
    statsd = opened;
  }
  return new FrontMetrics(given.number, statsd);
}

async function start(given: FrontConfig): Promise<void> {
  config = given;
  process.title = given.title;
  log = switchableLog(await openErrorLog(given.errorLog));
  try {
    access = await openAccess(given, log);
    const metrics = await openMetrics(given, log);
    front = new Front(given, log, access, await loadParts(given, log), tell, metrics);
  } catch (error) {
    if (!(error instanceof NunicornError)) throw error;
    log.error(error.message);
    process.exit(1);
  }
}

/** Both are plain data. */
function isSame(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** Takes new settings. If one of them does not work here, the log says so, and the ones before stay. */
async function reconfigure(given: FrontConfig): Promise<void> {
  if (front === null || config === null || log === null) return;
  refused = false;
  try {
    const parts = await loadParts(given, log);
    const nextAccess = isSame(given.access, config.access) ? access : await openAccess(given, log);
    if (!isSame(given.errorLog, config.errorLog)) log.become(await openErrorLog(given.errorLog));
    front.reconfigure(given, nextAccess, parts);
    if (nextAccess !== access) void access?.close();
    access = nextAccess;
    config = given;
    process.title = given.title;
  } catch (error) {
    if (!(error instanceof NunicornError)) throw error;
    refused = true;
    log.error(`The new settings cannot be used: ${error.message}`);
  }
}

/** What comes while settings are being taken. */
const held: { message: ToFront; handle: unknown }[] = [];
let taking = false;

function handle(message: ToFront, handle: unknown): void {
  if (taking) held.push({ message, handle });
  else if (message.op === 'start') take(start(message.config));
  else if (message.op === 'config') take(reconfigure(message.config));
  else act(message, handle);
}

function take(taken: Promise<void>): void {
  taking = true;
  listening = 0;
  void taken.then(() => {
    taking = false;
    for (const one of held.splice(0)) handle(one.message, one.handle);
  });
}

async function failed(code: string, listener: ListenerFacts): Promise<void> {
  const { cannotListenAfterBind } = await import('../listen-failure.ts');
  log?.error(cannotListenAfterBind(code, listener).message);
  process.exit(1);
}

function act(message: Exclude<ToFront, { op: 'start' | 'config' }>, handle: unknown): void {
  if (front === null || config === null) return;
  switch (message.op) {
    case 'listen': {
      const listener = config.listeners[message.index];
      if (listener === undefined || refused) {
        (handle as ListeningHandle).close();
        return;
      }
      const isListening = (): void => {
        listening++;
        if (listening !== config?.listeners.length) return;
        front?.listening();
        tell({ op: 'listening' });
      };
      attachHandle(front.createServer(listener), handle, config.backlog, isListening, (code) => failed(code, listener));
      return;
    }
    case 'worker':
      workerPids.set(message.worker.serial, message.worker.pid);
      front.addWorker(message.worker);
      return;
    case 'drain-worker':
      front.drainWorker(message.serial);
      return;
    case 'worker-exit':
      workerPids.delete(message.serial);
      front.workerExit(message.serial);
      return;
    case 'stop':
      front.stop(message.graceful);
      return;
    case 'report':
      front.report(message.asked, message.requests);
      return;
    case 'reopen-logs':
      log?.reopen();
      access?.reopen();
      return;
    case 'end':
      void Promise.all([access?.close(), statsd?.close()]).then(() => process.exit(0));
  }
}

process.on('message', handle);
// Before node:cluster's own listener, which ends the process.
process.prependListener('disconnect', () => {
  // The master is gone without a word. A worker whose interpreter is locked cannot notice.
  for (const pid of workerPids.values()) {
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // It noticed.
    }
  }
  removeRemains(config);
  process.exit(1);
});
tell({ op: 'online' });
