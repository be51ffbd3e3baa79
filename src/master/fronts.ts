/** The fronts: node:cluster workers that get their listening sockets from the master and their workers as these become ready. */
import cluster, { type Worker as ClusterWorker } from 'node:cluster';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { getHeapStatistics } from 'node:v8';
import { after, now } from '../clock.ts';
import type { FrontConfig, ToFront, ToMaster, WorkerAddress } from '../front/messages.ts';
import { removeFilesOf } from '../front/spool.ts';
import type { ListeningHandle } from '../listening-handle.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { FrontReport } from '../metrics/report.ts';
import type { FrontView } from '../metrics/view.ts';
import { Backoff } from '../policy/backoff.ts';
import { onEnd } from './child-end.ts';
import { forkWorker } from './child-start.ts';
import { ReportQuestions } from './report-questions.ts';

/** What a reload can change. */
export interface FrontsSettings {
  readonly count: number;
  /** The settings of all fronts; number and title are set for each. */
  readonly config: Omit<FrontConfig, 'number' | 'title'>;
  readonly handles: readonly ListeningHandle[];
  readonly gracefulTimeoutMs: number;
  title(role: string): string;
}

export interface FrontsOptions extends FrontsSettings {
  readonly uid: number | null;
  readonly gid: number | null;
  /** Workers that are ready. */
  addresses(): WorkerAddress[];
}

export interface FrontsHandler {
  /** All fronts accept connections. Called once. */
  listening(): void;
  /** A front ended before it had ever listened: none will. */
  failed(): void;
  drained(serial: number): void;
  timedOut(serial: number, servesOn: boolean): void;
  stuck(serial: number, servesOn: boolean): void;
  recovered(serial: number): void;
  requestLimitReached(serial: number): void;
  /** How many requests a worker has answered by now. */
  served(serial: number, requests: number): void;
  /** A front tells what it has counted, the last time after its end. */
  report(id: number, report: FrontReport): void;
  /** It has ended, and its last words were heard. */
  frontEnded(id: number, restarted: boolean): void;
  /** After `stop`: the last front has let go of its last connection. */
  stopped(): void;
}

interface Front {
  readonly number: number;
  /** Its number, which the one that is started in its place inherits with its workers; another one when it is too many. */
  key: number;
  readonly process: ClusterWorker;
  readonly startedAt: number;
  online: boolean;
  /** The listening handles were sent to it. A front that a reload adds gets them with its first worker. */
  accepts: boolean;
  listeningAt: number | null;
  /** When it said last that its event loop turns. */
  heardAt: number;
  stopped: boolean;
  /** It has ended, and another one takes its place. */
  restarted: boolean;
}

const TITLE_ROOM = ' '.repeat(120);
/** What a front may take to write the rest of its log, or of its last answers. */
const END_LIMIT_MS = 2000;
/** A front says every second that its event loop turns. Silent for so long, it serves nobody. */
const SILENCE_LIMIT_MS = 10_000;
const TICK_MS = 1000;
const MAIN = fileURLToPath(new URL('../front/main.js', import.meta.url));

/** Of V8, for a process that allocates much, keeps little, and should take neither memory nor processors from the app. */
const FRONT_FLAGS = [
  // What a request leaves behind is garbage within a millisecond. Twice as much room saves 0 to 8 % of the processor's time at
  // 2,000 requests a second, and takes 2 MB more.
  '--max-semi-space-size=1',
  // At every lull V8 would throw away what it has compiled along with the garbage, and compile it again for the next requests.
  '--no-memory-reducer',
  // One thread beside the event loop is enough to compile and to collect garbage; each has memory of its own.
  '--v8-pool-size=1',
  // V8 11 (Node 20) takes some six thousand requests to see which functions are hot, minutes of a small server; its successors
  // find out sooner.
  ...(process.versions.v8.startsWith('11.') ? ['--interrupt-budget=15000'] : []),
];
/** A heap that may become larger than this is let grow fourfold between two collections of garbage, a smaller one by 8 MB. */
const MAX_HEAP_MB = 2000;

function maxHeapMb(): number {
  return Math.min(MAX_HEAP_MB, Math.floor(getHeapStatistics().heap_size_limit / 2 ** 20));
}

