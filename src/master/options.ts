/** What the settings mean to the fronts and to the workers. */
import { resolve } from 'node:path';
import type { HeadLimits } from '../front/environ.ts';
import type { TlsConfig } from '../front/messages.ts';
import type { HooksConfig, ListenerFacts } from '../hooks/messages.ts';
import type { AccessSettings } from '../log/access.ts';
import { environNames } from '../log/access-format.ts';
import type { ErrorLogSettings } from '../log/error-log.ts';
import { affinity, readMachine } from '../machine.ts';
import { formatAddress, parseAddress } from '../settings/address.ts';
import { statsdSettings, wantsMetrics } from '../settings/admin.ts';
import { hasLogDictionary, hasNodeWorkerHooks, hasPythonMasterHooks } from '../settings/hooks.ts';
import type { LoadedSettings } from '../settings/load.ts';
import type { Python } from '../settings/python.ts';
import type { Settings } from '../settings/table.ts';
import { VERSION } from '../settings/version.ts';
import type { FrontsSettings } from './fronts.ts';
import { describeSocket, type ListeningSocket } from './listening-sockets.ts';
import type { LogProcess } from './log-process.ts';
import type { MemoryWatchOptions } from './memory-watch.ts';
import { MULTIPROCESS_VARIABLE, type MultiprocessFolder } from './multiprocess-folder.ts';
import type { NodeAppOptions } from './node-app.ts';
import { type Owner, ownerOf } from './owner.ts';
import type { PythonAppOptions } from './python-app.ts';
import { pythonSettings } from './python-settings.ts';
import type { WorkersOptions } from './workers.ts';

/** All that the start, or a reload, has found out. */
export interface Setup {
  readonly loaded: LoadedSettings;
  /** Null: it is a Node app. */
  readonly python: Python | null;
  readonly sockets: readonly ListeningSocket[];
  /** Null: without TLS. */
  readonly tls: TlsConfig | null;
  /** Null: master and fronts write the logs themselves. */
  readonly logProcess: LogProcess | null;
  /** For prometheus_client, as it was at the start. Null: nobody would show what is in it. */
  readonly multiprocess: MultiprocessFolder | null;
}

/** What stays the same as long as there are fronts and workers. */
export interface Runtime {
  /** The private folder. */
  readonly folder: string;
  readonly spoolFolder: string;
  /** What proves that a process is one of ours. */
  readonly token: string;
  readonly owner: Owner | null;
}

const MEGABYTE = 1024 * 1024;
export const SOFTWARE = `nunicorn/${VERSION}`;

export function titleOf(loaded: LoadedSettings, role: string): string {
  return `nunicorn: ${role} [${loaded.settings.proc_name || loaded.app}]`;
}

/** The error log's file, or `-`. */
export function errorLogPath({ settings, cwd }: LoadedSettings): string {
  return settings.errorlog === '-' ? '-' : resolve(cwd, settings.errorlog);
}

/** The paths of the logs that its processes open themselves: `-` and null are no files. */
export function logFiles(loaded: LoadedSettings): readonly (string | null)[] {
  return [errorLogPath(loaded), loaded.settings.accesslog];
}

export function errorLogSettings(loaded: LoadedSettings, logProcess: LogProcess | null): ErrorLogSettings {
  const { loglevel: level, log_format: format, log_split: split } = loaded.settings;
  const isGiven = ownerOf(loaded.settings) !== null;
  return { path: errorLogPath(loaded), level, format, split, isGiven, process: logProcess?.address ?? null };
}

function logsAccess(settings: Settings): boolean {
  const { accesslog, logconfig, logconfig_json } = settings;
  const byLogging = logconfig !== null || hasLogDictionary(settings) || logconfig_json !== null;
  return accesslog !== null || byLogging || (settings.syslog && !settings.disable_redirect_access_to_syslog);
}

