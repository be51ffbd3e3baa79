/** The master: owns settings, listening sockets, signals and the life of every other process. Never touches a request. */
import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ServerActions } from '../control/target.ts';
import { EXIT, NunicornError } from '../errors.ts';
import { INIT_VARIABLE } from '../init.ts';
import { openErrorLog } from '../log/error-log.ts';
import { type SwitchableLog, switchableLog } from '../log/switchable-log.ts';
import type { Monitoring } from '../metrics/monitoring.ts';
import type { ServerView } from '../metrics/view.ts';
import { plural } from '../plural.ts';
import { wantsMetrics } from '../settings/admin.ts';
import type { LoadedSettings } from '../settings/load.ts';
import { findPython, PACKAGE_DIR } from '../settings/python.ts';
import { VERSION } from '../settings/version.ts';
import { certificatesOf } from './certificates-of.ts';
import type { CodeWatch } from './code-watch.ts';
import type { Inheritance } from './inheritance.ts';
import { adoptSockets, closeSocket, describeSockets, type ListeningSocket, openSockets } from './listening-sockets.ts';
import { startLogProcess } from './log-process.ts';
import {
  type MultiprocessFolder,
  openMultiprocessFolder,
  prometheusFolder,
  removeMultiprocessFolder,
} from './multiprocess-folder.ts';
import { errorLogSettings, logFiles, type Setup, titleOf } from './options.ts';
import { giveLog, giveRotatedLog, type Owner, ownerOf } from './owner.ts';
import { PidFile } from './pid-file.ts';
import { readAnew } from './reload.ts';
import { Service } from './service.ts';
import { connectSystemd, type Systemd } from './systemd.ts';
import { awaitPromotion, hasLeft, startNewMaster } from './upgrade.ts';

/** As gunicorn's: of a master that is to replace another one, until that is gone. */
const SECOND = '.2';
/** As long as timers can run. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** What the last words to those who watch the server may take. */
const MONITORING_END_MS = 1000;

/**
 * Starts the server and returns; the process ends when the server does. Throws NunicornError if it cannot start.
 *
 * @param started is called when all workers serve for the first time
 */
export async function runMaster(loaded: LoadedSettings, inheritance: Inheritance, started: () => void): Promise<void> {
  const { settings } = loaded;
  const python = loaded.nodeApp === null ? await findPython(settings.python, process.env, loaded.cwd) : null;
  const logProcess = await startLogProcess(loaded, python);
  try {
    const basics = { loaded, python, sockets: [], tls: null, logProcess, multiprocess: null };
    await startMaster(basics, inheritance, started);
  } catch (error) {
    await logProcess?.end();
    throw error;
  }
}

async function startMaster(basics: Setup, inheritance: Inheritance, started: () => void): Promise<void> {
  const { loaded, python, logProcess } = basics;
  const { settings } = loaded;
  const owner = ownerOf(settings);
  // Before the first line is written, and before there is anything that a failure would leave behind.
  if (owner !== null) for (const path of logFiles(loaded)) giveLog(path, owner);
  const log = switchableLog(await openErrorLog(errorLogSettings(loaded, logProcess)));
  const tls = await certificatesOf(settings, log);
  const isUpgrade = inheritance.oldMaster !== null;
  const pidFile = settings.pidfile === null ? null : new PidFile(settings.pidfile + (isUpgrade ? SECOND : ''));
  log.info(`Starting nunicorn ${VERSION}`);
  for (const notice of loaded.notices) log.info(notice);
  let sockets: readonly ListeningSocket[] = [];
  let multiprocess: MultiprocessFolder | null = null;
  try {
    multiprocess = openMultiprocessFolder(basics, owner, inheritance.multiprocess);
    const inherited = adoptSockets(inheritance.sockets);
    const systemd = await connectSystemd(process.env, python?.path ?? 'python3', isUpgrade, log);
    const setup = { ...basics, tls, multiprocess };
    await new Master(setup, log, pidFile, owner, systemd, inheritance, started).start(async () => {
      sockets = await openSockets(settings, inherited, owner, log);
      for (const socket of inherited) if (!sockets.includes(socket)) closeSocket(socket, false);
      return sockets;
    });
  } catch (error) {
    for (const socket of sockets) closeSocket(socket, !isUpgrade);
    if (multiprocess?.path !== inheritance.multiprocess?.path) removeMultiprocessFolder(multiprocess);
    pidFile?.remove();
    throw error;
  }
}