export class Fronts {
  private readonly options: FrontsOptions;
  private settings: FrontsSettings;
  private readonly handler: FrontsHandler;
  private readonly log: ErrorLog;
  private readonly fronts: (Front | null)[] = [];
  /** Fronts that are too many: they go when their last connection has gone. Each with what takes back the limit for that. */
  private readonly surplus = new Map<Front, () => void>();
  /** Called when no front is too many any more: a reload and the removal of workers may wait at the same time. */
  private waiting: (() => void)[] = [];
  /** The key of each worker's front, by serial: a worker keeps the one that it was given to. */
  private readonly frontKeys = new Map<number, number>();
  private readonly backoffs: Backoff[] = [];
  private listeningSaid = false;
  private stopping = false;
  private ticker: NodeJS.Timeout | null = null;
  private ended: (() => void) | null = null;
  /** To be called when a front accepts what waits in the listening queues, or none will. */
  private awaitingFront: (() => void)[] = [];
  private readonly questions = new ReportQuestions();

  constructor(options: FrontsOptions, handler: FrontsHandler, log: ErrorLog) {
    this.options = options;
    this.settings = options;
    this.handler = handler;
    this.log = log;
    const { uid, gid } = options;
    cluster.setupPrimary({
      exec: MAIN,
      args: [TITLE_ROOM],
      execArgv: [...FRONT_FLAGS, `--max-old-space-size=${maxHeapMb()}`],
      ...(uid === null ? {} : { uid }),
      ...(gid === null ? {} : { gid }),
    });
  }

  get count(): number {
    return this.settings.count;
  }

  start(settings: FrontsSettings): void {
    this.settings = settings;
    for (let index = 0; index < this.settings.count; index++) this.fronts.push(this.fork(index, true));
    this.ticker = setInterval(() => this.killSilent(), TICK_MS);
  }

  /**
   * New settings. The running fronts take them and keep their connections: these end with their next answer. Fronts that are
   * too many accept nothing more; when the last one is gone, and with it the need for its workers, `done` is called.
   */
  reload(settings: FrontsSettings, done: () => void): void {
    const hasChanged = !isSame(this.settings, settings);
    this.settings = settings;
    for (const front of this.fronts.splice(settings.count)) if (front !== null) this.retire(front);
    for (const front of this.fronts) {
      if (!hasChanged || front === null || !front.online) continue; // it gets them when it hears
      this.tell(front, { op: 'config', config: this.configOf(front) });
      if (front.accepts) this.sendHandles(front);
    }
    while (this.fronts.length < settings.count) this.fronts.push(this.fork(this.fronts.length, false));
    this.whenNoneIsTooMany(done);
  }

  /** At most `count` fronts, as many as there will be workers: one without a worker could answer nobody. `done` as in `reload`. */
  limit(count: number, done: () => void): void {
    if (count < this.settings.count) this.settings = { ...this.settings, count };
    for (const front of this.fronts.splice(count)) if (front !== null) this.retire(front);
    this.whenNoneIsTooMany(done);
  }

  private retire(front: Front): void {
    let cancel = after(this.settings.gracefulTimeoutMs, () => {
      this.tell(front, { op: 'stop', graceful: false });
      // A client that takes its last answer slowly would keep it for as long as that lasts, and what waits for its end.
      cancel = after(END_LIMIT_MS, () => this.tell(front, { op: 'end' }));
    });
    this.surplus.set(front, () => cancel());
    const { key } = front;
    front.key = -front.process.id;
    for (const [serial, one] of this.frontKeys) if (one === key) this.frontKeys.set(serial, front.key);
    this.tell(front, { op: 'stop', graceful: true });
  }

  private whenNoneIsTooMany(done: () => void): void {
    this.waiting.push(done);
    this.checkSurplus();
  }

  private checkSurplus(): void {
    if (this.surplus.size > 0) return;
    for (const done of this.waiting.splice(0)) done();
  }

  addWorker(worker: WorkerAddress): void {
    const number = 1 + ((worker.number - 1) % this.settings.count);
    this.frontKeys.set(worker.serial, number);
    const front = this.fronts[number - 1] ?? null;
    this.tell(front, { op: 'worker', worker });
    if (front !== null && !front.accepts) {
      front.accepts = true;
      if (front.online) this.sendHandles(front);
    }
  }

