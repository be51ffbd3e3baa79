/** A Node app: workers of node:cluster that get the master's listening handles and serve the clients themselves. */
import cluster, { type Worker as ClusterWorker } from 'node:cluster';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { StacksAsked, UNKNOWN_STACKS } from '../bridge/stacks.ts';
import { now } from '../clock.ts';
import { removeFilesOf } from '../front/spool.ts';
import type { ListeningHandle } from '../listening-handle.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { FrontView } from '../metrics/view.ts';
import {
  type Envelope,
  type FromNodeWorker,
  type NodeAppConfig,
  opened,
  type ToNodeWorker,
} from '../node-app/messages.ts';
import type { AppHandler, AppKind, Renewal, WorkerFacts, WorkerProcess } from './app-kind.ts';
import { onEnd } from './child-end.ts';
import { forkWorker } from './child-start.ts';
import { killWithDescendants } from './descendants.ts';
import { nodeOptions, type Runtime, type Setup } from './options.ts';
import { ReportQuestions } from './report-questions.ts';

export interface NodeAppOptions {
  readonly config: NodeAppConfig;
  readonly env: Readonly<Record<string, string>>;
  readonly handles: readonly ListeningHandle[];
  /** `nunicorn: worker 1 [app]` of a role and a number. */
  title(role: string): string;
}

interface NodeProcess {
  readonly facts: WorkerFacts;
  readonly cluster: ClusterWorker;
  /** Those that it was started with. */
  readonly options: NodeAppOptions;
  online: boolean;
  /** It has been given the listening handles. */
  accepts: boolean;
  ready: boolean;
  /** No request is left. */
  stopped: boolean;
  /** When it said something last. */
  heardAt: number;
  /** Who asked where its threads stand. */
  readonly stacksAsked: StacksAsked;
}

const TITLE_ROOM = ' '.repeat(120);
/** At the end of the server nobody needs a connection for long: a request may be under way. A worker that is replaced has time. */
const STOP_IDLE_MS = 100;
/** A thread may take so long to say where it stands, and they are asked one after the other. */
const STACK_MS = 1000;
const NO_STACKS = '(its event loop does not turn: it stands in JavaScript that does not end, or in native code)';
const WAITS_FOR_WORD =
  "(--wait-ready: a worker is ready when its app calls ready() of the module 'nunicorn', or process.send('ready'))";
const MAIN = fileURLToPath(new URL('../node-app/main.js', import.meta.url));

export class NodeApp implements AppKind {
  private readonly runtime: Runtime;
  private options: NodeAppOptions;
  private readonly handler: AppHandler;
  private readonly log: ErrorLog;
  private readonly processes = new Map<number, NodeProcess>();
  private readonly questions = new ReportQuestions();
  private listeningSaid = false;
  private stopping = false;
  private stoppedSaid = false;

  constructor(setup: Setup, runtime: Runtime, handler: AppHandler, log: ErrorLog) {
    this.options = nodeOptions(setup, runtime);
    this.runtime = runtime;
    this.handler = handler;
    this.log = log;
    const { user, group } = setup.loaded.settings;
    // What the app itself listens at beside --bind is accepted by the workers, never by the master.
    cluster.schedulingPolicy = cluster.SCHED_NONE;
    cluster.setupPrimary({
      exec: MAIN,
      args: [TITLE_ROOM],
      ...(user === null ? {} : { uid: user }),
      ...(group === null ? {} : { gid: group }),
    });
  }

  description(): string {
    return `Node ${process.versions.node}`;
  }

  async prepare(): Promise<void> {}

  async start(setup: Setup): Promise<void> {
    this.options = nodeOptions(setup, this.runtime);
  }

  startWorker(facts: WorkerFacts): WorkerProcess {
    const process: NodeProcess = {
      facts,
      cluster: forkWorker(this.options.env),
      options: this.options,
      online: false,
      accepts: false,
      ready: false,
      stopped: false,
      heardAt: now(),
      stacksAsked: new StacksAsked(),
    };
    const { serial } = facts;
    const child = process.cluster;
    this.processes.set(serial, process);
    child.on('message', (message: unknown) => {
      const own = opened<FromNodeWorker>(message);
      if (own !== null) this.said(process, own);
    });
    const ended = (code: number | null, signal: NodeJS.Signals | null): void => {
      this.processes.delete(serial);
      const { pid } = child.process;
      if (pid !== undefined) removeFilesOf(pid, this.runtime.spoolFolder);
      this.handler.workers.ended(serial, code, signal, facts.served > 0);
      this.checkStopped();
    };
    const notStarted = (why: string): void => {
      this.log.error(`Worker ${facts.number} could not be started: ${why}`);
      ended(null, null);
    };
    child.on('error', () => {}); // The process tells it too; unheard here, it would be thrown.
    onEnd(child.process, notStarted, ended);
    child.process.on('close', () => this.handler.frontEnded(serial, false));
    return {
      get pid() {
        return child.process.pid ?? null;
      },
      get accepts() {
        return process.accepts;
      },
      drain: () => this.drain(process),
      leave: (quick) => this.tell(process, { op: 'leave', quick }),
      reopenLogs: () => this.tell(process, { op: 'reopen-logs' }),
      ping: () => this.tell(process, { op: 'ping' }),
      stacks: (answers, done) => this.askStacks(process, answers, done),
      // There is no gentler force than SIGKILL for what the app has started, whatever the worker itself gets.
      abort: () => force(child, 'SIGABRT'),
      kill: () => force(child, 'SIGKILL'),
    };
  }

  moldPids(): readonly number[] {
    return [];
  }

