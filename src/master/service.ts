/**
 * What serves: the workers and the processes around them, with their private folder. The master starts it, has it take new
 * settings, and stops it.
 */
import { randomBytes } from 'node:crypto';
import { chownSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { ServerActions } from '../control/target.ts';
import { EXIT } from '../errors.ts';
import type { SwitchableLog } from '../log/switchable-log.ts';
import type { Monitoring } from '../metrics/monitoring.ts';
import type { ServerView } from '../metrics/view.ts';
import { wantsMetrics } from '../settings/admin.ts';
import { VERSION } from '../settings/version.ts';
import type { AppHandler, AppKind } from './app-kind.ts';
import { MemoryWatch } from './memory-watch.ts';
import { errorLogPath, memoryOptions, type Runtime, type Setup, workersOptions } from './options.ts';
import { giveLog, type Owner } from './owner.ts';
import { PythonApp } from './python-app.ts';
import { Workers } from './workers.ts';

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
  /** After `stop`, or a failed boot: all processes are gone. */
  stopped(): void;
}

export class Service {
  private setup: Setup;
  private readonly runtime: Runtime;
  private readonly handler: ServiceHandler;
  private readonly log: SwitchableLog;
  private readonly workers: Workers;
  private readonly app: AppKind;
  private readonly memory: MemoryWatch;
  /** Null: nobody asked for metrics. */
  private monitoring: Monitoring | null = null;
  private stopPhase: 'running' | 'graceful' | 'quick' | 'workers' | 'done' = 'running';
  private reloads = 0;
  private stopDeadline = 0;
  private stopTimer: NodeJS.Timeout | null = null;
  private removing: Promise<void> = Promise.resolve();

  constructor(setup: Setup, owner: Owner | null, handler: ServiceHandler, log: SwitchableLog) {
    this.setup = setup;
    this.handler = handler;
    this.log = log;
    this.runtime = newRuntime(setup, owner);
    this.workers = new Workers(
      workersOptions(setup.loaded),
      {
        startWorker: (facts) => this.app.startWorker(facts),
        spawned: (serial, number, reason) => this.monitoring?.metrics.spawned(serial, number, reason),
        ready: (serial, number, reason) => this.monitoring?.metrics.ready(serial, number, reason),
        exited: (serial, number, reason) => this.monitoring?.metrics.exited(serial, number, reason),
        allReady: () => handler.ready(),
        reloadFailed: () => handler.reloadFailed(),
        bootFailed: (code) => this.bootFailed(code),
        allGone: () => this.allGone(),
      },
      log,
    );
    const appHandler: AppHandler = {
      workers: this.workers,
      files: (paths) => handler.files(paths),
      listening: () => handler.listening(),
      failed: () => this.bootFailed(EXIT.ERROR),
      stopped: () => this.stopWorkers(),
      report: (id, report) => this.monitoring?.metrics.report(id, report),
      frontEnded: (id, restarted) => this.monitoring?.metrics.frontEnded(id, restarted),
      threads: (threads) => this.monitoring?.metrics.threads(threads),
    };
    this.app = new PythonApp(setup, this.runtime, appHandler, log);
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

  async start(): Promise<void> {
    const { settings } = this.setup.loaded;
    if (wantsMetrics(settings)) {
      const { startMonitoring } = await import('../metrics/monitoring.ts');
      try {
        this.monitoring = await startMonitoring(this.view(), this.actions(), settings, this.log);
      } catch (error) {
        this.removeFolders();
        throw error;
      }
    }
    await this.app.start();
    this.workers.start();
    this.memory.start();
  }

  /** Has whoever serves the clients take new settings, then replaces the workers. Resolves when that has begun. */
  async reload(setup: Setup): Promise<void> {
    this.setup = setup;
    this.memory.limits = memoryOptions(setup.loaded);
    this.reloads++;
    await this.app.reload(setup);
    if (this.stopPhase === 'running') this.workers.reload(workersOptions(setup.loaded));
  }

  private view(): ServerView {
    return {
      version: VERSION,
      setup: () => this.setup,
      workers: () => this.workers.views(),
      workerCount: () => this.workers.count,
      reloads: () => this.reloads,
      fronts: () => this.app.fronts(),
      askFronts: (requests) => this.app.askFronts(requests),
    };
  }

  private actions(): ServerActions {
    return {
      addWorker: () => this.addWorker(),
      removeWorker: () => this.removeWorker(),
      replaceWorker: (serial) => this.workers.replace(serial),
      stacks: (serial) => this.workers.stacks(serial),
    };
  }

  addWorker(): void {
    this.workers.add();
  }

  /** One after the other: who serves clients for the worker lets go of them before it leaves. */
  removeWorker(): void {
    this.removing = this.removing.then(async () => {
      if (this.stopPhase !== 'running' || this.workers.count <= 1) return;
      await this.app.beforeWorkers(this.workers.count - 1);
      if (this.stopPhase === 'running') this.workers.remove();
    });
  }

  reopenLogs(): void {
    this.app.reopenLogs();
    this.workers.reopenLogs();
  }

  /**
   * First the clients get their answers, then the workers leave, then what is left ends. Called again without `graceful`, it
   * does not wait any longer.
   */
  stop(graceful: boolean): void {
    this.monitoring?.metrics.stopping();
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
      this.removeFolders();
      // What statsd has not got yet is sent before the process ends.
      void Promise.resolve(this.monitoring?.close()).then(() => this.handler.stopped());
    });
  }

  private removeFolders(): void {
    const { folder, spoolFolder } = this.runtime;
    for (const path of [folder, spoolFolder]) rmSync(path, { recursive: true, force: true });
  }
}

function newRuntime({ loaded }: Setup, owner: Owner | null): Runtime {
  const { settings, cwd } = loaded;
  const folder = mkdtempSync(join(settings.worker_tmp_dir ?? tmpdir(), 'nunicorn-'));
  const spoolFolder =
    settings.spool_dir === null ? folder : mkdtempSync(join(resolve(cwd, settings.spool_dir), 'nunicorn-'));
  if (owner !== null) {
    for (const path of [folder, spoolFolder]) chownSync(path, owner.uid, owner.gid);
    for (const path of [errorLogPath(loaded), settings.accesslog]) giveLog(path, owner);
  }
  return { folder, spoolFolder, token: randomBytes(16).toString('hex'), owner };
}