  drainWorker(worker: WorkerAddress): void {
    const front = this.frontOf(worker);
    // One that does not hear yet has given it nothing, and will not get to know it.
    if (front === null || !front.online) this.handler.drained(worker.serial);
    else this.tell(front, { op: 'drain-worker', serial: worker.serial });
  }

  workerExit(worker: WorkerAddress): void {
    this.tell(this.frontOf(worker), { op: 'worker-exit', serial: worker.serial });
    this.frontKeys.delete(worker.serial);
  }

  /** Calls `then` when a front has the listening sockets, so that what waits there is accepted: now, unless all are dead or starting. */
  whenSocketsHeld(then: () => void): void {
    const isHeld = this.all().some(({ listeningAt }) => listeningAt !== null);
    if (isHeld || !this.listeningSaid || this.stopping) then();
    else this.awaitingFront.push(then);
  }

  stop(graceful: boolean): void {
    // None is left, and one is awaited.
    if (!this.stopping && this.awaitingFront.length > 0 && this.all().length === 0) this.fronts[0] = this.fork(0, true);
    this.stopping = true;
    if (this.ticker !== null) clearInterval(this.ticker);
    for (const front of this.all()) this.tell(front, { op: 'stop', graceful });
    this.checkStopped();
  }

  reopenLogs(): void {
    for (const front of this.all()) this.tell(front, { op: 'reopen-logs' });
  }

  views(): FrontView[] {
    const time = now();
    return this.all().map((front) => ({
      id: front.process.id,
      number: front.number,
      pid: front.process.process.pid ?? null,
      listening: front.listeningAt !== null,
      silentMs: time - front.heardAt,
    }));
  }

  /** Has all fronts report. Resolves with the ids of those that have not in time. */
  askReports(requests: boolean): Promise<readonly number[]> {
    const fronts = new Map(
      this.all()
        .filter(({ listeningAt }) => listeningAt !== null)
        .map((front) => [front.process.id, front]),
    );
    return this.questions.ask([...fronts.keys()], (id, asked) =>
      this.tell(fronts.get(id) ?? null, { op: 'report', asked, requests }),
    );
  }

  /** Ends the processes; `done` is called when they are gone. */
  end(done: () => void): void {
    const timer = setTimeout(() => {
      for (const front of this.all()) front.process.process.kill('SIGKILL');
    }, END_LIMIT_MS);
    this.ended = () => {
      clearTimeout(timer);
      done();
    };
    for (const front of this.all()) this.tell(front, { op: 'end' });
    this.checkEnded();
  }

  private checkEnded(): void {
    if (this.all().length === 0) this.ended?.();
  }

  /** A front whose event loop stands still is of no use: what it held is lost in any case. */
  private killSilent(): void {
    const time = now();
    for (const front of this.all()) {
      if (front.listeningAt === null || time - front.heardAt < SILENCE_LIMIT_MS) continue;
      const { pid } = front.process.process;
      this.log.critical(`Front ${front.number} (pid:${pid}) has not answered for ${SILENCE_LIMIT_MS / 1000} s: killed`);
      front.process.process.kill('SIGKILL');
      front.heardAt = time;
    }
  }

  private all(): Front[] {
    return [...this.fronts.filter((front) => front !== null), ...this.surplus.keys()];
  }

  private fork(index: number, accepts: boolean): Front {
    const number = index + 1;
    const child = forkWorker();
    const front: Front = {
      number,
      key: number,
      process: child,
      startedAt: now(),
      online: false,
      accepts,
      listeningAt: null,
      heardAt: now(),
      stopped: false,
      restarted: false,
    };
    child.on('message', (message: ToMaster) => this.said(front, message));
    child.on('error', () => {}); // The process tells it too; unheard here, it would be thrown.
    onEnd(
      child.process,
      (why) => this.exited(front, `could not be started: ${why}`),
      (code, signal) => this.exited(front, `(pid:${child.process.pid}) ended (${signal ?? `code ${code}`})`),
    );
    child.process.on('close', () => this.handler.frontEnded(child.id, front.restarted));
    return front;
  }

  /** The front hears from now on: what was said to a process that was still loading is lost. */
  private online(front: Front): void {
    front.online = true;
    this.tell(front, { op: 'start', config: this.configOf(front) });
    for (const worker of this.options.addresses()) {
      if (this.frontKeys.get(worker.serial) === front.key) this.tell(front, { op: 'worker', worker });
    }
    if (front.accepts) this.sendHandles(front);
    if (this.stopping || this.surplus.has(front)) this.tell(front, { op: 'stop', graceful: true });
  }

