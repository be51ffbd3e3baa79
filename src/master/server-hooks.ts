/** When hooks of the master are called that are functions of a nunicorn.config file, in gunicorn's order. */
import type { HooksConfig, ListenerFacts } from '../hooks/messages.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { WorkerEvents, WorkerFacts, WorkerProcess } from './app-kind.ts';
import { HookProcess } from './hook-process.ts';

export interface ServerHooksHandler {
  /** Null: there is none any more. */
  config(): HooksConfig | null;
  listeners(): readonly ListenerFacts[];
  failed(code: number): void;
}

export class ServerHooks {
  private readonly handler: ServerHooksHandler;
  private readonly process: HookProcess;
  private readonly workers = new Map<number, HookedWorker>();
  /** when_ready has run. */
  private released = false;
  private hasFailed = false;
  private ready: () => void = () => {};
  private release: () => void = () => {};
  private readonly releasing = new Promise<void>((resolve) => {
    this.release = resolve;
  });

  constructor(handler: ServerHooksHandler, first: HooksConfig, log: ErrorLog) {
    this.handler = handler;
    let last = first;
    this.process = new HookProcess(
      {
        config: () => {
          last = handler.config() ?? last;
          // The hooks of a process that takes the place of another one have missed when_ready.
          return { ...last, listeners: this.released ? handler.listeners() : [] };
        },
        ready: () => this.ready(),
        failed: (code) => this.failed(code),
      },
      log,
    );
  }

  /** Resolves when on_starting has returned; if it fails, never. `released`: the server runs already. */
  async start(released: boolean): Promise<void> {
    this.released = released;
    await new Promise<void>((resolve) => {
      this.ready = resolve;
      this.process.start();
    });
    if (released) this.release();
  }

  /** Every address is listened at. Resolves when workers may be started. */
  async whenReady(): Promise<void> {
    if (!(await this.call({ hook: 'when_ready', listeners: this.handler.listeners() }))) return;
    this.released = true;
    this.release();
  }

  /** A worker that is started when pre_fork has returned. */
  startWorker(facts: WorkerFacts, start: () => WorkerProcess, events: WorkerEvents): WorkerProcess {
    const { serial, number } = facts;
    const worker = new HookedWorker(() => events.ended(serial, null, null, false));
    this.workers.set(serial, worker);
    const begin = async (): Promise<void> => {
      await this.releasing;
      if (worker.isGone || !(await this.call({ hook: 'pre_fork', serial, number }))) return;
      if (worker.isGone) return;
      worker.process = start();
      this.spawned(serial);
    };
    void begin();
    return worker;
  }

  /** The worker's pid is known. */
  spawned(serial: number): void {
    const pid = this.workers.get(serial)?.pid ?? null;
    if (pid !== null) this.process.say({ op: 'spawned', serial, pid });
  }

  ended(serial: number, number: number): void {
    const worker = this.workers.get(serial);
    this.workers.delete(serial);
    if (worker?.process != null) void this.call({ hook: 'child_exit', serial, number, pid: worker.pid });
  }

  workersChanged(workers: number): void {
    void this.call({ hook: 'nworkers_changed', workers });
  }

  async reload(config: HooksConfig): Promise<void> {
    await this.call({ hook: 'on_reload', config });
  }

  /** Before a new master is started: false if a hook does not want it. */
  async beforeUpgrade(): Promise<boolean> {
    return (await this.process.call({ hook: 'pre_exec' })) === null;
  }

  /** `atEnd`: with on_exit. */
  async end(atEnd: boolean): Promise<void> {
    await this.process.end(atEnd && this.released && !this.hasFailed);
  }

  reopenLogs(): void {
    this.process.say({ op: 'reopen' });
  }

  kill(): void {
    this.process.kill();
  }

  /** False: it failed, and the server ends. */
  private async call(call: Parameters<HookProcess['call']>[0]): Promise<boolean> {
    const code = await this.process.call(call);
    if (code !== null) this.failed(code);
    return code === null;
  }

  private failed(code: number): void {
    this.hasFailed = true;
    this.handler.failed(code);
  }
}

/** A worker before and after its process is started. */
class HookedWorker implements WorkerProcess {
  process: WorkerProcess | null = null;
  isGone = false;
  private readonly ended: () => void;

  /** `ended`: it was killed before it was started. */
  constructor(ended: () => void) {
    this.ended = ended;
  }

  get pid(): number | null {
    return this.process?.pid ?? null;
  }

  get accepts(): boolean {
    return this.process?.accepts ?? false;
  }

  drain(): void {
    this.process?.drain();
  }

  leave(quick: boolean): void {
    this.process?.leave(quick);
  }

  reopenLogs(): void {
    this.process?.reopenLogs();
  }

  ping(): void {
    this.process?.ping();
  }

  stacks(answers: boolean, done: (stacks: string) => void): void {
    if (this.process === null) done('it is not started yet');
    else this.process.stacks(answers, done);
  }

  abort(): void {
    this.process?.abort();
  }

  kill(): void {
    if (this.process !== null) this.process.kill();
    else if (!this.isGone) {
      this.isGone = true;
      this.ended();
    }
  }
}
