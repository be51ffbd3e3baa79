/**
 * All that is known of the server, in the master: fed by what happens to workers and by the reports of fronts, asked by the
 * admin server and statsd. Only there when somebody asked for metrics.
 */
import type { ErrorLog } from '../log/error-log.ts';
import type { Reason } from '../policy/reasons.ts';
import { formatAddress } from '../settings/address.ts';
import type { Settings } from '../settings/table.ts';
import { type AppMetric, AppMetrics, MAX_GONE_SERIES } from './app-metrics.ts';
import { readBacklog } from './backlog.ts';
import { CODE_CLASSES, FRONT_AT, HISTOGRAM_CELLS, OUTCOMES, observe, WORKER_AT } from './counters.ts';
import type { ForeignMetric, Format } from './exposition.ts';
import { Memory } from './memory.ts';
import { PrometheusReader } from './prometheus-reader.ts';
import { Recent } from './recent.ts';
import type { FrontReport, ProcessReport } from './report.ts';
import { ofCodeClass, ofOutcome, type Present, type Samples, samplesOf } from './samples.ts';
import {
  type MemoryStatus,
  type RequestStatus,
  type Requests,
  type SettingsSummary,
  SLOT_STATES,
  type SlotState,
  type Status,
  type WorkerEvent,
} from './status.ts';
import { ThreadSampler, type WorkerThreads } from './thread-times.ts';
import { difference, Totals, type TotalsSnapshot } from './totals.ts';
import type { ServerView } from './view.ts';

const TURN_MS = 100;
const TICK_MS = 1000;
const EVENTS_KEPT = 50;

export interface Readiness {
  readonly ok: boolean;
  readonly reasons: readonly string[];
}

/** What one master hands to the other. */
export interface Counted {
  readonly totals: TotalsSnapshot;
  readonly app: readonly AppMetric[];
  /** Process ids of its workers, some of them gone: it does not bury the files of their prometheus_client any more. */
  readonly workers: readonly number[];
}

export class MasterMetrics {
  private readonly view: ServerView;
  private readonly log: ErrorLog;
  private readonly totals: Totals;
  private readonly app: AppMetrics;
  /** Of prometheus_client's files. */
  private reader: PrometheusReader | null = null;
  private readonly pids = new Map<number, number>();
  /** When workers were started, by serial: Unix time, the same in every scrape. */
  private readonly starts = new Map<number, number>();
  private readonly recent = new Recent();
  private readonly memory = new Memory();
  private readonly sampler: ThreadSampler;
  private readonly startedAt = Date.now() / 1000;
  private readonly reports = new Map<number, FrontReport>();
  private readonly events: WorkerEvent[] = [];
  private everReady = false;
  private isStopping = false;
  /** What the other master has of this: because it was told, or has told it. */
  private known: Totals;
  private timer: NodeJS.Timeout | null = null;
  private turnedAt = performance.now();
  private tickedAt = performance.now();
  private slotsCountedAt = performance.now();

  constructor(view: ServerView, log: ErrorLog) {
    this.view = view;
    this.log = log;
    this.totals = new Totals(this.startedAt, HISTOGRAM_CELLS);
    this.known = new Totals(this.startedAt, HISTOGRAM_CELLS);
    this.app = new AppMetrics((name) =>
      log.warning(
        `Metric ${name} of the app: workers that are gone have counted ${MAX_GONE_SERIES} sets of label values. ` +
          'Others of theirs are not kept: its labels take too many values',
      ),
    );
    let told = false;
    this.sampler = new ThreadSampler(this.totals, () => {
      if (told) return;
      told = true;
      log.info('The wait for the interpreter lock is not measured: this process may not look at its workers');
    });
    this.recent.keep(this.totals, this.tickedAt);
    this.timer = setInterval(() => this.turn(), TURN_MS);
    this.timer.unref();
  }

  // ---- what happens

  spawned(serial: number, worker: number, reason: Reason): void {
    this.totals.count('spawns', reason);
    this.starts.set(serial, Date.now() / 1000);
    this.event('spawn', worker, serial, reason);
  }