  private configOf({ number }: Front): FrontConfig {
    const { config, title } = this.settings;
    return { ...config, number, title: title(`front ${number}`) };
  }

  private sendHandles(front: Front): void {
    this.settings.handles.forEach((handle, index) => {
      // Node sends these handles as they are; its types know only sockets and servers.
      front.process.process.send?.({ op: 'listen', index } satisfies ToFront, handle as unknown as Socket);
    });
  }

  private said(front: Front, message: ToMaster): void {
    switch (message.op) {
      case 'online':
        this.online(front);
        return;
      case 'listening':
        front.listeningAt = now();
        front.heardAt = now();
        this.socketsHeld();
        if (!this.listeningSaid && this.fronts.every((one) => one?.listeningAt)) {
          this.listeningSaid = true;
          this.handler.listening();
        }
        return;
      case 'drained':
        this.handler.drained(message.serial);
        return;
      case 'timed-out':
        this.handler.timedOut(message.serial, message.servesOn);
        return;
      case 'stuck':
        this.handler.stuck(message.serial, message.servesOn);
        return;
      case 'recovered':
        this.handler.recovered(message.serial);
        return;
      case 'request-limit':
        this.handler.requestLimitReached(message.serial);
        return;
      case 'alive':
        front.heardAt = now();
        for (const [serial, requests] of message.served) this.handler.served(serial, requests);
        return;
      case 'report':
        this.reported(front, message.report);
        return;
      case 'stopped':
        front.stopped = true;
        if (this.surplus.has(front)) this.tell(front, { op: 'end' });
        this.checkStopped();
    }
  }

  private socketsHeld(): void {
    for (const then of this.awaitingFront.splice(0)) then();
  }

  private reported(front: Front, report: FrontReport): void {
    const { id } = front.process;
    this.handler.report(id, report);
    this.questions.answered(id, report.asked);
  }

  private exited(front: Front, how: string): void {
    const index = front.number - 1;
    const { pid } = front.process.process;
    if (pid !== undefined) removeFilesOf(pid, this.settings.config.spoolFolder);
    const wasSurplus = this.surplus.get(front);
    if (wasSurplus !== undefined) {
      wasSurplus();
      this.surplus.delete(front);
      this.checkSurplus();
    }
    if (this.fronts[index] === front) this.fronts[index] = null;
    front.restarted = this.listeningSaid && !this.stopping && this.ended === null && wasSurplus === undefined;
    if (wasSurplus === undefined) {
      // What its workers still run is for nobody: those that are to drain have drained.
      for (const [serial, key] of this.frontKeys) if (key === front.key) this.handler.drained(serial);
    }
    if (this.ended !== null) {
      this.checkEnded();
      return;
    }
    if (this.stopping) {
      if (this.all().length === 0) this.socketsHeld();
      this.checkStopped();
      return;
    }
    if (wasSurplus !== undefined) return;
    if (!this.listeningSaid) {
      this.log.error(`Front ${front.number} ${how}`);
      this.handler.failed();
      return;
    }
    this.log.error(`Front ${front.number} ${how}; it is started again`);
    this.backoffs[index] ??= new Backoff();
    const delayMs = this.backoffs[index].delayAfter({
      startedAt: front.startedAt,
      readyAt: front.listeningAt,
      hasBegun: false,
      diedAt: now(),
    });
    setTimeout(() => {
      if (!this.stopping && this.fronts[index] === null) this.fronts[index] = this.fork(index, true);
    }, delayMs);
  }

  private checkStopped(): void {
    if (this.stopping && this.all().every((front) => front.stopped)) this.handler.stopped();
  }

  private frontOf({ serial }: WorkerAddress): Front | null {
    const key = this.frontKeys.get(serial);
    return this.all().find((front) => front.key === key) ?? null;
  }

  private tell(front: Front | null, message: ToFront): void {
    if (front?.online && front.process.isConnected()) front.process.send(message);
  }
}

/** Whether a front would notice the difference. */
function isSame(one: FrontsSettings, other: FrontsSettings): boolean {
  const all = ({ config, title }: FrontsSettings): string => JSON.stringify([config, title('front')]);
  return all(one) === all(other) && one.handles.every((handle, index) => handle === other.handles[index]);
}
