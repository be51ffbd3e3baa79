/** The fronts: node:cluster workers that get their listening sockets from the master and their workers as these become ready. */
import cluster, { type Worker as ClusterWorker } from 'node:cluster';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { now } from '../clock.ts';
import type { FrontConfig, TlsConfig, ToFront, ToMaster, WorkerAddress } from '../front/messages.ts';
import type { ListeningHandle } from '../listening-handle.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { Backoff } from '../policy/backoff.ts';

export interface FrontsOptions {
  readonly count: number;
  /** The settings of all fronts; number and title are set for each. */
  readonly config: Omit<FrontConfig, 'number' | 'title'>;
  readonly handles: readonly ListeningHandle[];
  title(role: string): string;
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
  stuck(serial: number): void;
  requestLimitReached(serial: number): void;
  /** How many requests a worker has answered by now. */
  served(serial: number, requests: number): void;
  /** After `stop`: the last front has let go of its last connection. */
  stopped(): void;
}

interface Front {
  readonly number: number;
  readonly process: ClusterWorker;
  readonly startedAt: number;
  online: boolean;
  listeningAt: number | null;
  /** When it said last that its event loop turns. */
  heardAt: number;
  stopped: boolean;
}

const TITLE_ROOM = ' '.repeat(120);
/** What a front may take to write the rest of its log. */
const END_LIMIT_MS = 2000;
/** A front says every second that its event loop turns. Silent for so long, it serves nobody. */
const SILENCE_LIMIT_MS = 10_000;
const TICK_MS = 1000;
const MAIN = fileURLToPath(new URL('../front/main.js', import.meta.url));

export class Fronts {
  private readonly options: FrontsOptions;
  private readonly handler: FrontsHandler;
  private readonly log: ErrorLog;
  private readonly fronts: (Front | null)[] = [];
  private readonly backoffs: Backoff[] = [];
  private tls: TlsConfig | null;
  private listeningSaid = false;
  private stopping = false;
  private ticker: NodeJS.Timeout | null = null;
  private ended: (() => void) | null = null;

  constructor(options: FrontsOptions, handler: FrontsHandler, log: ErrorLog) {
    this.options = options;
    this.handler = handler;
    this.log = log;
    this.tls = options.config.tls;
    const { uid, gid } = options;
    cluster.setupPrimary({
      exec: MAIN,
      args: [TITLE_ROOM],
      // What a request leaves behind is garbage within a millisecond: a small nursery, and a heap that is slow to grow, take
      // 4 % more CPU time per request and a third of the memory.
      execArgv: ['--max-semi-space-size=2', '--optimize-for-size'],
      ...(uid === null ? {} : { uid }),
      ...(gid === null ? {} : { gid }),
    });
  }

  start(): void {
    for (let index = 0; index < this.options.count; index++) {
      this.backoffs.push(new Backoff());
      this.fronts.push(this.fork(index));
    }
    this.ticker = setInterval(() => this.killSilent(), TICK_MS);
  }

  addWorker(worker: WorkerAddress): void {
    this.tell(this.frontOf(worker.number), { op: 'worker', worker });
  }

  drainWorker(worker: WorkerAddress): void {
    const front = this.frontOf(worker.number);
    if (front === null) this.handler.drained(worker.serial);
    else this.tell(front, { op: 'drain-worker', serial: worker.serial });
  }

  workerExit(worker: WorkerAddress): void {
    this.tell(this.frontOf(worker.number), { op: 'worker-exit', serial: worker.serial });
  }

  stop(graceful: boolean): void {
    this.stopping = true;
    if (this.ticker !== null) clearInterval(this.ticker);
    for (const front of this.fronts) this.tell(front, { op: 'stop', graceful });
    this.checkStopped();
  }

  reopenLogs(): void {
    for (const front of this.fronts) this.tell(front, { op: 'reopen-logs' });
  }

  /** For the connections to come, and for fronts to come. */
  setCertificates(tls: TlsConfig): void {
    this.tls = tls;
    for (const front of this.fronts) this.tell(front, { op: 'certificates', tls });
  }

