/**
 * What serves: the workers and the processes around them, with their private folder. The master starts it, has it take new
 * settings, and stops it.
 */
import { randomBytes } from 'node:crypto';
import { chownSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { resolve } from 'node:path';
import type { ServerActions } from '../control/target.ts';
import { EXIT, NunicornError } from '../errors.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { MasterMetrics } from '../metrics/master-metrics.ts';
import type { FrontView, WorkerView } from '../metrics/view.ts';
import { hasNodeMasterHooks, pythonHooks } from '../settings/hooks.ts';
import type { AppHandler, AppKind, WorkerFacts, WorkerProcess } from './app-kind.ts';
import { MemoryWatch } from './memory-watch.ts';
import { NodeApp } from './node-app.ts';
import {
  errorLogPath,
  hooksConfig,
  listenerFacts,
  memoryOptions,
  type Runtime,
  type Setup,
  workersOptions,
} from './options.ts';
import { giveLog, type Owner } from './owner.ts';
import { privateFolder } from './private-folder.ts';
import { PythonApp } from './python-app.ts';
import { ServerHooks } from './server-hooks.ts';
import { Workers } from './workers.ts';

/** sun_path of unix(7) without the zero at its end; macOS takes less than Linux. */
const LONGEST_SOCKET_PATH_BYTES = process.platform === 'darwin' ? 103 : 107;
const LONGEST_SOCKET_NAME = '/nunicorn-XXXXXX/worker-99999999.sock';
/** In the titles of processes: that of the hooks which are functions of JavaScript. */
const HOOKS_ROLE = 'hooks';
/** What running requests are given at a quick shutdown. */
const QUICK_STOP_MS = 2000;
/** After all requests are answered: what an app's exit handlers may take at least. */
const LEAST_EXIT_MS = 1000;

export interface ServiceHandler {
  /** With --reload: files that the app consists of. */
  files(paths: readonly string[]): void;
  /** Every address is listened at. Called once. */
  listening(): void;
  /** Every worker of the start, or of a reload, serves. */
  ready(): void;
  /** A reload ended: the workers of before stay. */
  reloadFailed(): void;
  /** None has ever been ready, and none will. */
  bootFailed(exitCode: 1 | 3 | 4): void;
  /** A server hook failed: the service stops, and the server is to end with this exit code. */
  hookFailed(exitCode: number): void;
  /** After `stop`, or a failed boot: all processes are gone. */
  stopped(): void;
}

export class Service {
  private setup: Setup;
  private readonly runtime: Runtime;
  private readonly handler: ServiceHandler;
  private readonly log: ErrorLog;
  private readonly workers: Workers;
  private readonly app: AppKind;
  /** Null: no hook of the master is a function of JavaScript. */
  private hooks: ServerHooks | null;
  private readonly memory: MemoryWatch;
  /** Null: nobody asked for metrics. */
  private readonly metrics: MasterMetrics | null;
  private stopPhase: 'running' | 'graceful' | 'quick' | 'workers' | 'done' = 'running';
  private reloads = 0;
  private stopDeadline = 0;
  private stopTimer: NodeJS.Timeout | null = null;
  private removing: Promise<void> = Promise.resolve();

  constructor(
    setup: Setup,
    owner: Owner | null,
    handler: ServiceHandler,
    metrics: MasterMetrics | null,
    log: ErrorLog,
  ) {
    this.setup = setup;
    this.handler = handler;
    this.log = log;
    this.metrics = metrics;
    this.runtime = newRuntime(setup, owner);
    this.workers = new Workers(
      workersOptions(setup.loaded),
      {
        startWorker: (facts) => this.startWorker(facts),
        spawned: (serial, number, reason) => this.metrics?.spawned(serial, number, reason),
        ready: (serial, number, reason) => {
          this.hooks?.spawned(serial); // the pid of one that was forked was not known before
          this.metrics?.ready(serial, number, reason);
        },
        exited: (serial, number, reason) => {
          this.hooks?.ended(serial, number);
          this.metrics?.exited(serial, number, reason);
        },
        allReady: () => {
          this.app.settle(true);
          handler.ready();
        },
        reloadFailed: () => {
          this.app.settle(false);
          handler.reloadFailed();
        },
        bootFailed: (code) => this.bootFailed(code),
        allGone: () => this.allGone(),
      },
      log,
    );
    const appHandler: AppHandler = {
      workers: this.workers,
      files: (paths) => handler.files(paths),
      listening: async () => {
        handler.listening();
        if (setup.python !== null) await this.hooks?.whenReady();
      },
      failed: () => this.bootFailed(EXIT.ERROR),
      hookFailed: (code) => this.hookFailed(code),
      stopped: () => this.stopWorkers(),
      report: (id, report) => this.metrics?.report(id, report),
      frontEnded: (id, restarted) => this.metrics?.frontEnded(id, restarted),
      appMetrics: (serial, metrics) => this.metrics?.appMetrics(serial, metrics),
      threads: (threads) => this.metrics?.threads(threads),
    };
    this.app =
      setup.loaded.nodeApp === null
        ? new PythonApp(setup, this.runtime, appHandler, log)
        : new NodeApp(setup, this.runtime, appHandler);
    this.hooks = this.newHooks(setup);
    this.memory = new MemoryWatch(
      memoryOptions(setup.loaded),
      {
        workers: () => this.workers.serving(),
        recycle: (serial, reason) => this.workers.recycle(serial, reason),
        kill: (serial, reason) => this.workers.kill(serial, reason),
      },
      log,
    );
  }

  /** For the log: what runs the app. */
  get description(): string {
    return this.app.description();
  }

  /** What comes before an address is listened at. */
  async prepare(): Promise<void> {
    const { loaded, python } = this.setup;
    const ofPython = pythonHooks(loaded);
    if (python === null && ofPython.length > 0)
      this.log.warning(
        `These server hooks are functions of Python, and a Node app has no process of Python: ${ofPython.join(', ')}`,
      );
    await this.hooks?.start(false);
    await this.app.prepare();
  }

  /** `setup` has the sockets. */
  async start(setup: Setup): Promise<void> {
    this.setup = setup;
    if (!this.isRunning()) return;
    await this.app.start(setup);
    // The workers of a Node app are those that listen.
    if (setup.python === null) await this.hooks?.whenReady();
    if (!this.isRunning()) return;
    this.workers.start();
    this.memory.start();
  }

  private newHooks(setup: Setup): ServerHooks | null {
    const config = hasNodeMasterHooks(setup.loaded) ? hooksConfig(setup, HOOKS_ROLE) : null;
    if (config === null) return null;
    return new ServerHooks(
      {
        config: () => hooksConfig(this.setup, HOOKS_ROLE),
        listeners: () => listenerFacts(this.setup),
        failed: (code) => this.hookFailed(code),
      },
      config,
      this.log,
    );
  }

  private startWorker(facts: WorkerFacts): WorkerProcess {
    const start = (): WorkerProcess => this.app.startWorker(facts);
    return this.hooks === null ? start() : this.hooks.startWorker(facts, start, this.workers);
  }

  private hookFailed(code: number): void {
    this.handler.hookFailed(code);
    this.stop(false);
  }

  private isRunning(): boolean {
    return this.stopPhase === 'running';
  }

  /** Before a new master is started. False: a server hook does not want it. */
  async beforeUpgrade(): Promise<boolean> {
    return (await this.app.beforeUpgrade()) && ((await this.hooks?.beforeUpgrade()) ?? true);
  }

  /** The very last thing, after `stopped`. `atEnd`: with the server hooks of the end. */
  async close(atEnd: boolean): Promise<void> {
    await this.app.close(atEnd);
    await this.hooks?.end(atEnd);
    const { folder, spoolFolder } = this.runtime;
    for (const path of [folder, spoolFolder]) rmSync(path, { recursive: true, force: true });
  }

  /** Has whoever serves the clients take new settings, then replaces the workers. Resolves when the settings are taken. */
  async reload(setup: Setup): Promise<void> {
    this.setup = setup;
    this.memory.limits = memoryOptions(setup.loaded);
    this.reloads++;
    await this.app.reload(setup);
    void this.renewWorkers(setup);
  }

  private async renewWorkers(setup: Setup): Promise<void> {
    const renewal = await this.app.renew();
    if (this.stopPhase !== 'running' || renewal === 'overtaken') return;
    if (renewal === 'failed') {
      this.handler.reloadFailed();
      return;
    }
    await this.reloadHooks(setup);
    if (this.isRunning()) this.workers.reload(workersOptions(setup.loaded));
  }

  private async reloadHooks(setup: Setup): Promise<void> {
    const config = hasNodeMasterHooks(setup.loaded) ? hooksConfig(setup, HOOKS_ROLE) : null;
    if (config === null) {
      await this.hooks?.end(false);
      this.hooks = null;
    } else if (this.hooks === null) {
      this.hooks = this.newHooks(setup);
      await this.hooks?.start(true);
    } else await this.hooks.reload(config);
  }

  views(): readonly WorkerView[] {
    return this.workers.views();
  }

  moldPids(): readonly number[] {
    return this.app.moldPids();
  }

  fronts(): readonly FrontView[] {
    return this.app.fronts();
  }

  askWorkers(): Promise<void> {
    return this.app.askWorkers();
  }

  askFronts(requests: boolean): Promise<readonly number[]> {
    return this.app.askFronts(requests);
  }

  /** How many workers there are to be. */
  get workerCount(): number {
    return this.workers.count;
  }

  get reloadCount(): number {
    return this.reloads;
  }

  actions(): ServerActions {
    return {
      addWorker: () => this.addWorker(),
      removeWorker: () => this.removeWorker(),
      replaceWorker: (serial) => this.workers.replace(serial),
      stacks: (serial) => this.workers.stacks(serial),
    };
  }

  addWorker(): void {
    // A worker that boots while the others leave would be told by nobody to leave.
    if (this.stopPhase !== 'running') return;
    this.app.workersChanged(this.workers.count + 1);
    this.hooks?.workersChanged(this.workers.count + 1);
    this.workers.add();
  }

  /** One after the other: who serves clients for the worker lets go of them before it leaves. */
  removeWorker(): void {
    this.removing = this.removing.then(async () => {
      if (this.stopPhase !== 'running' || this.workers.count <= 1) return;
      await this.app.beforeWorkers(this.workers.count - 1);
      if (this.stopPhase !== 'running') return;
      this.app.workersChanged(this.workers.count - 1);
      this.hooks?.workersChanged(this.workers.count - 1);
      this.workers.remove();
    });
  }

  reopenLogs(): void {
    this.app.reopenLogs();
    this.hooks?.reopenLogs();
    this.workers.reopenLogs();
  }

  /**
   * First the clients get their answers, then the workers leave, then what is left ends. Called again without `graceful`, it
   * does not wait any longer.
   */
  stop(graceful: boolean): void {
    if (this.stopPhase === 'running' || (this.stopPhase === 'graceful' && !graceful)) {
      if (this.stopPhase === 'graceful') this.log.info('Quick shutdown requested');
      this.stopPhase = graceful ? 'graceful' : 'quick';
      const limitMs = graceful ? this.setup.loaded.settings.graceful_timeout * 1000 : QUICK_STOP_MS;
      this.stopDeadline = performance.now() + limitMs;
      this.app.stop(true);
      this.setStopTimer(limitMs, () => {
        this.app.stop(false);
        this.setStopTimer(LEAST_EXIT_MS, () => this.stopWorkers());
      });
    } else if (this.stopPhase === 'workers' && !graceful) {
      this.workers.stop(0, true);
    }
  }

  /** For the end of the process, which waits for nothing. */
  killAll(): void {
    this.workers.killAll();
    this.app.killAll();
    this.hooks?.kill();
  }

  private bootFailed(code: 1 | 3 | 4): void {
    if (this.stopPhase !== 'running') return;
    this.handler.bootFailed(code);
    this.stop(false);
  }

  private stopWorkers(): void {
    if (this.stopPhase === 'running' || this.stopPhase === 'workers' || this.stopPhase === 'done') return;
    const quick = this.stopPhase === 'quick';
    this.stopPhase = 'workers';
    this.memory.stop();
    this.setStopTimer(0, null);
    this.workers.stop(Math.max(this.stopDeadline - performance.now(), LEAST_EXIT_MS), quick);
  }

  private setStopTimer(delayMs: number, action: (() => void) | null): void {
    if (this.stopTimer !== null) clearTimeout(this.stopTimer);
    this.stopTimer = action === null ? null : setTimeout(action, delayMs);
  }

  private allGone(): void {
    if (this.stopPhase === 'done') return;
    this.stopPhase = 'done';
    this.app.end(() => {
      this.handler.stopped();
    });
  }
}

function newRuntime({ loaded }: Setup, owner: Owner | null): Runtime {
  const { settings, cwd } = loaded;
  const folder = privateFolder(socketsFolder(settings.worker_tmp_dir ?? tmpdir()));
  const spoolFolder = settings.spool_dir === null ? folder : privateFolder(resolve(cwd, settings.spool_dir));
  if (owner !== null) {
    for (const path of [folder, spoolFolder]) chownSync(path, owner.uid, owner.gid);
    for (const path of [errorLogPath(loaded), settings.accesslog]) giveLog(path, owner);
  }
  return { folder, spoolFolder, token: randomBytes(16).toString('hex'), owner };
}

/** Throws NunicornError if Unix sockets in a private folder there would have longer paths than the system takes. */
function socketsFolder(path: string): string {
  const room = LONGEST_SOCKET_PATH_BYTES - LONGEST_SOCKET_NAME.length;
  if (Buffer.byteLength(path) <= room) return path;
  throw new NunicornError(
    `the path ${path} is too long for the Unix sockets in it: ` +
      `--worker-tmp-dir (or TMPDIR) has to name a folder of ${room} bytes at most`,
  );
}
