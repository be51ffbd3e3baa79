/** What hooks are given: server and worker with the attributes of gunicorn's objects. */
import type { LogLevel } from '../log/levels.ts';
import type { Settings } from '../settings/table.ts';
import type { HooksConfig, ListenerFacts } from './messages.ts';

/** The error log. */
export type HookLog = Readonly<Record<LogLevel, (message: string) => void>>;

/** The master, as gunicorn's Arbiter. What it does cannot be asked of it: hooks run in another process. */
export interface HookServer {
  /** The master's. */
  readonly pid: number;
  readonly cfg: Settings;
  readonly log: HookLog;
  readonly app: { readonly app_uri: string; readonly cfg: Settings };
  /** What is listened at: [host, port], or the path of a Unix socket. */
  readonly address: HooksConfig['address'];
  /** Seconds. */
  readonly timeout: number;
  readonly proc_name: string;
  /** Null before nworkers_changed has been called first. */
  readonly num_workers: number | null;
  /** How many workers have been started. */
  readonly worker_age: number;
  readonly master_name: string;
  /** Those that run, by pid. Empty in a worker. */
  readonly WORKERS: ReadonlyMap<number, HookWorker>;
  /** Empty before when_ready. */
  readonly LISTENERS: readonly HookListener[];
  /** What the hooks leave there for each other. */
  [own: string]: unknown;
}

/** An address that is listened at. */
export interface HookListener {
  toString(): string;
  getsockname(): readonly [string, number] | string;
}

export interface HookWorker {
  /** The first worker has 1, each that is started later one more. */
  readonly age: number;
  /** nunicorn's own: 1 to --workers, the same for a worker and its replacement. */
  readonly number: number;
  /** Null in pre_fork: there is no process yet. */
  readonly pid: number | null;
  /** The master's. */
  readonly ppid: number;
  readonly app: HookServer['app'];
  readonly cfg: Settings;
  readonly log: HookLog;
  /** Seconds. */
  readonly timeout: number;
  /** It has imported the app. */
  readonly booted: boolean;
  /** It did not leave in time. */
  readonly aborted: boolean;
  readonly sockets: readonly HookListener[];
  /** What the hooks leave there for each other; pre_fork and child_exit have the same object, hooks in the worker another. */
  [own: string]: unknown;
}

type Writable<T> = { -readonly [Key in keyof T]: T[Key] };
export type ServerView = Writable<HookServer> & { WORKERS: Map<number, HookWorker> };
export type WorkerView = Writable<HookWorker>;

export function serverView(config: HooksConfig, log: HookLog): ServerView {
  const { settings: cfg, masterPid: pid, address } = config;
  const { timeout, proc_name } = cfg;
  return {
    ...{ pid, cfg, log, app: { app_uri: config.app, cfg }, address, timeout, proc_name },
    num_workers: null,
    worker_age: 0,
    master_name: 'Master',
    WORKERS: new Map(),
    LISTENERS: config.listeners.map(listenerView),
  };
}

/** The same server with other settings: a reload. */
export function renew(server: ServerView, { settings: cfg, address, app }: HooksConfig): void {
  const { timeout, proc_name } = cfg;
  Object.assign(server, { cfg, app: { app_uri: app, cfg }, address, timeout, proc_name });
}

export function listenerView({ url, address }: ListenerFacts): HookListener {
  return { toString: () => url, getsockname: () => address };
}

export function workerView(server: ServerView, age: number, number: number, pid: number | null): WorkerView {
  const { pid: ppid, app, cfg, log, LISTENERS: sockets } = server;
  const timeout = server.timeout / 2;
  return { age, number, pid, ppid, app, cfg, log, timeout, booted: false, aborted: false, sockets };
}