  ready(serial: number, worker: number, reason: Reason): void {
    this.everReady = true;
    this.event('ready', worker, serial, reason);
  }

  exited(serial: number, worker: number, reason: Reason): void {
    this.totals.count('exits', reason);
    this.sampler.remove(serial);
    this.app.ended(serial);
    const pid = this.pids.get(serial);
    if (pid !== undefined) this.openReader()?.ended(pid);
    this.pids.delete(serial);
    this.starts.delete(serial);
    this.event('exit', worker, serial, reason);
  }

  /** A worker has told of its threads. */
  threads(threads: WorkerThreads): void {
    this.sampler.add(threads);
    this.pids.set(threads.serial, threads.pid);
    this.openReader()?.begun(threads.pid);
  }

  appMetrics(serial: number, metrics: readonly AppMetric[]): void {
    this.app.heard(serial, metrics);
  }

  report(id: number, report: FrontReport): void {
    this.totals.merge(id, report);
    // One that was not asked for requests may come between the answer to that and its reader.
    const requests = report.requests ?? this.reports.get(id)?.requests;
    this.reports.set(id, requests === undefined ? report : { ...report, requests });
  }

  frontEnded(id: number, restarted: boolean): void {
    this.totals.frontEnded(id);
    this.reports.delete(id);
    if (restarted) this.totals.frontRestarts++;
  }

  /** From now on the server is not ready. */
  stopping(): void {
    this.isStopping = true;
  }

  close(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.sampler.stop();
    this.reader?.close();
  }

  /** From now on the other master is another one, that has nothing of this. */
  newOther(): void {
    this.known = new Totals(this.startedAt, HISTOGRAM_CELLS);
    this.app.newOther();
  }

  /** For the other master: what it does not have yet. */
  async handOver(): Promise<Counted> {
    await this.refresh(false);
    const now = { ...this.totals.snapshot(), masterCpuMs: this.masterCpuMs() };
    const totals = difference(now, this.known.snapshot());
    this.known.restore(totals);
    const workers = [...this.pids.values(), ...(this.openReader()?.takeDead() ?? [])];
    return { totals, app: this.app.handOver(), workers };
  }

  /** What the other master has counted. */
  takeOver({ totals, app, workers }: Counted): void {
    this.app.takeOver(app);
    this.openReader()?.watch(workers);
    if (this.totals.restore(totals)) this.known.restore(totals);
    else this.log.warning('The other master is of a version that counts other metrics: its counts are not added');
  }

  // ---- what is asked

  /** `ok` is about this process: who gets the answer knows that it is alive. */
  startup(): Readiness {
    const reasons: string[] = [];
    if (!this.listens) reasons.push('no front listens yet');
    if (!this.everReady) reasons.push('no worker has been ready yet');
    return { ok: reasons.length === 0, reasons };
  }

  readiness(): Readiness {
    const reasons: string[] = [];
    if (this.isStopping) reasons.push('the server is shutting down');
    if (!this.listens) reasons.push('no front listens');
    if (!this.view.workers().some(({ state }) => state === 'ready')) reasons.push('no worker is ready');
    return { ok: reasons.length === 0, reasons };
  }

  async samples(): Promise<Samples> {
    await this.refresh(false);
    const backlog = this.settings.enable_backlog_metric
      ? await readBacklog(this.view.setup().sockets.map(({ facts }) => facts))
      : null;
    return samplesOf(this.totals, this.present(backlog));
  }

  /** The app's own, as of the last `samples`. */
  appSamples(): readonly ForeignMetric[] {
    return this.app.metrics();
  }

  /** What an app counts with prometheus_client, as text without an end mark. */
  async prometheusText(format: Format): Promise<string> {
    return (await this.openReader()?.read(format)) ?? '';
  }

  async requests(): Promise<Requests> {
    const silent = await this.refresh(true);
    const requests: RequestStatus[] = [];
    const silentFronts: number[] = [];
    for (const { id, number } of this.view.fronts()) {
      if (silent.includes(id)) silentFronts.push(number);
      else requests.push(...(this.reports.get(id)?.requests ?? []));
    }
    return { requests: requests.toSorted((one, other) => other.age - one.age), silentFronts };
  }

