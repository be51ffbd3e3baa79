/** A Python app: fronts that serve the clients, and Python processes that are spawned, or forked by the mold. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, readSync, unlink } from 'node:fs';
import { join } from 'node:path';
import { readStacks, StacksAsked, UNKNOWN_STACKS } from '../bridge/stacks.ts';
import { openWorkerFile, removePipes } from '../bridge/worker-file.ts';
import type { WorkerAddress } from '../front/messages.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { FrontView } from '../metrics/view.ts';
import { plural } from '../plural.ts';
import { PYTHON_PACKAGE_DIR, type Python } from '../settings/python.ts';
import type { AppHandler, AppKind, Renewal, WorkerFacts, WorkerProcess } from './app-kind.ts';
import { onEnd } from './child-end.ts';
import { startChild } from './child-start.ts';
import { type ControlConnection, type ControlHandler, ControlServer, type FromPython } from './control-server.ts';
import { Fronts } from './fronts.ts';
import type { Mold } from './mold.ts';
import { Molds } from './molds.ts';
import { frontsSettings, listenerFacts, pythonOptions, type Runtime, type Setup } from './options.ts';
import type { PythonSettings } from './python-settings.ts';
import { WorkerPids } from './worker-pids.ts';

/** Settings of a Python process, as `nunicorn_worker` takes them. */
export interface PythonConfig extends PythonSettings {
  readonly master_pid: number;
  /** Variables of the environ that the access log shows. */
  readonly environ_names: readonly string[];
  readonly app: string;
  readonly reload: boolean;
  /** The mold imports the app. */
  readonly preload: boolean;
  /** Hooks of the master are set. */
  readonly master_hooks: boolean;
  readonly threads: number;
  readonly workers: number;
  /** Where the server was started. */
  readonly cwd: string;
  readonly chdir: string;
  readonly pythonpath: string | null;
  readonly uid: number | null;
  readonly gid: number | null;
  readonly software: string;
  readonly argv: readonly string[];
  readonly token: string;
  /** Tell of the threads and of the interpreter's lock. */
  readonly metrics: boolean;
}

export interface PythonAppOptions {
  readonly python: Python;
  readonly env: NodeJS.ProcessEnv;
  readonly config: PythonConfig;
  /** How long the mold may take to import the app. 0: no limit. */
  readonly bootTimeoutMs: number;
  /** `nunicorn: worker 1 [app]` of a role and a number. */
  title(role: string): string;
}

/** The memory that holds a process's arguments is what its title can fill. */
const TITLE_ROOM = ' '.repeat(120);
/** How long workers may take to tell of the app's metrics; one whose interpreter stands still cannot. */
const METRICS_LIMIT_MS = 50;
/** How long a mold may take to tell of the end of a worker. */
const TELL_LIMIT_MS = 1000;
/** How long a worker may take to say where its threads are, before it is asked from outside, which may be its end. */
const STACKS_LIMIT_MS = 2000;

interface PythonProcess {
  /** Its app has metrics of its own. */
  hasMetrics: boolean;
  readonly facts: WorkerFacts;
  readonly options: PythonAppOptions;
  /** Its parent. Null: the master is. */
  readonly mold: Mold | null;
  pid: number | null;
  /** Of a mold's child: the serial of the mold's process. */
  moldSerial: number | null;
  control: ControlConnection | null;
  /** It has been ready: it answers what it is asked. */
  booted: boolean;
  /** The fronts have it. */
  serving: boolean;
  readonly stacksAsked: StacksAsked;
}

export class PythonApp implements AppKind, ControlHandler {
  private readonly runtime: Runtime;
  private readonly handler: AppHandler;
  private readonly log: ErrorLog;
  private readonly control: ControlServer;
  private readonly frontProcesses: Fronts;
  private readonly molds: Molds;
  /** Of workers that a mold has forked, and of those that the master has. */
  private readonly toldPids: WorkerPids;
  private readonly ownPids = new WorkerPids(null, () => []);
  private setup: Setup;
  private readonly processes = new Map<number, PythonProcess>();
  /** Workers that were asked for the app's metrics, by serial. */
  private readonly metricsAwaited = new Set<number>();
  private metricsTold: () => void = () => {};
  private released = false;
  private readonly waitingForRelease: (() => void)[] = [];