class Master {
  private setup: Setup;
  private readonly log: SwitchableLog;
  private pidFile: PidFile | null;
  private readonly owner: Owner | null;
  private readonly systemd: Systemd;
  /** Null: at rest, the workers are gone and the listening sockets are kept. */
  private service: Service | null = null;
  /** Has stopped; its server hooks of the end have not run. */
  private stoppedService: Service | null = null;
  /** What has been asked for: `rest` by WINCH. */
  private wanted: 'service' | 'rest' | 'end' = 'service';
  private reload: 'none' | 'running' | 'again' = 'none';
  /** To be done when the service is there that is being started. Null: none is. */
  private postponed: (() => void)[] | null = [];
  private everReady = false;
  private readonly started: () => void;
  private exitCode: number = EXIT.OK;
  private exiting = false;
  private reason = 'unknown.';
  /** The master that this one is to replace. */
  private oldMaster: number | null;
  /** The folder that it has. */
  private readonly inheritedFolder: MultiprocessFolder | null;
  /** The master that is to replace this one. */
  private newMaster: ChildProcess | null = null;
  private watch: CodeWatch | null = null;
  /** Null: nobody asked for metrics. */
  private monitoring: Monitoring | null = null;

  constructor(
    setup: Setup,
    log: SwitchableLog,
    pidFile: PidFile | null,
    owner: Owner | null,
    systemd: Systemd,
    { oldMaster, multiprocess }: Inheritance,
    started: () => void,
  ) {
    this.setup = setup;
    this.log = log;
    this.pidFile = pidFile;
    this.owner = owner;
    this.systemd = systemd;
    this.oldMaster = oldMaster;
    this.inheritedFolder = multiprocess;
    this.started = started;
  }

  /** `open` listens at the addresses: after the server hooks of the start. */
  async start(open: () => Promise<readonly ListeningSocket[]>): Promise<void> {
    this.showTitle();
    this.on('SIGTERM', () => this.stop(true));
    this.on('SIGINT', () => this.stop(false));
    this.on('SIGQUIT', () => this.stop(false));
    this.on('SIGHUP', () =>
      this.whenStarted(() => {
        this.log.info(`Hang up: ${this.name}`);
        void this.hangUp();
      }),
    );
    this.on('SIGUSR1', () => {
      const { loaded } = this.setup;
      if (this.owner !== null) for (const path of logFiles(loaded)) giveRotatedLog(path, this.owner);
      this.log.reopen();
      this.setup.logProcess?.reopen();
      this.service?.reopenLogs();
    });
    this.on('SIGUSR2', () => this.whenStarted(() => this.upgrade()));
    this.on('SIGWINCH', () => this.rest());
    this.on('SIGTTIN', () => this.addWorker());
    this.on('SIGTTOU', () => this.removeWorker());
    process.on('exit', () => (this.service ?? this.stoppedService)?.killAll());
    if (this.oldMaster !== null) awaitPromotion(this.oldMaster, () => this.promoted());
    if (this.setup.loaded.settings.reload) await this.watchCode();
    await this.startMonitoring();
    await this.serve(open);
    // Nothing else keeps a master at rest.
    setInterval(() => {}, LONGEST_TIMER_MS);
  }

  private async startMonitoring(): Promise<void> {
    const { settings } = this.setup.loaded;
    if (!wantsMetrics(settings)) return;
    const { Monitoring } = await import('../metrics/monitoring.ts');
    const view: ServerView = {
      version: VERSION,
      setup: () => this.setup,
      workers: () => this.service?.views() ?? [],
      workerCount: () => this.service?.workerCount ?? 0,
      reloads: () => this.service?.reloadCount ?? 0,
      fronts: () => this.service?.fronts() ?? [],
      moldPids: () => this.service?.moldPids() ?? [],
      askWorkers: async () => this.service?.askWorkers(),
      prometheusFolder: () => prometheusFolder(this.setup),
      askFronts: async (requests) => (await this.service?.askFronts(requests)) ?? [],
    };
    // At rest there is no worker to do anything with.
    const actions: ServerActions = {
      addWorker: () => this.addWorker(),
      removeWorker: () => this.removeWorker(),
      replaceWorker: (serial) => this.service?.replaceWorker(serial),
      stacks: (serial) => this.service?.stacks(serial) ?? Promise.resolve(''),
    };
    this.monitoring = await Monitoring.start(view, actions, settings, this.oldMaster !== null, this.log);
  }