function accessSettings(settings: Settings, logProcess: LogProcess | null): AccessSettings | null {
  if (!logsAccess(settings)) return null;
  if (logProcess !== null) return { process: logProcess.address };
  return settings.accesslog === null ? null : { path: settings.accesslog, format: settings.access_log_format };
}

/** A quota below their time is used up while they are idle. */
function limitingProcessors(): readonly number[] {
  const numbers = affinity() ?? [];
  return (readMachine().cpuQuota ?? numbers.length) < numbers.length ? [] : numbers;
}

export function frontsSettings({ loaded, sockets, tls, logProcess }: Setup, runtime: Runtime): FrontsSettings {
  const { settings } = loaded;
  return {
    count: settings.fronts,
    handles: sockets.map((socket) => socket.handle),
    gracefulTimeoutMs: settings.graceful_timeout * 1000,
    title: (role) => titleOf(loaded, role),
    config: {
      token: runtime.token,
      folder: runtime.folder,
      spoolFolder: runtime.spoolFolder,
      backlog: settings.backlog,
      keepaliveMs: settings.keepalive * 1000,
      timeoutMs: settings.timeout * 1000,
      queueTimeoutMs: settings.queue_timeout * 1000,
      headerTimeoutMs: settings.header_timeout * 1000,
      bodyTimeoutMs: settings.body_timeout * 1000,
      responseTimeoutMs: settings.response_timeout * 1000,
      maxQueue: settings.max_queue,
      processors: {
        numbers: limitingProcessors(),
        queues: loaded.nodeApp === null ? settings.fronts : settings.workers,
      },
      limitRequestBody: settings.limit_request_body,
      ...headLimits(settings),
      forwardedAllowIps: settings.forwarded_allow_ips,
      policy: {
        secureSchemeHeaders: settings.secure_scheme_headers,
        forwarderHeaders: settings.forwarder_headers,
        headerMap: settings.header_map,
        anyVersion: settings.permit_unconventional_http_version,
        scriptName: loaded.env.SCRIPT_NAME ?? '',
      },
      proxyProtocol: settings.proxy_protocol,
      proxyAllowIps: settings.proxy_allow_ips,
      tls,
      errorLog: errorLogSettings(loaded, logProcess),
      access: accessSettings(settings, logProcess),
      listeners: sockets.map((socket) => socket.facts),
      metrics: wantsMetrics(settings),
      statsd: statsdSettings(settings),
    },
  };
}

export function workersOptions({ settings, nodeApp }: LoadedSettings): WorkersOptions {
  // Where a thread is replaced after so many, its worker stays.
  const counts = nodeApp === null || (settings.worker_class === 'async' && settings.threads === 1);
  return {
    count: settings.workers,
    stagger: settings.stagger,
    gracefulTimeoutMs: settings.graceful_timeout * 1000,
    bootTimeoutMs: settings.boot_timeout * 1000,
    pingLimitMs: settings.timeout * 1000,
    recycling: {
      maxRequests: counts ? settings.max_requests : 0,
      maxRequestsJitter: counts ? settings.max_requests_jitter : 0,
      maxLifetimeMs: settings.max_lifetime * 1000,
      maxLifetimeJitterMs: settings.max_lifetime_jitter * 1000,
      minWorkerLifetimeMs: settings.min_worker_lifetime * 1000,
    },
  };
}

export function memoryOptions({ settings }: LoadedSettings): MemoryWatchOptions {
  return {
    soft: settings.memory_limit * MEGABYTE,
    hard: settings.memory_limit_hard * MEGABYTE,
    shared: settings.preload_app,
  };
}