  async status(): Promise<Status> {
    await this.refresh(false);
    const { view, totals } = this;
    const setup = view.setup();
    const present = this.present(null);
    return {
      server: {
        version: view.version,
        app: setup.loaded.app,
        pid: process.pid,
        state: this.isStopping ? 'stopping' : this.startup().ok ? 'running' : 'starting',
        startedAt: this.startedAt,
        uptime: process.uptime(), // the wall clock may be set
        listeners: setup.sockets.map(({ address }) => formatAddress(address)),
        python: setup.python?.version ?? null,
        memory: present.masterMemory,
        moldMemory: present.moldMemory,
      },
      settings: summaryOf(setup.loaded.settings),
      workers: present.workers.map(({ ageMs, bootMs, served, startedAt: _, ...worker }) => ({
        ...worker,
        age: ageMs / 1000,
        bootTime: bootMs === null ? null : bootMs / 1000,
        requests: served,
        slots: this.processOf(worker.serial)?.slots ?? [],
      })),
      fronts: view.fronts().map(({ id, number, pid, silentMs }) => {
        const report = this.reports.get(id);
        return {
          number,
          pid,
          connections: report?.connections ?? 0,
          queueDepth: report?.queueDepth ?? 0,
          heardAgo: silentMs / 1000,
          memory: this.memory.of(pid),
        };
      }),
      queue: { depth: present.queueDepth, limit: present.queueLimit },
      recent: this.recent.status(totals, performance.now()),
      totals: {
        requests: CODE_CLASSES.reduce((sum, name) => sum + ofCodeClass(totals, name), 0),
        byOutcome: Object.fromEntries(OUTCOMES.map((name) => [name, ofOutcome(totals, name)])),
        byCodeClass: Object.fromEntries(CODE_CLASSES.map((name) => [name, ofCodeClass(totals, name)])),
        spawns: Object.fromEntries(totals.spawns),
        exits: Object.fromEntries(totals.exits),
        clientDisconnects: totals.front[FRONT_AT.clientDisconnects] ?? 0,
      },
      events: this.events.toReversed(),
    };
  }

  // ----

  /** Brings everything up to date. Returns the fronts that did not answer. */
  private async refresh(requests: boolean): Promise<readonly number[]> {
    const { view } = this;
    const pids = [
      process.pid,
      ...view.moldPids(),
      ...[...view.workers(), ...view.fronts()].flatMap(({ pid }) => pid ?? []),
    ];
    const [silent] = await Promise.all([
      view.askFronts(requests),
      view.askWorkers(),
      this.memory.refresh(pids, performance.now()),
    ]);
    this.sampler.read();
    this.countSlots();
    this.countIo();
    return silent;
  }

  /** Of a Node app there is no more to it than workers that are ready. */
  private get listens(): boolean {
    return !this.hasFronts || this.view.fronts().some(({ listening }) => listening);
  }

  /** False: a Node app, whose workers serve the clients themselves, and report as fronts do. */
  private get hasFronts(): boolean {
    return this.view.setup().python !== null;
  }

  private get settings(): Settings {
    return this.view.setup().loaded.settings;
  }

  private openReader(): PrometheusReader | null {
    const folder = this.view.prometheusFolder();
    if (folder !== null) this.reader ??= new PrometheusReader(folder, this.log);
    return this.reader;
  }

  private turn(): void {
    const time = performance.now();
    observe(this.totals.masterLag, 0, Math.max(0, time - this.turnedAt - TURN_MS));
    this.turnedAt = time;
    if (time - this.tickedAt < TICK_MS) return;
    this.tickedAt = time;
    void this.view.askWorkers();
    this.sampler.read();
    this.countSlots();
    this.countIo();
    this.recent.keep(this.totals, time);
  }

