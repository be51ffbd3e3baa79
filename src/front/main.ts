/** Start of a front's process. Loads only what serves requests. */
import { rmSync } from 'node:fs';
import { NunicornError } from '../errors.ts';
import { attachHandle } from '../listening-handle.ts';
import { type ErrorLog, openErrorLog } from '../log/error-log.ts';
import type { ClientServerParts } from './client-server.ts';
import { Front } from './front.ts';
import type { FrontConfig, ToFront, ToMaster } from './messages.ts';
import { trustCheck } from './trusted-peers.ts';

// The terminal sends Ctrl-C to every process of the group, but the master alone decides what ends when.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH'] as const) {
  process.on(signal, () => {});
}

let front: Front | null = null;
let config: FrontConfig | null = null;
const workerPids = new Map<number, number>();
let listening = 0;

function tell(message: ToMaster): void {
  if (process.connected) process.send?.(message);
}

async function start(given: FrontConfig): Promise<void> {
  config = given;
  process.title = given.title;
  const log = await openErrorLog(given.errorLog);
  try {
    const access =
      given.access === null ? null : await (await import('../log/access.ts')).Access.open(given.access, log);
    front = new Front(given, log, access, await loadParts(given, log), tell);
  } catch (error) {
    if (!(error instanceof NunicornError)) throw error;
    log.error(error.message);
    process.exit(1);
  }
}

/** What only some configurations need is loaded with those only. */
async function loadParts(given: FrontConfig, log: ErrorLog): Promise<ClientServerParts> {
  const tls = given.tls === null ? null : await import('./tls.ts');
  if (tls === null && given.proxyProtocol === 'off') return { tls, firstBytes: null };
  const { FirstBytes } = await import('./first-bytes.ts');
  const firstBytes = new FirstBytes(
    {
      proxyProtocol: given.proxyProtocol,
      proxyAllowed: trustCheck(given.proxyAllowIps),
      tls: tls !== null,
      limitMs: given.headerTimeoutMs,
    },
    log,
  );
  return { tls, firstBytes };
}

const held: { message: ToFront; handle: unknown }[] = [];

function handle(message: ToFront, handle: unknown): void {
  if (message.op === 'start') {
    void start(message.config).then(() => {
      for (const one of held.splice(0)) act(one.message, one.handle);
    });
  } else if (front === null) held.push({ message, handle });
  else act(message, handle);
}

function act(message: Exclude<ToFront, { op: 'start' }> | ToFront, handle: unknown): void {
  if (front === null || config === null) return;
  switch (message.op) {
    case 'listen': {
      const listener = config.listeners[message.index];
      if (listener === undefined) return;
      attachHandle(front.createServer(listener), handle, config.backlog, () => {
        listening++;
        if (listening === config?.listeners.length) tell({ op: 'listening' });
      });
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
    case 'reopen-logs':
      front.reopenLogs();
      return;
    case 'certificates':
      front.setCertificates(message.tls);
      return;
    case 'end':
      void front.closeLogs().then(() => process.exit(0));
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
  for (const folder of [config?.folder, config?.spoolFolder]) {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
  process.exit(1);
});
tell({ op: 'online' });