  /** Ends the processes; `done` is called when they are gone. */
  end(done: () => void): void {
    this.ended = done;
    for (const front of this.fronts) this.tell(front, { op: 'end' });
    setTimeout(() => {
      for (const front of this.fronts) front?.process.process.kill('SIGKILL');
    }, END_LIMIT_MS);
    this.checkEnded();
  }

  private checkEnded(): void {
    if (this.fronts.every((front) => front === null)) this.ended?.();
  }

  /** A front whose event loop stands still is of no use: what it held is lost in any case. */
  private killSilent(): void {
    const time = now();
    for (const front of this.fronts) {
      if (front === null || front.listeningAt === null || time - front.heardAt < SILENCE_LIMIT_MS) continue;
      const { pid } = front.process.process;
      this.log.critical(`Front ${front.number} (pid:${pid}) has not answered for ${SILENCE_LIMIT_MS / 1000} s: killed`);
      front.process.process.kill('SIGKILL');
      front.heardAt = time;
    }
  }

  private fork(index: number): Front {
    const number = index + 1;
    const child = cluster.fork();
    const front: Front = {
      number,
      process: child,
      startedAt: now(),
      online: false,
      listeningAt: null,
      heardAt: now(),
      stopped: false,
    };
    child.on('message', (message: ToMaster) => this.said(front, message));
    child.on('error', () => {}); // A message to a front that has just died; its end is told by 'exit'.
    child.on('exit', (code, signal) => this.exited(index, front, code, signal));
    return front;
  }

  /** The front hears from now on: what was said to a process that was still loading is lost. */
  private online(front: Front): void {
    const { options } = this;
    const { number } = front;
    front.online = true;
    const title = options.title(`front ${number}`);
    this.tell(front, { op: 'start', config: { ...options.config, tls: this.tls, number, title } });
    options.handles.forEach((handle, index) => {
      // Node sends these handles as they are; its types know only sockets and servers.
      front.process.process.send?.({ op: 'listen', index } satisfies ToFront, handle as unknown as Socket);
    });
    for (const worker of options.addresses()) {
      if (this.indexOf(worker.number) === number - 1) this.tell(front, { op: 'worker', worker });
    }
    if (this.stopping) this.tell(front, { op: 'stop', graceful: true });
  }

  private said(front: Front, message: ToMaster): void {
    switch (message.op) {
      case 'online':
        this.online(front);
        return;
      case 'listening':
        front.listeningAt = now();
        front.heardAt = now();
        if (!this.listeningSaid && this.fronts.every((one) => one?.listeningAt)) {
          this.listeningSaid = true;
          this.handler.listening();
        }
        return;
      case 'drained':
        this.handler.drained(message.serial);
        return;
      case 'stuck':
        this.handler.stuck(message.serial);
        return;
      case 'request-limit':
        this.handler.requestLimitReached(message.serial);
        return;
      case 'alive':
        front.heardAt = now();
        for (const [serial, requests] of message.served) this.handler.served(serial, requests);
        return;
      case 'stopped':
        front.stopped = true;
        this.checkStopped();
    }
  }

  private exited(index: number, front: Front, code: number | null, signal: string | null): void {
    this.fronts[index] = null;
    if (this.ended !== null) {
      this.checkEnded();
      return;
    }
    if (this.stopping) {
      this.checkStopped();
      return;
    }
    if (!this.listeningSaid) {
      this.handler.failed();
      return;
    }
    this.log.error(
      `Front ${front.number} (pid:${front.process.process.pid}) ended (${signal ?? `code ${code}`}); it is started again`,
    );
    const delayMs = this.backoffs[index]?.delayAfter({
      startedAt: front.startedAt,
      readyAt: front.listeningAt,
      diedAt: now(),
    });
    setTimeout(() => {
      if (!this.stopping) this.fronts[index] = this.fork(index);
    }, delayMs);
  }

  private checkStopped(): void {
    if (this.fronts.every((front) => front === null || front.stopped)) this.handler.stopped();
  }

  /** Each worker belongs to one front. */
  private indexOf(workerNumber: number): number {
    return (workerNumber - 1) % this.options.count;
  }

  private frontOf(workerNumber: number): Front | null {
    return this.fronts[this.indexOf(workerNumber)] ?? null;
  }

  private tell(front: Front | null, message: ToFront): void {
    if (front?.online && front.process.isConnected()) front.process.send(message);
  }
}