  private countSlots(): void {
    const time = performance.now();
    let slots = 0;
    // What a worker that leaves still runs is busy time, and so counts as a slot. What it does not run is no slot any more.
    for (const { state, serial } of this.view.workers())
      slots += state === 'ready' ? this.settings.threads : (this.processOf(serial)?.busy ?? 0);
    this.totals.slotMs += slots * (time - this.slotsCountedAt);
    this.slotsCountedAt = time;
  }

  private countIo(): void {
    for (const [number, times] of this.totals.threads) {
      // From the slot's side: threads wait for the lock outside the app too, when a request comes.
      const busyMs = this.totals.workers.get(number)?.[WORKER_AT.busyMs] ?? 0;
      times.ioMs = Math.max(times.ioMs, busyMs - times.cpuMs - times.cpuWaitMs - (times.gilWaitMs ?? 0));
    }
  }

  private present(backlog: number | null): Present {
    const { view, memory } = this;
    const reports = [...this.reports.values()];
    const workers = view
      .workers()
      .toSorted((one, other) => one.number - other.number || one.serial - other.serial)
      .map((worker) => ({
        ...worker,
        memory: memory.of(worker.pid),
        startedAt: this.starts.get(worker.serial) ?? null,
      }));
    const fronts = view.fronts();
    return {
      version: view.version,
      utilization: this.recent.status(this.totals, performance.now()).utilization,
      queueDepth: reports.reduce((sum, { queueDepth }) => sum + queueDepth, 0),
      queueLimit:
        this.settings.worker_class === 'async' && this.settings.threads === 1
          ? 0
          : this.settings.max_queue * fronts.length,
      connections: reports.reduce((sum, { connections }) => sum + connections, 0),
      slots: this.slotsByState(),
      workers,
      masterCpuMs: this.masterCpuMs(),
      masterMemory: memory.of(process.pid),
      moldMemory: total(view.moldPids().map((pid) => memory.of(pid))),
      clientsProcess: this.hasFronts ? 'front' : 'worker',
      clientsMemory: total(fronts.map(({ pid }) => memory.of(pid))),
      cowSaved: this.settings.preload_app ? memory.cowSaved(workers.flatMap(({ pid }) => pid ?? [])) : null,
      backlog,
    };
  }

  private processOf(serial: number): ProcessReport | undefined {
    for (const { workers } of this.reports.values()) {
      for (const { processes } of workers) {
        const found = processes.find((one) => one.serial === serial);
        if (found !== undefined) return found;
      }
    }
    return undefined;
  }

  private slotsByState(): Record<SlotState, number> {
    const counts = Object.fromEntries(SLOT_STATES.map((state) => [state, 0])) as Record<SlotState, number>;
    for (const { workers } of this.reports.values())
      for (const { processes } of workers)
        for (const { slots } of processes) for (const state of slots) counts[state]++;
    return counts;
  }

  private masterCpuMs(): number {
    const { user, system } = process.cpuUsage();
    return this.totals.masterCpuMs + (user + system) / 1000;
  }

  private event(kind: WorkerEvent['kind'], worker: number, serial: number, reason: Reason): void {
    this.events.push({ at: Date.now() / 1000, kind, worker, serial, reason });
    if (this.events.length > EVENTS_KEPT) this.events.shift();
  }
}

function summaryOf(settings: Settings): SettingsSummary {
  return {
    workers: settings.workers,
    threads: settings.threads,
    fronts: settings.fronts,
    preload: settings.preload_app,
    timeout: settings.timeout,
    queueTimeout: settings.queue_timeout,
    gracefulTimeout: settings.graceful_timeout,
    maxQueue: settings.max_queue,
    maxRequests: settings.max_requests,
    maxLifetime: settings.max_lifetime,
  };
}

function total(memories: readonly MemoryStatus[]): MemoryStatus {
  const sum = (figures: readonly (number | null)[]): number | null => {
    const known = figures.filter((figure) => figure !== null);
    return known.length === 0 ? null : known.reduce((all, one) => all + one, 0);
  };
  return { rss: sum(memories.map(({ rss }) => rss)), pss: sum(memories.map(({ pss }) => pss)) };
}