  constructor(setup: Setup, runtime: Runtime, handler: AppHandler, log: ErrorLog) {
    this.runtime = runtime;
    this.setup = setup;
    this.handler = handler;
    this.log = log;
    this.control = new ControlServer(join(runtime.folder, 'control.sock'), runtime.token, this);
    // One with hooks of the master keeps the rights of the start.
    const withRights = (): readonly number[] =>
      this.molds.present.options.config.master_hooks ? this.molds.pids() : [];
    this.toldPids = new WorkerPids(runtime.owner, withRights);
    const { workers } = handler;
    const { settings } = setup.loaded;
    this.frontProcesses = new Fronts(
      {
        ...frontsSettings(setup, runtime),
        uid: settings.user ?? null,
        gid: settings.group ?? null,
        addresses: () => this.addresses(),
      },
      {
        listening: () => void this.release(),
        failed: () => handler.failed(),
        stopped: () => handler.stopped(),
        report: (id, report) => handler.report(id, report),
        frontEnded: (id, restarted) => handler.frontEnded(id, restarted),
        drained: (serial) => workers.drained(serial),
        timedOut: (serial, servesOn) => workers.timedOut(serial, servesOn),
        stuck: (serial, servesOn) => workers.stuck(serial, servesOn),
        recovered: (serial) => workers.recovered(serial),
        served: (serial, requests) => workers.served(serial, requests),
        requestLimitReached: (serial) => workers.requestLimitReached(serial),
      },
      log,
    );
    this.molds = new Molds(
      pythonOptions(setup, runtime),
      runtime.folder,
      {
        spawn: (serial, options) => this.spawnPython(serial, options),
        ready: (mold) => this.forkWaiting(mold),
        forked: (serial, pid) => this.forked(serial, pid),
        notForked: (serial) => {
          const process = this.processes.get(serial);
          if (process !== undefined) this.ended(process, null, null);
        },
        exited: (pid, code, signal) => {
          for (const process of this.processes.values()) if (process.pid === pid) this.ended(process, code, signal);
        },
        isUsed: (mold) => [...this.processes.values()].some((process) => process.mold === mold),
        outdated: () => workers.outdated(),
        unbootable: (code) => workers.unbootable(code),
        hookFailed: (code) => handler.hookFailed(code),
        listeners: () => listenerFacts(this.setup),
      },
      log,
    );
  }

  description(): string {
    const { python } = this.molds.present.options;
    return `${plural(this.frontProcesses.count, 'front')}, Python ${python.version} (${python.path})`;
  }

  async prepare(): Promise<void> {
    await this.control.listen(this.runtime.owner);
    await this.molds.prepare();
  }

  /** Starts fronts and interpreters together; the app is imported only when every address is listened at. */
  async start(setup: Setup): Promise<void> {
    this.setup = setup;
    this.frontProcesses.start(frontsSettings(setup, this.runtime));
    this.molds.start();
  }

  startWorker(facts: WorkerFacts): WorkerProcess {
    const { options, mold } = this.molds.present;
    const process: PythonProcess = {
      hasMetrics: false,
      facts,
      options,
      mold,
      pid: null,
      moldSerial: null,
      control: null,
      booted: false,
      serving: false,
      stacksAsked: new StacksAsked(),
    };
    this.processes.set(facts.serial, process);
    if (mold === null) this.spawnWorker(process);
    else if (this.released) mold.fork(facts);
    return {
      get pid() {
        return process.pid;
      },
      accepts: false, // the fronts do, and pass nothing on to a worker that is not ready
      drain: () => this.drain(process),
      leave: (quick) => {
        process.serving = false;
        process.control?.say({ op: 'leave', quick });
      },
      reopenLogs: () => process.control?.say({ op: 'reopen' }),
      ping: () => process.control?.say({ op: 'ping' }),
      stacks: (answers, done) => {
        const fromOutside = (): void => {
          if (process.pid === null || !this.pidsFor(process).allows(process.pid)) done(UNKNOWN_STACKS);
          else readStacks(process.pid, this.path(facts.serial, 'stacks'), done);
        };
        if (!answers || !process.booted) {
          fromOutside();
          return;
        }
        process.stacksAsked.ask(STACKS_LIMIT_MS, done, fromOutside);
        process.control?.say({ op: 'stacks' });
      },
      // Not by SIGABRT, which is faulthandler's: it ends the process without the exit handlers of the app.
      abort: () => process.control?.say({ op: 'abort' }),
      kill: () => this.kill(process),
    };
  }

  moldPids(): readonly number[] {
    return this.molds.pids();
  }

  fronts(): FrontView[] {
    return this.frontProcesses.views();
  }

  askFronts(requests: boolean): Promise<readonly number[]> {
    return this.frontProcesses.askReports(requests);
  }

