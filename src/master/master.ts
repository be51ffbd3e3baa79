/** The master: owns settings, sockets, signals and the life of every other process. Never touches a request. */
import { randomBytes } from 'node:crypto';
import { chownSync, closeSync, mkdtempSync, openSync, rmSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { EXIT, type ExitCode, NunicornError } from '../errors.ts';
import type { HeadLimits } from '../front/environ.ts';
import type { TlsConfig } from '../front/messages.ts';
import { environNames } from '../log/access-format.ts';
import { type ErrorLog, type ErrorLogSettings, openErrorLog } from '../log/error-log.ts';
import { formatAddress, parseAddress } from '../settings/address.ts';
import type { LoadedSettings } from '../settings/load.ts';
import { findPython, type Python } from '../settings/python.ts';
import type { Settings } from '../settings/table.ts';
import { VERSION } from '../settings/version.ts';
import type { AppHandler, AppKind } from './app-kind.ts';
import { bindAddress, type ListeningSocket } from './listening-sockets.ts';
import { PidFile } from './pid-file.ts';
import { PythonApp } from './python-app.ts';
import { pythonSettings } from './python-settings.ts';
import { Workers } from './workers.ts';

const SOFTWARE = `nunicorn/${VERSION}`;
/** What running requests are given at a quick shutdown. */
const QUICK_STOP_MS = 2000;
/** After all requests are answered: what an app's exit handlers may take at least. */
const LEAST_EXIT_MS = 1000;

/** Starts the server and returns; the process ends when the server does. Throws NunicornError if it cannot start. */
export async function runMaster(loaded: LoadedSettings): Promise<void> {
  const { settings } = loaded;
  const log = await openErrorLog(errorLogSettings(loaded));
  const tls = await certificatesOf(settings, log);
  const python = await findPython(settings.python, process.env, loaded.cwd);
  const pidFile = settings.pidfile === null ? null : new PidFile(settings.pidfile);
  const uid = settings.user ?? null;
  const gid = settings.group ?? null;
  const owner =
    uid === null && gid === null
      ? null
      : { uid: uid ?? process.getuid?.() ?? -1, gid: gid ?? process.getgid?.() ?? -1 };
  log.info(`Starting nunicorn ${VERSION}`);
  for (const notice of loaded.notices) log.info(notice);
  const sockets: ListeningSocket[] = [];
  try {
    for (const address of settings.bind)
      sockets.push(await bindAddress(parseAddress(address), settings.umask, owner, log));
  } catch (error) {
    pidFile?.remove();
    for (const socket of sockets) if (socket.address.kind === 'unix') unlinkSync(socket.address.path);
    throw error;
  }
  const folder = mkdtempSync(join(tmpdir(), 'nunicorn-'));
  if (owner !== null) chownSync(folder, owner.uid, owner.gid);
  const master = new Master(loaded, log, python, sockets, folder, pidFile, owner, tls);
  await master.start();
}

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

class Master {
  private readonly loaded: LoadedSettings;
  private readonly log: ErrorLog;
  private readonly sockets: readonly ListeningSocket[];
  private readonly folder: string;
  private readonly spoolFolder: string;
  private readonly pidFile: PidFile | null;
  private readonly workers: Workers;
  private readonly app: AppKind;
  private exitCode: ExitCode = EXIT.OK;
  private stopPhase: 'running' | 'graceful' | 'quick' | 'workers' | 'done' = 'running';
  private stopDeadline = 0;
  private stopTimer: NodeJS.Timeout | null = null;

  constructor(
    loaded: LoadedSettings,
    log: ErrorLog,
    python: Python,
    sockets: readonly ListeningSocket[],
    folder: string,
    pidFile: PidFile | null,
    owner: Owner | null,
    tls: TlsConfig | null,
  ) {
    this.loaded = loaded;
    this.log = log;
    this.sockets = sockets;
    this.folder = folder;
    this.pidFile = pidFile;
    const { settings } = loaded;
    this.spoolFolder =
      settings.spool_dir === null ? folder : mkdtempSync(join(resolve(loaded.cwd, settings.spool_dir), 'nunicorn-'));
    if (owner !== null) {
      chownSync(this.spoolFolder, owner.uid, owner.gid);
      for (const path of [errorLogPath(loaded), settings.accesslog]) giveLog(path, owner);
    }
    process.title = titleOf(loaded, 'master');
    this.workers = new Workers(
      {
        count: settings.workers,
        stagger: settings.stagger,
        gracefulTimeoutMs: settings.graceful_timeout * 1000,
        recycling: {
          maxRequests: settings.max_requests,
          maxRequestsJitter: settings.max_requests_jitter,
          maxLifetimeMs: settings.max_lifetime * 1000,
          maxLifetimeJitterMs: settings.max_lifetime_jitter * 1000,
          minWorkerLifetimeMs: settings.min_worker_lifetime * 1000,
        },
      },
      {
        startWorker: (facts) => this.app.startWorker(facts),
        spawned: () => {},
        exited: () => {},
        bootFailed: (code) => this.bootFailed(code),
        allGone: () => this.finish(),
      },
      log,
    );
    const handler: AppHandler = {
      workers: this.workers,
      listening: () => this.listening(),
      failed: () => this.bootFailed(EXIT.ERROR),
      stopped: () => this.stopWorkers(),
    };
    this.app = this.pythonApp(python, owner, tls, handler);
  }

  private pythonApp(python: Python, owner: Owner | null, tls: TlsConfig | null, handler: AppHandler): AppKind {
    const { loaded, folder } = this;
    const { settings } = loaded;
    const token = randomBytes(16).toString('hex');
    const forPython = pythonSettings(loaded);
    const uid = settings.user ?? null;
    const gid = settings.group ?? null;
    return new PythonApp(
      {
        python,
        // A process that runs the configuration file begins as that did, in the environment of the start.
        env: forPython.file === null ? loaded.env : process.env,
        preload: settings.preload_app,
        folder,
        owner,
        title: (role) => titleOf(loaded, role),
        config: {
          app: loaded.app,
          threads: settings.threads,
          workers: settings.workers,
          chdir: settings.chdir,
          pythonpath: settings.pythonpath?.join(',') ?? null,
          umask: settings.umask,
          uid,
          gid,
          ...forPython,
          environ_names: settings.accesslog === null ? [] : environNames(settings.access_log_format),
          master_pid: process.pid,
          software: SOFTWARE,
          argv: process.argv.slice(1),
          token,
        },
        fronts: {
          count: settings.fronts,
          handles: this.sockets.map((socket) => socket.handle),
          uid,
          gid,
          config: {
            token,
            folder,
            spoolFolder: this.spoolFolder,
            backlog: settings.backlog,
            keepaliveMs: settings.keepalive * 1000,
            timeoutMs: settings.timeout * 1000,
            queueTimeoutMs: settings.queue_timeout * 1000,
            headerTimeoutMs: settings.header_timeout * 1000,
            bodyTimeoutMs: settings.body_timeout * 1000,
            responseTimeoutMs: settings.response_timeout * 1000,
            maxQueue: settings.max_queue,
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
            errorLog: errorLogSettings(loaded),
            access:
              settings.accesslog === null ? null : { path: settings.accesslog, format: settings.access_log_format },
            listeners: this.sockets.map((socket) => socket.facts),
          },
        },
      },
      handler,
      this.log,
    );
  }

  async start(): Promise<void> {
    process.on('SIGTERM', () => this.signalled('term', true));
    process.on('SIGINT', () => this.signalled('int', false));
    process.on('SIGQUIT', () => this.signalled('quit', false));
    process.on('SIGUSR1', () => {
      this.log.info('Handling signal: usr1');
      this.log.reopen();
      this.app.reopenLogs();
      this.workers.reopenLogs();
    });
    process.on('SIGHUP', () => {
      this.log.info('Handling signal: hup');
      this.log.info('Hang up: Master');
      this.log.warning('The application is loaded anew; settings are read only at the start');
      void this.reloadCertificates();
      this.app.reload();
      this.workers.reload();
    });
    process.on('SIGTTIN', () => {
      this.log.info('Handling signal: ttin');
      this.workers.add();
    });
    process.on('SIGTTOU', () => {
      this.log.info('Handling signal: ttou');
      this.workers.remove();
    });
    for (const signal of ['SIGUSR2', 'SIGWINCH'] as const) {
      process.on(signal, () => this.log.warning(`${signal} ignored: nunicorn does not support it yet`));
    }
    process.on('exit', () => {
      this.workers.killAll();
      this.app.killAll();
    });
    await this.app.start();
    this.workers.start();
  }

  private listening(): void {
    const { settings, app } = this.loaded;
    const protocol = settings.certfile === null ? 'http://' : 'https://';
    const scheme = (socket: ListeningSocket): string => (socket.address.kind === 'tcp' ? protocol : '');
    const where = this.sockets.map((socket) => scheme(socket) + formatAddress(socket.address)).join(',');
    const requests = settings.workers * settings.threads;
    this.log.info(`Listening at: ${where} (${process.pid})`);
    this.log.info(`Using worker: ${settings.worker_class}`);
    this.log.info(
      `Serving ${app} with ${count(settings.workers, 'worker')} x ${count(settings.threads, 'thread')} = ` +
        `${count(requests, 'request')} at a time, ${this.app.description}`,
    );
  }

  /** Renewed certificates serve the connections to come; files that do not fit leave the old ones in use. */
  private async reloadCertificates(): Promise<void> {
    try {
      const tls = await certificatesOf(this.loaded.settings, this.log);
      if (tls !== null) this.app.setCertificates(tls);
    } catch (error) {
      if (!(error instanceof NunicornError)) throw error;
      this.log.error(`The certificates stay as they are: ${error.message}`);
    }
  }

  private bootFailed(code: ExitCode): void {
    if (this.stopPhase !== 'running') return;
    this.exitCode = code;
    this.stop(false);
  }

  private signalled(name: string, graceful: boolean): void {
    this.log.info(`Handling signal: ${name}`);
    this.stop(graceful);
  }

  /** First the clients get their answers, then the workers leave, then what is left ends. */
  private stop(graceful: boolean): void {
    if (this.stopPhase === 'running' || (this.stopPhase === 'graceful' && !graceful)) {
      if (this.stopPhase === 'graceful') this.log.info('Quick shutdown requested');
      this.stopPhase = graceful ? 'graceful' : 'quick';
      const limitMs = graceful ? this.loaded.settings.graceful_timeout * 1000 : QUICK_STOP_MS;
      this.stopDeadline = performance.now() + limitMs;
      // From here on whoever serves the clients alone holds the sockets: what waits is accepted, then they are closed.
      for (const { handle } of this.sockets) handle.close();
      this.app.stop(true);
      this.setStopTimer(limitMs, () => {
        this.app.stop(false);
        this.setStopTimer(LEAST_EXIT_MS, () => this.stopWorkers());
      });
    } else if (this.stopPhase === 'workers' && !graceful) {
      this.workers.stop(0, true);
    }
  }

  private stopWorkers(): void {
    if (this.stopPhase === 'running' || this.stopPhase === 'workers' || this.stopPhase === 'done') return;
    const quick = this.stopPhase === 'quick';
    this.stopPhase = 'workers';
    this.setStopTimer(0, null);
    this.workers.stop(Math.max(this.stopDeadline - performance.now(), LEAST_EXIT_MS), quick);
  }

  private setStopTimer(delayMs: number, action: (() => void) | null): void {
    if (this.stopTimer !== null) clearTimeout(this.stopTimer);
    this.stopTimer = action === null ? null : setTimeout(action, delayMs);
  }

  private finish(): void {
    if (this.stopPhase === 'done') return;
    this.stopPhase = 'done';
    this.app.end(() => this.exit());
  }

  private exit(): void {
    for (const { address } of this.sockets) {
      if (address.kind === 'unix') rmSync(address.path, { force: true });
    }
    for (const folder of [this.folder, this.spoolFolder]) rmSync(folder, { recursive: true, force: true });
    this.pidFile?.remove();
    const failed = this.exitCode !== EXIT.OK;
    this.log[failed ? 'error' : 'info']('Shutting down: Master');
    if (failed) this.log.error(`Reason: ${REASONS[this.exitCode] ?? 'unknown.'}`);
    process.exit(this.exitCode);
  }
}

const REASONS: Readonly<Partial<Record<ExitCode, string>>> = {
  [EXIT.WORKER_BOOT_ERROR]: 'Worker failed to boot.',
  [EXIT.APP_LOAD_ERROR]: 'App failed to load.',
  [EXIT.ERROR]: 'a front could not be started.',
};

function titleOf({ settings, app }: LoadedSettings, role: string): string {
  return `nunicorn: ${role} [${settings.proc_name || app}]`;
}

function errorLogSettings(loaded: LoadedSettings): ErrorLogSettings {
  const { loglevel: level, log_format: format, log_split: split } = loaded.settings;
  return { path: errorLogPath(loaded), level, format, split };
}

function errorLogPath({ settings, cwd }: LoadedSettings): string {
  return settings.errorlog === '-' ? '-' : resolve(cwd, settings.errorlog);
}

/** Null without TLS. Throws NunicornError if the files do not fit. */
async function certificatesOf(settings: Settings, log: ErrorLog): Promise<TlsConfig | null> {
  if (settings.certfile === null && settings.keyfile === null) return null;
  const { readCertificates } = await import('./certificates.ts');
  return readCertificates(settings, (message) => log.warning(message));
}

/** Fronts and workers open the log as the user they run as. */
function giveLog(path: string | null, owner: { uid: number; gid: number }): void {
  if (path === null || path === '-') return;
  closeSync(openSync(path, 'a'));
  chownSync(path, owner.uid, owner.gid);
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

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}