  /** Development: code that changes is loaded anew. */
  private async watchCode(): Promise<void> {
    this.log.warning('Reloader is on. Use in development only!');
    const { CodeWatch } = await import('./code-watch.ts');
    const { settings, cwd } = this.setup.loaded;
    const changed = (path: string): void => {
      if (this.wanted !== 'service') return;
      this.log.info(`Worker reloading: ${path} modified`);
      this.whenStarted(() => void this.service?.reload(this.setup));
    };
    const warn = (message: string): void => this.log.warning(message);
    this.watch = new CodeWatch(settings.reload_engine, settings.reload_extra_files, cwd, changed, warn);
  }

  private on(signal: NodeJS.Signals, action: () => void): void {
    process.on(signal, () => {
      this.log.info(`Handling signal: ${signal.slice('SIG'.length).toLowerCase()}`);
      action();
    });
  }

  /** What only a service that is complete can do. */
  private whenStarted(action: () => void): void {
    if (this.postponed === null) action();
    else this.postponed.push(action);
  }

  private addWorker(): void {
    this.whenStarted(() => this.service?.addWorker());
  }

  private removeWorker(): void {
    this.whenStarted(() => this.service?.removeWorker());
  }

  private get name(): string {
    return this.oldMaster === null ? 'Master' : `Master${SECOND}`;
  }