  /** Has workers tell of the app's own metrics, those that have any. Resolves when they have, or not in time. */
  askWorkers(): Promise<void> {
    this.metricsTold();
    for (const [serial, { hasMetrics, control }] of this.processes) {
      if (!hasMetrics) continue;
      this.metricsAwaited.add(serial);
      control?.say({ op: 'metrics' });
    }
    if (this.metricsAwaited.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.metricsTold(), METRICS_LIMIT_MS);
      this.metricsTold = () => {
        clearTimeout(timer);
        this.metricsAwaited.clear();
        this.metricsTold = () => {};
        resolve();
      };
    });
  }

  async reload(setup: Setup): Promise<void> {
    this.setup = setup;
    await new Promise<void>((done) => this.frontProcesses.reload(frontsSettings(setup, this.runtime), done));
  }

  renew(): Promise<Renewal> {
    return this.molds.renew(pythonOptions(this.setup, this.runtime));
  }

  settle(good: boolean): void {
    this.molds.settle(good);
  }

  async beforeWorkers(count: number): Promise<void> {
    await new Promise<void>((done) => this.frontProcesses.limit(count, done));
  }

  reopenLogs(): void {
    this.frontProcesses.reopenLogs();
    this.molds.reopenLogs();
  }

  whenSocketsHeld(then: () => void): void {
    this.frontProcesses.whenSocketsHeld(then);
  }

  stop(graceful: boolean): void {
    this.frontProcesses.stop(graceful);
  }

  workersChanged(count: number): void {
    void this.molds.call({ hook: 'nworkers_changed', workers: count });
  }

  end(done: () => void): void {
    this.frontProcesses.end(done);
  }

  async beforeUpgrade(): Promise<boolean> {
    return await this.molds.beforeUpgrade();
  }

  async close(atEnd: boolean): Promise<void> {
    await this.molds.close(atEnd);
    this.control.close();
  }

  killAll(): void {
    this.molds.killAll();
  }

  // ---- what Python processes say

  called(serial: number, pid: number, connection: ControlConnection): void {
    const answer = (): void => this.introduce(serial, pid, connection);
    const mold = this.molds.bySerial(serial);
    // The hooks of the start do not wait for an address; what imports the app does.
    if (this.released || (mold !== null && this.molds.present.options.config.master_hooks)) answer();
    else this.waitingForRelease.push(answer);
  }

  said(serial: number, message: FromPython): void {
    if (message.op === 'files') {
      this.handler.files(message.files);
      return;
    }
    const mold = this.molds.bySerial(serial);
    if (mold !== null) {
      mold.said(message);
      return;
    }
    const process = this.processes.get(serial);
    if (process === undefined) return;
    if (message.op === 'ready') {
      process.booted = true;
      process.serving = true;
      this.frontProcesses.addWorker(this.address(process));
      this.handler.workers.ready(serial);
    } else if (message.op === 'imported') this.handler.workers.reached(serial, 'imported');
    else if (message.op === 'metrics') {
      process.hasMetrics = true;
      this.handler.appMetrics(serial, message.metrics);
      this.metricsAwaited.delete(serial);
      if (this.metricsAwaited.size === 0) this.metricsTold();
    } else if (message.op === 'threads') {
      const gilAddress = message.gil === null ? null : BigInt(message.gil);
      const { number } = process.facts;
      this.handler.threads({ serial, number, pid: process.pid ?? 0, threadIds: message.ids, gilAddress });
    } else if (message.op === 'stacks') process.stacksAsked.answered(message.text);
    else if (message.op === 'pong') this.handler.workers.pong(serial);
    else if (message.op === 'leaving') this.handler.workers.askedToLeave(serial, message.why);
  }

  hungUp(serial: number): void {
    const process = this.processes.get(serial);
    if (process === undefined || process.pid === null) return;
    if (process.mold === null) setTimeout(() => this.cutOff(process), TELL_LIMIT_MS);
    // A worker whose mold is dead has nobody else to tell of its end.
    else if (process.moldSerial !== process.mold.serial) this.ended(process, null, null);
    else this.awaitEnd(process);
  }

  /** A worker that lives has hung up, as one does whose app closes all descriptors: nobody can speak to it any more. */
  private cutOff(process: PythonProcess): void {
    const { number, serial } = process.facts;
    if (!process.serving || !this.processes.has(serial)) return;
    this.log.error(`Worker ${number} (pid:${process.pid}) has closed its connection to the master: it is killed`);
    this.handler.workers.kill(serial, 'unresponsive');
  }

  /** Of a mold's child that is gone: the mold tells how it has ended, unless it has died as well, or is stopped. */
  private awaitEnd(process: PythonProcess): void {
    setTimeout(() => this.ended(process, null, null), TELL_LIMIT_MS);
  }

  private async release(): Promise<void> {
    await this.handler.listening();
    await this.molds.release();
    this.released = true;
    for (const answer of this.waitingForRelease.splice(0)) answer();
    const { mold } = this.molds.present;
    if (mold !== null) this.forkWaiting(mold);
  }

  private forkWaiting(mold: Mold): void {
    for (const { pid, facts, mold: parent } of this.processes.values()) {
      if (pid === null && parent === mold) mold.fork(facts);
    }
  }

  private forked(serial: number, pid: number): void {
    const process = this.processes.get(serial);
    if (process === undefined) {
      this.toldPids.kill(pid); // nobody wants it any more
      return;
    }
    process.pid = pid;
    process.moldSerial = process.mold?.serial ?? null;
  }

  private introduce(serial: number, pid: number, connection: ControlConnection): void {
    const mold = this.molds.bySerial(serial);
    if (mold !== null) {
      this.molds.called(mold, connection);
      return;
    }
    const process = this.processes.get(serial);
    if (process === undefined) {
      connection.end(); // nobody wants it any more
      return;
    }
    const { config, title } = process.options;
    // The master knows its own child, which may be a wrapper around this process.
    if (process.mold !== null || this.toldPids.areTrusted) process.pid = pid;
    process.control = connection;
    this.handler.workers.reached(serial, 'connected');
    connection.say({
      ...config,
      role: 'worker',
      title: title(`worker ${process.facts.number}`),
      forked: process.mold !== null,
      number: process.facts.number,
      age: serial,
      socket_path: this.path(serial, 'sock'),
      begun_path: this.path(serial, 'begun'),
      stacks_path: this.path(serial, 'stacks'),
    });
  }

  // ---- processes

  private spawnWorker(process: PythonProcess): void {
    const child = this.spawnPython(process.facts.serial, process.options);
    process.pid = child.pid ?? null;
    const notStarted = (why: string): void => {
      this.log.error(`Python could not be started: ${why}`);
      this.ended(process, null, null);
    };
    onEnd(child, notStarted, (code, signal) => this.ended(process, code, signal));
  }

  private spawnPython(serial: number, { python, env, config }: PythonAppOptions): ChildProcess {
    const start = (): ChildProcess =>
      spawn(python.path, [join(PYTHON_PACKAGE_DIR, 'start_worker.py'), TITLE_ROOM], {
        // A group of its own, so that it can be killed with all that the app starts, and Ctrl-C reaches the master alone.
        detached: true,
        stdio: ['ignore', 'inherit', 'inherit'],
        env: {
          ...env,
          NUNICORN_CONTROL: this.control.path,
          NUNICORN_TOKEN: config.token,
          NUNICORN_SERIAL: String(serial),
        },
      });
    return startChild(start);
  }

  private drain(process: PythonProcess): void {
    process.serving = false;
    this.frontProcesses.drainWorker(this.address(process));
  }

  private kill(process: PythonProcess): void {
    // Of one that has ended the pid may be another's by now.
    if (this.processes.get(process.facts.serial) !== process) return;
    if (process.pid !== null) this.pidsFor(process).kill(process.pid);
    if (process.pid === null)
      this.ended(process, null, null); // not even forked
    else if (process.mold !== null) this.awaitEnd(process);
  }

  private pidsFor({ mold }: PythonProcess): WorkerPids {
    return mold === null ? this.ownPids : this.toldPids;
  }

  private ended(process: PythonProcess, code: number | null, signal: NodeJS.Signals | null): void {
    const { serial } = process.facts;
    if (!this.processes.delete(serial)) return;
    if (process.pid !== null) this.pidsFor(process).killGroup(process.pid); // what the app has left there
    this.frontProcesses.workerExit(this.address(process));
    const hasBegun = anyBegun(this.path(serial, 'begun'), process.options.config.threads);
    for (const name of ['sock', 'begun', 'stacks']) unlink(this.path(serial, name), () => {});
    removePipes(this.runtime.folder, `${workerName(serial)}-`);
    this.handler.workers.ended(serial, code, signal, hasBegun);
    if (process.mold !== null) this.molds.endUnused();
  }

  // ----

  private addresses(): WorkerAddress[] {
    return [...this.processes.values()].filter((one) => one.serving).map((one) => this.address(one));
  }

  private address({ facts, pid, options }: PythonProcess): WorkerAddress {
    const { serial, number, served, requestLimit } = facts;
    return {
      serial,
      number,
      pid: pid ?? 0,
      threads: options.config.threads,
      served,
      requestLimit,
      socketPath: this.path(serial, 'sock'),
      begunPath: this.path(serial, 'begun'),
      stacksPath: this.path(serial, 'stacks'),
    };
  }

  private path(serial: number, name: string): string {
    return join(this.runtime.folder, `${workerName(serial)}.${name}`);
  }
}

/** Of its files. */
function workerName(serial: number): string {
  return `worker-${serial}`;
}

/** Whether a worker had begun a request, by the file in which it notes that: a word of 8 bytes for each thread. */
function anyBegun(path: string, threads: number): boolean {
  const fd = openWorkerFile(path);
  if (fd === null) return false; // it did not come so far as to make the file
  const words = Buffer.alloc(8 * threads);
  readSync(fd, words, 0, words.length, 0);
  closeSync(fd);
  return words.some((byte) => byte !== 0);
}
