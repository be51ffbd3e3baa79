/**
 * What serves: the workers and the processes around them, with their private folder. The master starts it, has it take new
 * settings, and stops it.
 */
import { randomBytes } from 'node:crypto';
import { lchownSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { resolve } from 'node:path';
import { removePipes } from '../bridge/worker-file.ts';
import { after, now } from '../clock.ts';
import { EXIT } from '../errors.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { MasterMetrics } from '../metrics/master-metrics.ts';
import type { FrontView, WorkerView } from '../metrics/view.ts';
import { beginStop, hurry, type Stopping, stopStep } from '../policy/stopping.ts';
import { hasNodeMasterHooks, pythonHooks } from '../settings/hooks.ts';
import type { AppHandler, AppKind, WorkerFacts, WorkerProcess } from './app-kind.ts';
import type { FileTimes } from './code-watch.ts';
import { MemoryWatch } from './memory-watch.ts';
import { NodeApp } from './node-app.ts';
import { hooksConfig, listenerFacts, memoryOptions, type Runtime, type Setup, workersOptions } from './options.ts';
import type { Owner } from './owner.ts';
import { privateFolder, removePrivateFolder, socketsFolder } from './private-folder.ts';
import { PythonApp } from './python-app.ts';
import { ServerHooks } from './server-hooks.ts';
import { Workers } from './workers.ts';

/** In the titles of processes: that of the hooks which are functions of JavaScript. */
const HOOKS_ROLE = 'hooks';

export interface ServiceHandler {
  /** With --reload: files that the app consists of. */
  files(files: FileTimes): void;
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
  /** Null: it is not to stop. See stopping.ts. */
  private stopping: Stopping | null = null;
  private workersAre: 'serving' | 'leaving' | 'gone' = 'serving';
  /** Takes back the next look at how it stops. */
  private cancelLook: () => void = () => {};
  private reloads = 0;
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
      files: (files) => handler.files(files),
      listening: async () => {
        handler.listening();
        if (setup.python !== null) await this.hooks?.whenReady();
      },
      failed: () => this.bootFailed(EXIT.ERROR),
      hookFailed: (code) => this.hookFailed(code),
      stopped: () => this.noClientLeft(),
      report: (id, report) => this.metrics?.report(id, report),
      frontEnded: (id, restarted) => this.metrics?.frontEnded(id, restarted),
      appMetrics: (serial, metrics) => this.metrics?.appMetrics(serial, metrics),
      threads: (threads) => this.metrics?.threads(threads),
    };
    this.app =
      setup.loaded.nodeApp === null
        ? new PythonApp(setup, this.runtime, appHandler, log)
        : new NodeApp(setup, this.runtime, appHandler, log);
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
    return this.stopping === null;
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
    for (const path of [folder, spoolFolder]) removePrivateFolder(path);
    removePipes(folder);
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
    if (!this.isRunning() || renewal === 'overtaken') return;
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

  replaceWorker(serial: number): void {
    this.workers.replace(serial);
  }

  stacks(serial: number): Promise<string> {
    return this.workers.stacks(serial);
  }

  addWorker(): void {
    // A worker that boots while the others leave would be told by nobody to leave.
    if (!this.isRunning()) return;
    this.app.workersChanged(this.workers.count + 1);
    this.hooks?.workersChanged(this.workers.count + 1);
    this.workers.add();
  }

  /** One after the other: who serves clients for the worker lets go of them before it leaves. */
  removeWorker(): void {
    this.removing = this.removing.then(async () => {
      if (!this.isRunning() || this.workers.count <= 1) return;
      await this.app.beforeWorkers(this.workers.count - 1);
      if (!this.isRunning()) return;
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

  /** See AppKind. */
  whenSocketsHeld(then: () => void): void {
    this.app.whenSocketsHeld(then);
  }

  /**
   * First the clients get their answers, then the workers leave, then what is left ends. Called again without `graceful`, it
   * does not wait any longer.
   */
  stop(graceful: boolean): void {
    if (this.stopping === null) {
      this.stopping = beginStop(graceful, this.setup.loaded.settings.graceful_timeout * 1000, now());
      this.workers.expectStop();
      this.app.stop(true);
    } else if (!graceful && this.workersAre === 'leaving') {
      this.workers.stop(0, true);
    } else if (!graceful && !this.stopping.quick) {
      this.log.info('Quick shutdown requested');
      this.stopping = hurry(this.stopping, now());
    }
    this.advanceStop();
  }

  private noClientLeft(): void {
    if (this.stopping === null) return;
    this.stopping = { ...this.stopping, alone: true };
    this.advanceStop();
  }

  private advanceStop(): void {
    if (this.stopping === null || this.workersAre !== 'serving') return;
    this.cancelLook();
    const step = stopStep(this.stopping, now());
    switch (step.kind) {
      case 'wait':
        this.cancelLook = after(step.ms, () => this.advanceStop());
        break;
      case 'cut':
        this.stopping = { ...this.stopping, cutAt: now() };
        this.app.stop(false);
        this.advanceStop();
        break;
      case 'leave':
        this.workersAre = 'leaving';
        this.memory.stop();
        this.workers.stop(step.ms, this.stopping.quick);
    }
  }

  /** For the end of the process, which waits for nothing. */
  killAll(): void {
    this.workers.killAll();
    this.app.killAll();
    this.hooks?.kill();
  }

  private bootFailed(code: 1 | 3 | 4): void {
    if (!this.isRunning()) return;
    this.handler.bootFailed(code);
    this.stop(false);
  }

  private allGone(): void {
    if (this.workersAre === 'gone') return;
    this.workersAre = 'gone';
    this.app.end(() => {
      this.handler.stopped();
    });
  }
}

function newRuntime({ loaded }: Setup, owner: Owner | null): Runtime {
  const { settings, cwd } = loaded;
  const folder = privateFolder(socketsFolder(settings.worker_tmp_dir ?? tmpdir()));
  let spoolFolder: string;
  try {
    spoolFolder = privateFolder(resolve(cwd, settings.spool_dir));
  } catch (error) {
    rmdirSync(folder);
    throw error;
  }
  if (owner !== null) for (const path of [folder, spoolFolder]) lchownSync(path, owner.uid, owner.gid);
  return { folder, spoolFolder, token: randomBytes(16).toString('hex'), owner };
}
