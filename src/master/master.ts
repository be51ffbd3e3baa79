/** The master: owns settings, listening sockets, signals and the life of every other process. Never touches a request. */
import { EXIT, type ExitCode, NunicornError } from '../errors.ts';
import { openErrorLog } from '../log/error-log.ts';
import { type SwitchableLog, switchableLog } from '../log/switchable-log.ts';
import type { LoadedSettings } from '../settings/load.ts';
import { findPython } from '../settings/python.ts';
import { VERSION } from '../settings/version.ts';
import { certificatesOf } from './certificates-of.ts';
import { closeSocket, describeSockets, type ListeningSocket, openSockets } from './listening-sockets.ts';
import { errorLogSettings, type Setup, titleOf } from './options.ts';
import { type Owner, ownerOf } from './owner.ts';
import { PidFile } from './pid-file.ts';
import { readAnew } from './reload.ts';
import { Service } from './service.ts';

/** Starts the server and returns; the process ends when the server does. Throws NunicornError if it cannot start. */
export async function runMaster(loaded: LoadedSettings): Promise<void> {
  const { settings } = loaded;
  const log = switchableLog(await openErrorLog(errorLogSettings(loaded)));
  const tls = await certificatesOf(settings, log);
  const python = await findPython(settings.python, process.env, loaded.cwd);
  const pidFile = settings.pidfile === null ? null : new PidFile(settings.pidfile);
  log.info(`Starting nunicorn ${VERSION}`);
  for (const notice of loaded.notices) log.info(notice);
  let sockets: readonly ListeningSocket[] = [];
  try {
    const owner = ownerOf(settings);
    sockets = await openSockets(settings, [], owner, log);
    const master = new Master({ loaded, python, sockets, tls }, log, pidFile, owner);
    await master.start();
  } catch (error) {
    for (const socket of sockets) closeSocket(socket, true);
    pidFile?.remove();
    throw error;
  }
}

class Master {
  private setup: Setup;
  private readonly log: SwitchableLog;
  private pidFile: PidFile | null;
  private readonly owner: Owner | null;
  private readonly service: Service;
  private exitCode: ExitCode = EXIT.OK;
  private stopping = false;
  private everReady = false;
  private reload: 'none' | 'running' | 'again' = 'none';

  constructor(setup: Setup, log: SwitchableLog, pidFile: PidFile | null, owner: Owner | null) {
    this.setup = setup;
    this.log = log;
    this.pidFile = pidFile;
    this.owner = owner;
    process.title = titleOf(setup.loaded, 'master');
    this.service = new Service(
      setup,
      owner,
      {
        listening: () => this.listening(),
        ready: () => this.ready(),
        reloadFailed: () => {},
        bootFailed: (code) => {
          this.exitCode = code;
          this.closeSockets();
        },
        stopped: () => this.exit(),
      },
      log,
    );
  }

  async start(): Promise<void> {
    this.on('SIGTERM', () => this.stop(true));
    this.on('SIGINT', () => this.stop(false));
    this.on('SIGQUIT', () => this.stop(false));
    this.on('SIGUSR1', () => {
      this.log.reopen();
      this.service.reopenLogs();
    });
    this.on('SIGHUP', () => {
      this.log.info('Hang up: Master');
      void this.hangUp();
    });
    this.on('SIGTTIN', () => this.service.addWorker());
    this.on('SIGTTOU', () => this.service.removeWorker());
    for (const signal of ['SIGUSR2', 'SIGWINCH'] as const) {
      process.on(signal, () => this.log.warning(`${signal} ignored: nunicorn does not support it yet`));
    }
    process.on('exit', () => this.service.killAll());
    await this.service.start();
  }

  private on(signal: NodeJS.Signals, action: () => void): void {
    process.on(signal, () => {
      this.log.info(`Handling signal: ${signal.slice('SIG'.length).toLowerCase()}`);
      action();
    });
  }

  private listening(): void {
    const { loaded, sockets } = this.setup;
    const { settings, app } = loaded;
    const requests = settings.workers * settings.threads;
    this.log.info(`Listening at: ${describeSockets(sockets, settings)} (${process.pid})`);
    this.log.info(`Using worker: ${settings.worker_class}`);
    this.log.info(
      `Serving ${app} with ${count(settings.workers, 'worker')} x ${count(settings.threads, 'thread')} = ` +
        `${count(requests, 'request')} at a time, ${this.service.description}`,
    );
  }

  private ready(): void {
    this.log.info(`${this.everReady ? 'Reloaded' : 'Started'}: all workers are ready`);
    this.everReady = true;
  }

  // ---- reload

  /** Settings and app anew. A hang-up that comes meanwhile begins another reload after this one. */
  private async hangUp(): Promise<void> {
    if (this.stopping) return;
    if (this.reload !== 'none') {
      this.reload = 'again';
      return;
    }
    this.reload = 'running';
    try {
      await this.reloadOnce();
    } catch (error) {
      if (!(error instanceof NunicornError)) throw error;
      this.log.error(`The settings could not be read anew, all stays as it was: ${error.message}`);
    }
    const again = this.isReloadWanted();
    this.reload = 'none';
    if (again) await this.hangUp();
  }

  private isReloadWanted(): boolean {
    return this.reload === 'again';
  }

  private async reloadOnce(): Promise<void> {
    const before = this.setup;
    const { setup, errorLog, needsRestart } = await readAnew(before, this.owner, this.log);
    const { settings } = setup.loaded;
    const added = setup.sockets.filter((socket) => !before.sockets.includes(socket));
    const removed = before.sockets.filter((socket) => !setup.sockets.includes(socket));
    if (this.stopping) {
      for (const socket of added) closeSocket(socket, true);
      return;
    }
    if (settings.pidfile !== before.loaded.settings.pidfile) {
      const next = settings.pidfile === null ? null : new PidFile(settings.pidfile);
      this.pidFile?.remove();
      this.pidFile = next;
    }
    this.log.become(errorLog);
    this.setup = setup;
    process.title = titleOf(setup.loaded, 'master');
    for (const warning of setup.loaded.warnings) this.log.warning(warning);
    if (needsRestart.length > 0) {
      this.log.warning(`Needs a restart, and stays as it was until then: ${needsRestart.join(', ')}`);
    }
    if (added.length + removed.length > 0) this.log.info(`Listening at: ${describeSockets(setup.sockets, settings)}`);
    await this.service.reload(setup);
    for (const socket of removed) closeSocket(socket, true);
    this.service.reopenLogs();
  }

  // ---- the end

  private stop(graceful: boolean): void {
    // From here on the fronts alone hold the sockets: they accept what waits, then close them.
    this.closeSockets();
    this.service.stop(graceful);
  }

  private closeSockets(): void {
    if (this.stopping) return;
    this.stopping = true;
    for (const socket of this.setup.sockets) closeSocket(socket, false);
  }

  private exit(): void {
    for (const socket of this.setup.sockets) closeSocket(socket, true);
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

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}
