/** What a worker or thread of a Node app does for its app at the beginning and at the end: readiness, hooks, signals, errors. */
import type { ErrorLog } from '../log/error-log.ts';
import { appStack } from './app-stack.ts';
import { type ShutdownHook, setAppBridge } from './public.ts';

/** Signals that would end the process; what they mean for a worker the master decides. */
const HELD = ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGHUP'] as const;
type HeldSignal = (typeof HELD)[number];

export class Lifecycle {
  private readonly log: ErrorLog;
  private readonly hooks: ShutdownHook[] = [];
  private readonly saidReady: () => void;
  /** The app's own listeners for SIGTERM have begun: it is to end by itself. */
  endsItself = false;

  /** `saidReady`: the app has called ready(). */
  constructor(log: ErrorLog, saidReady: () => void) {
    this.log = log;
    this.saidReady = saidReady;
    setAppBridge({
      ready: () => this.saidReady(),
      onShutdown: (hook) => void this.hooks.push(hook),
    });
  }

  /**
   * Keeps signals from the app's own listeners: a terminal sends Ctrl-C to every process, but requests are still running then.
   * The app's listeners for SIGTERM run in `end`. `signalled` is told instead.
   */
  holdSignals(signalled: (signal: HeldSignal) => void): void {
    const held: readonly (string | symbol)[] = HELD;
    interceptEvents((event) => {
      if (this.endsItself || !held.includes(event)) return false;
      signalled(event as HeldSignal);
      return true;
    });
    // Without a listener the signal would end the process.
    for (const signal of HELD) process.on(signal, nothing);
  }

  /** Runs the hooks, then the app's listeners for SIGTERM. True: the app has such, and is expected to end by itself. */
  async end(): Promise<boolean> {
    endSelfBySignal();
    const results = await Promise.allSettled(this.hooks.splice(0).map(async (hook) => await hook()));
    for (const result of results) {
      if (result.status === 'rejected') this.log.error(`An onShutdown hook failed\n${appStack(result.reason)}`);
    }
    const own = process.listeners('SIGTERM').some((listener) => listener !== nothing);
    if (!own) return false;
    // Some end by the signal only if nobody else listens (signal-exit).
    process.off('SIGTERM', nothing);
    this.endsItself = true;
    process.emit('SIGTERM', 'SIGTERM');
    return true;
  }
}

/** Shows `takes` each event of the process first. True: the app does not hear of it. */
export function interceptEvents(takes: (event: string | symbol, args: readonly unknown[]) => boolean): void {
  const emit = process.emit.bind(process) as (event: string | symbol, ...args: unknown[]) => boolean;
  process.emit = ((event: string | symbol, ...args: unknown[]): boolean =>
    takes(event, args) || emit(event, ...args)) as typeof process.emit;
}

/**
 * Tells `threw` what nobody catches. An app with a listener of its own has decided to go on; or it ends the process if nobody
 * else listens (Sentry), so that one finds nobody.
 */
export function hearUncaught(threw: (error: unknown) => void): void {
  const listen = (): void => void process.prependListener('uncaughtException', uncaught);
  const uncaught = (error: unknown): void => {
    if (process.listenerCount('uncaughtException') === 1) {
      threw(error);
      return;
    }
    process.off('uncaughtException', uncaught);
    process.nextTick(listen);
  };
  listen();
}

/**
 * A program that has done its work may end by the signal that it was told to (NestJS). Here it exits: on a thread the signal would
 * end all of them, and the lines that the access log has gathered would be lost with it.
 */
function endSelfBySignal(): void {
  const { kill } = process;
  process.kill = (pid, signal) => {
    if (pid !== process.pid || signal === 0) return kill(pid, signal);
    process.exit();
  };
}

function nothing(): void {}