  private showTitle(): void {
    const title = titleOf(this.setup.loaded, 'master');
    process.title = this.oldMaster === null ? title : title.replace(/\]$/, `${SECOND}]`);
  }

  private async serve(open?: () => Promise<readonly ListeningSocket[]>): Promise<void> {
    this.wanted = 'service';
    this.postponed ??= [];
    await this.stoppedService?.close(false);
    this.stoppedService = null;
    const service = new Service(
      this.setup,
      this.owner,
      {
        files: (files) => this.watch?.addAll(files),
        listening: () => this.listening(),
        ready: () => this.ready(),
        reloadFailed: () => this.tellReady(),
        bootFailed: (code) => this.fail(code, REASONS[code] + (code === EXIT.ERROR ? needsOf(this.owner) : '')),
        hookFailed: (code) => this.fail(code, 'A server hook failed.'),
        stopped: () => this.stopped(),
      },
      this.monitoring?.metrics ?? null,
      this.log,
    );
    this.service = service;
    await service.prepare();
    try {
      if (open !== undefined) this.setup = { ...this.setup, sockets: await open() };
      await service.start(this.setup);
    } catch (error) {
      await service.close(false);
      await this.monitoring?.close();
      throw error;
    }
    const { postponed } = this;
    this.postponed = null;
    for (const action of postponed ?? []) action();
  }

  private fail(code: number, reason: string): void {
    this.exitCode = code;
    this.reason = reason;
    this.end();
  }

  private listening(): void {
    const { loaded, sockets } = this.setup;
    const { settings, app } = loaded;
    const requests = settings.workers * settings.threads;
    this.log.info(`Listening at: ${describeSockets(sockets, settings)} (${process.pid})`);
    this.log.info(`Using worker: ${settings.worker_class}`);
    this.log.info(
      `Serving ${app} with ${plural(settings.workers, 'worker')} x ${plural(settings.threads, 'thread')} = ` +
        `${settings.worker_class === 'async' ? plural(requests, 'event loop') : `${plural(requests, 'request')} at a time`}, ` +
        `${this.service?.description}`,
    );
  }

  private ready(): void {
    this.log.info(`${this.everReady ? 'Reloaded' : 'Started'}: all workers are ready`);
    if (!this.everReady) this.started();
    this.everReady = true;
    this.tellReady();
  }

  private tellReady(): void {
    const { workers, threads } = this.setup.loaded.settings;
    this.systemd.ready(`Serving with ${plural(workers, 'worker')} x ${plural(threads, 'thread')}`);
  }

  // ---- reload

  /** Settings and app anew. A hang-up that comes meanwhile begins another reload after this one. */
  private async hangUp(): Promise<void> {
    if (this.wanted === 'end') return;
    if (this.reload !== 'none') {
      this.reload = 'again';
      return;
    }
    this.reload = 'running';
    this.systemd.reloading();
    try {
      await this.reloadOnce();
    } catch (error) {
      this.log.error(`The settings could not be read anew, all stays as it was: ${textOf(error)}`);
      this.tellReady();
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
    const discard = async (): Promise<void> => {
      for (const socket of added) closeSocket(socket, true);
      errorLog.close();
      await setup.logProcess?.end();
    };
    if (this.isEnding()) {
      await discard();
      return;
    }
    try {
      this.movePidFile(before.loaded.settings.pidfile, settings.pidfile);
    } catch (error) {
      await discard();
      throw error;
    }
    this.log.become(errorLog);
    this.setup = setup;
    this.showTitle();
    for (const warning of setup.loaded.warnings) this.log.warning(warning);
    if (needsRestart.length > 0) {
      this.log.warning(`Needs a restart, and stays as it was until then: ${needsRestart.join(', ')}`);
    }
    if (added.length + removed.length > 0) this.log.info(`Listening at: ${describeSockets(setup.sockets, settings)}`);
    if (this.wanted === 'rest') this.orEnd(this.wake());
    else await this.service?.reload(setup);
    await before.logProcess?.end();
    for (const socket of removed) closeSocket(socket, true);
    this.service?.reopenLogs();
  }

  /** Throws NunicornError if it cannot be; then it stays where it is. */
  private movePidFile(from: string | null, to: string | null): void {
    if (to === from) return;
    const next = to === null ? null : new PidFile(to + (this.oldMaster === null ? '' : SECOND));
    this.pidFile?.remove();
    this.pidFile = next;
  }

  private isEnding(): boolean {
    return this.wanted === 'end';
  }

  // ---- upgrade

  private upgrade(): void {
    if (process.pid === 1 || process.env[INIT_VARIABLE] !== undefined) {
      this.log.warning('USR2 signal ignored. The end of PID 1 is the end of its container: start a new container');
    } else if (this.newMaster !== null) {
      this.log.warning('USR2 signal ignored. Child exists.');
    } else if (this.oldMaster !== null) {
      this.log.warning('USR2 signal ignored. Parent exists.');
    } else if (this.wanted === 'service') {
      void this.startNewMaster();
    }
  }

  private async startNewMaster(): Promise<void> {
    if ((await this.service?.beforeUpgrade()) === false || this.newMaster !== null) return;
    const newMaster = startNewMaster(this.setup, this.log, () => {
      this.newMaster = null;
      // Nobody else serves, or is to be asked.
      if (this.wanted === 'rest') this.orEnd(this.wake());
      else if (this.wanted === 'service') void this.monitoring?.openLater();
    });
    this.newMaster = newMaster;
    this.monitoring?.beside(newMaster);
  }

  /** The old master is gone. */
  private promoted(): void {
    if (this.oldMaster === null) return;
    this.log.info('Master has been promoted.');
    this.oldMaster = null;
    if (!this.sharesFolder()) removeMultiprocessFolder(this.inheritedFolder);
    const { pidfile } = this.setup.loaded.settings;
    try {
      if (pidfile !== null) this.pidFile?.rename(pidfile);
    } catch (error) {
      this.log.error(`The pid file stays at ${pidfile}${SECOND}: ${textOf(error)}`);
    }
    this.showTitle();
    if (this.everReady && this.wanted !== 'end') this.tellReady();
  }

  /** The workers go, the master and its listening sockets stay: what connects waits, or goes to the new master. */
  private rest(): void {
    if (this.newMaster === null && !this.setup.loaded.settings.daemon) {
      // A terminal sends it when its window changes.
      this.log.debug('SIGWINCH ignored. Not daemonized, and no new master serves');
    } else if (this.wanted === 'service') {
      this.log.info('graceful stop of workers');
      this.wanted = 'rest';
      this.yieldMonitoring();
      this.service?.stop(true);
    }
  }

  /** Serves again; what is still stopping has first to be gone. */
  private async wake(): Promise<void> {
    this.wanted = 'service';
    // What is asked there is answered by the new master while there is one.
    if (this.newMaster === null) void this.monitoring?.openLater();
    if (this.service === null) await this.serve();
  }

  // ---- the end

  private stop(graceful: boolean): void {
    this.end();
    if (this.service === null) void this.exit();
    else this.service.stop(graceful);
  }

  private end(): void {
    if (this.wanted === 'end') return;
    this.wanted = 'end';
    this.monitoring?.metrics.stopping();
    this.yieldMonitoring();
    if (this.newMaster?.pid !== undefined) this.systemd.mainPid(this.newMaster.pid);
    else this.systemd.stopping();
    // From then on whoever serves the clients alone holds the sockets: what waits is accepted, then they are closed.
    const close = (): void => this.closeSockets(false);
    if (this.service === null) close();
    else this.service.whenSocketsHeld(close);
  }

  private closeSockets(unlink: boolean): void {
    for (const socket of this.setup.sockets) {
      // libuv removes the file of a Unix socket when it closes what it has bound, but the new master listens there.
      if (this.newMaster !== null && socket.address.kind === 'unix') continue;
      closeSocket(socket, unlink);
    }
  }

  private stopped(): void {
    this.stoppedService = this.service;
    this.service = null;
    if (this.wanted === 'end') void this.exit();
    else if (this.wanted === 'service') this.orEnd(this.serve());
    else this.systemd.status('At rest');
  }

  /** A server that cannot serve again after a rest ends: whoever watches over it is to know. */
  private orEnd(serving: Promise<void>): void {
    serving.catch((error: unknown) => {
      this.log.critical(textOf(error));
      this.exitCode = EXIT.ERROR;
      this.reason = 'it could not serve again.';
      this.stop(false);
    });
  }

  private async exit(): Promise<void> {
    if (this.exiting) return;
    this.exiting = true;
    // A statsd server whose name nobody resolves, or a new master that does not hear, is not waited for.
    await Promise.race([this.endMonitoring().catch(() => {}), sleep(MONITORING_END_MS)]);
    await this.exitNow();
  }

  /** With a new master beside this one, that one is to be asked from now on. */
  private yieldMonitoring(): void {
    // What could not be counted up to now is told at the end.
    if (this.newMaster !== null) this.monitoring?.yieldTo(this.newMaster).catch(() => {});
  }

  private async endMonitoring(): Promise<void> {
    if (this.newMaster !== null) await this.monitoring?.yieldTo(this.newMaster);
    // The old master goes on.
    else if (this.oldMaster !== null) await this.monitoring?.yieldTo(process);
    await this.monitoring?.close();
  }

  /** With the old master. */
  private sharesFolder(): boolean {
    return this.inheritedFolder?.path === this.setup.multiprocess?.path;
  }

  private async exitNow(): Promise<void> {
    // What it has left behind is this one's to remove, also where it has gone since it was last looked for.
    if (this.oldMaster !== null && hasLeft(this.oldMaster)) this.promoted();
    this.closeSockets(this.oldMaster === null);
    this.pidFile?.remove();
    const failed = this.exitCode !== EXIT.OK;
    this.log[failed ? 'error' : 'info'](`Shutting down: ${this.name}`);
    if (failed) this.log.error(`Reason: ${this.reason}`);
    await this.stoppedService?.close(true);
    const goesOn = this.newMaster !== null || (this.oldMaster !== null && this.sharesFolder());
    if (!goesOn) removeMultiprocessFolder(this.setup.multiprocess);
    await this.setup.logProcess?.end();
    process.exit(this.exitCode);
  }
}

const REASONS = {
  [EXIT.WORKER_BOOT_ERROR]: 'Worker failed to boot.',
  [EXIT.APP_LOAD_ERROR]: 'App failed to load.',
  [EXIT.ERROR]: 'a front could not be started.',
};

/** What a start as root may find missing when it has become `--user`: Node or nunicorn in a folder that is root's alone. */
function needsOf(owner: Owner | null): string {
  if (owner === null) return '';
  return ` User ${owner.uid} has to be able to run ${process.execPath} and to read ${PACKAGE_DIR}.`;
}

/** What was expected in its words, anything else with the place. */
function textOf(error: unknown): string {
  if (error instanceof NunicornError) return error.message;
  return error instanceof Error ? String(error.stack) : String(error);
}