  /** The workers: they serve the clients themselves. */
  fronts(): FrontView[] {
    const time = now();
    return [...this.processes.values()].map(({ facts, cluster, ready, heardAt }) => ({
      id: facts.serial,
      number: facts.number,
      pid: cluster.process.pid ?? null,
      listening: ready,
      silentMs: time - heardAt,
    }));
  }

  askFronts(requests: boolean): Promise<readonly number[]> {
    const ready = [...this.processes.values()].filter((process) => process.ready);
    return this.questions.ask(
      ready.map(({ facts }) => facts.serial),
      (serial, asked) => {
        const process = this.processes.get(serial);
        if (process !== undefined) this.tell(process, { op: 'report', asked, requests });
      },
    );
  }

  async askWorkers(): Promise<void> {}

  async reload(setup: Setup): Promise<void> {
    this.options = nodeOptions(setup, this.runtime);
  }

  async renew(): Promise<Renewal> {
    return 'renewed';
  }

  settle(): void {}

  async beforeWorkers(): Promise<void> {}

  reopenLogs(): void {}

  /** Its workers, as far as they live. */
  whenSocketsHeld(then: () => void): void {
    then();
  }

  stop(graceful: boolean): void {
    this.stopping = true;
    for (const process of this.processes.values()) this.tell(process, { op: 'stop', graceful, idleMs: STOP_IDLE_MS });
    this.checkStopped();
  }

  end(done: () => void): void {
    done();
  }

  workersChanged(): void {}

  async beforeUpgrade(): Promise<boolean> {
    return true;
  }

  async close(): Promise<void> {}

  killAll(): void {}

  private said(process: NodeProcess, message: FromNodeWorker): void {
    const { workers } = this.handler;
    const { serial, number } = process.facts;
    // What it has counted counts, also when it has ended.
    if (message.op === 'report') this.handler.report(serial, message.report);
    if (!this.processes.has(serial)) return;
    process.heardAt = now();
    switch (message.op) {
      case 'online':
        this.online(process);
        return;
      case 'imported':
        workers.reached(serial, 'imported');
        return;
      case 'loaded':
        this.loaded(process);
        return;
      case 'ready':
        this.isReady(process);
        return;
      case 'pong':
        workers.pong(serial);
        return;
      case 'served':
        workers.served(serial, message.requests);
        return;
      case 'stacks':
        process.stacksAsked.answered(message.text);
        return;
      case 'report':
        this.questions.answered(serial, message.report.asked);
        return;
      case 'threads': {
        const { pid } = process.cluster.process;
        if (pid === undefined) return;
        this.handler.threads({ serial, number, pid, threadIds: message.ids, gilAddress: null });
        return;
      }
      case 'request-limit':
        workers.requestLimitReached(serial);
        return;
      case 'asked-to-leave':
        workers.askedToLeave(serial, message.why);
        return;
      case 'app-failed':
        workers.appFailed(serial, message.requests);
        return;
      case 'stuck':
        workers.stuck(serial, false);
        return;
      case 'stopped':
        process.stopped = true;
        workers.drained(serial);
        this.checkStopped();
    }
  }

  /** The worker hears from now on: what was said to a process that was still loading is lost. */
  private online(process: NodeProcess): void {
    const { config, title } = process.options;
    const { serial, number, requestLimit } = process.facts;
    process.online = true;
    this.handler.workers.reached(process.facts.serial, 'connected');
    if (this.stopping) return; // it is about to be killed
    const front = { ...config.front, number, title: title(`worker ${number}`) };
    const start = { ...config, serial, front, requestLimit };
    this.tell(process, { op: 'start', config: start });
  }

  /** Not before: one that is not wanted any more until then can be ended without ado. */
  private loaded(process: NodeProcess): void {
    if (this.stopping || !process.cluster.isConnected()) return;
    process.accepts = true;
    process.options.handles.forEach((handle, index) => {
      // Node sends these handles as they are; its types know only sockets and servers.
      process.cluster.process.send?.(enveloped({ op: 'listen', index }), handle as unknown as Socket);
    });
  }

  private isReady(process: NodeProcess): void {
    if (process.ready) return;
    process.ready = true;
    if (!this.listeningSaid) {
      this.listeningSaid = true;
      void this.handler.listening();
    }
    this.handler.workers.ready(process.facts.serial);
  }

  private askStacks(process: NodeProcess, answers: boolean, done: (stacks: string) => void): void {
    if (!process.ready || !answers) {
      const booting = process.options.config.waitReady ? WAITS_FOR_WORD : UNKNOWN_STACKS;
      done(process.ready ? NO_STACKS : booting);
      return;
    }
    process.stacksAsked.ask((this.options.config.threads + 1) * STACK_MS, done, () => done(NO_STACKS));
    this.tell(process, { op: 'stacks' });
  }

  private drain(process: NodeProcess): void {
    if (process.stopped) this.handler.workers.drained(process.facts.serial);
    else this.tell(process, { op: 'stop', graceful: true, idleMs: this.options.config.front.keepaliveMs });
  }

  private checkStopped(): void {
    if (!this.stopping || this.stoppedSaid) return;
    for (const { accepts, stopped } of this.processes.values()) if (accepts && !stopped) return;
    this.stoppedSaid = true;
    this.handler.stopped();
  }

  private tell({ online, cluster }: NodeProcess, message: ToNodeWorker): void {
    if (online && cluster.isConnected()) cluster.send(enveloped(message));
  }
}

function enveloped(message: ToNodeWorker): Envelope<ToNodeWorker> {
  return { nunicorn: message };
}

function force(child: ClusterWorker, signal: NodeJS.Signals): void {
  if (child.process.pid !== undefined && !child.isDead()) killWithDescendants(child.process.pid, signal);
}