export function pythonOptions(setup: Setup, runtime: Runtime): PythonAppOptions {
  const { loaded, python, multiprocess } = setup;
  if (python === null) throw new Error('a Python app needs a Python');
  const { settings } = loaded;
  const { token } = runtime;
  const forPython = pythonSettings(loaded);
  // A process that runs the configuration file begins as that did, in the environment of the start.
  const env = forPython.file === null ? loaded.env : process.env;
  return {
    python,
    env: multiprocess === null ? env : { ...env, [MULTIPROCESS_VARIABLE]: multiprocess.path },
    bootTimeoutMs: settings.boot_timeout * 1000,
    title: (role) => titleOf(loaded, role),
    config: {
      app: loaded.app,
      reload: settings.reload,
      preload: settings.preload_app,
      master_hooks: hasPythonMasterHooks(loaded),
      threads: settings.threads,
      workers: settings.workers,
      cwd: loaded.cwd,
      chdir: settings.chdir,
      pythonpath: settings.pythonpath?.join(',') ?? null,
      uid: settings.user ?? null,
      gid: settings.group ?? null,
      ...forPython,
      environ_names: logsAccess(settings) ? environNames(settings.access_log_format) : [],
      master_pid: process.pid,
      software: SOFTWARE,
      argv: process.argv.slice(1),
      token,
      metrics: wantsMetrics(settings),
    },
  };
}

/** What the process of the hooks is told, and workers that have hooks. Null: none is a function of JavaScript. */
export function hooksConfig({ loaded, logProcess }: Setup, role: string): HooksConfig | null {
  const { settings, nodeHooks, cwd, app } = loaded;
  if (nodeHooks === null) return null;
  return {
    file: nodeHooks,
    cwd,
    settings,
    app,
    masterPid: process.pid,
    address: settings.bind.map((bind) => {
      const address = parseAddress(bind);
      return address.kind === 'tcp' ? [address.host, address.port] : formatAddress(address);
    }),
    listeners: [],
    errorLog: errorLogSettings(loaded, logProcess),
    title: titleOf(loaded, role),
  };
}

/** What is listened at, for hooks. */
export function listenerFacts({ sockets, loaded }: Setup): ListenerFacts[] {
  return sockets.map((socket) => ({
    url: describeSocket(socket, loaded.settings),
    address: socket.facts.kind === 'tcp' ? [socket.facts.host, socket.facts.port] : socket.facts.path,
  }));
}

export function nodeOptions(setup: Setup, runtime: Runtime): NodeAppOptions {
  const { loaded, sockets } = setup;
  const { settings, nodeApp } = loaded;
  if (nodeApp === null) throw new Error('a Node app needs a file');
  return {
    env: loaded.env,
    handles: sockets.map((socket) => socket.handle),
    title: (role) => titleOf(loaded, role),
    config: {
      app: nodeApp,
      workerClass: settings.worker_class === 'async' ? 'async' : 'gthread',
      threads: settings.threads,
      chdir: settings.chdir,
      waitReady: settings.wait_ready,
      threadMemoryLimitMiB: settings.thread_memory_limit,
      maxRequests: settings.max_requests,
      maxRequestsJitter: settings.max_requests_jitter,
      gracefulTimeoutMs: settings.graceful_timeout * 1000,
      hooks: hasNodeWorkerHooks(loaded) ? hooksConfig(setup, 'worker') : null,
      front: frontsSettings(setup, runtime).config,
    },
  };
}

/** What 0 means: as many fields as Gunicorn takes at most, and its default for the size of one. */
const MOST_FIELDS = 32768;
const DEFAULT_FIELD_SIZE = 8190;
const MOST_HEADER_BYTES = 1024 * 1024;

function headLimits(settings: Settings): { limits: HeadLimits; maxHeaderBytes: number } {
  const fields =
    settings.limit_request_fields === 0 ? MOST_FIELDS : Math.min(settings.limit_request_fields, MOST_FIELDS);
  const fieldSize = settings.limit_request_field_size || DEFAULT_FIELD_SIZE;
  const line = settings.limit_request_line;
  const wanted = (line || MOST_HEADER_BYTES) + fields * (fieldSize + 2) + 4;
  return { limits: { line, fields, fieldSize }, maxHeaderBytes: Math.min(wanted, MOST_HEADER_BYTES) };
}
