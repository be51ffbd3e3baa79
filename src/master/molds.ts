/**
 * Where Python workers come from: they are forked by a mold or, where none is needed, spawned. A reload makes a new mold; until
 * that is known to be good the one before it stays at hand.
 *
 *   present ──renew──▶ next boots ──ready──▶ next is present,     ──every worker is of it──▶ the one before ends,
 *                          │                 present is before               │               when its last worker has
 *                          └─ fails: nothing has changed                     └─ a worker does not boot: before is present again
 */
import type { ChildProcess } from 'node:child_process';
import { unlink } from 'node:fs';
import { join } from 'node:path';
import { readStacks } from '../bridge/stacks.ts';
import { EXIT } from '../errors.ts';
import type { ListenerFacts } from '../hooks/messages.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { Renewal } from './app-kind.ts';
import type { ControlConnection, HookCall } from './control-server.ts';
import { Mold } from './mold.ts';
import type { PythonAppOptions, PythonConfig } from './python-app.ts';

/** What workers are started with. */
export interface Origin {
  options: PythonAppOptions;
  /** Null: they are spawned. */
  mold: Mold | null;
}

export interface MoldsHandler {
  spawn(serial: number, options: PythonAppOptions): ChildProcess;
  /** It forks again: workers that waited for it are to be forked. */
  ready(mold: Mold): void;
  forked(serial: number, pid: number): void;
  notForked(serial: number): void;
  exited(pid: number, code: number | null, signal: NodeJS.Signals | null): void;
  /** Whether it has workers, or some wait for it. */
  isUsed(mold: Mold): boolean;
  /** The mold has died: workers of the next one are to replace those that there are. */
  outdated(): void;
  /** The first one could not be made. */
  unbootable(code: number | null): void;
  /** The server is to end with this exit code. */
  hookFailed(code: number): void;
  /** For when_ready. */
  listeners(): readonly ListenerFacts[];
}

export class Molds {
  private origin: Origin;
  /** Of before the reload whose workers are not all ready. */
  private before: Origin | null = null;
  /** The one that a reload waits for. */
  private next: { readonly origin: Origin; done(how: Renewal): void } | null = null;
  /** All that there are, also those that only wait for the end of their workers. */
  private readonly molds = new Set<Mold>();
  /** Those that forked before an earlier one was gone: when_ready has not run in them. */
  private readonly untold = new Set<Mold>();
  private readonly folder: string;
  private readonly handler: MoldsHandler;
  private readonly log: ErrorLog;
  /** Molds are numbered downwards, so that no worker has their serial. */
  private lastSerial = 0;
  /** To be called when the hooks of the start have run. */
  private prepared: (() => void) | null = null;
  private released = false;
  private hasHookFailed = false;

  /** `folder`: the private one. */
  constructor(options: PythonAppOptions, folder: string, handler: MoldsHandler, log: ErrorLog) {
    this.folder = folder;
    this.handler = handler;
    this.log = log;
    this.origin = this.newOrigin(options);
  }

  /** Of the workers that are started now. */
  get present(): Origin {
    return this.origin;
  }

  /** Of all that there are. */
  pids(): readonly number[] {
    return [...this.molds].flatMap(({ pid }) => pid ?? []);
  }

  /** The one whose process has this serial. */
  bySerial(serial: number): Mold | null {
    return [...this.molds].find((mold) => mold.serial === serial) ?? null;
  }

  /** Starts the mold before an address is listened at, if its hooks want that. */
  async prepare(): Promise<void> {
    const { mold } = this.origin;
    if (mold === null || !this.hasHooks) return;
    await new Promise<void>((resolve) => {
      this.prepared = resolve;
      mold.start();
    });
  }

  start(): void {
    if (!this.hasHooks) this.origin.mold?.start();
  }

  /** Every address is listened at. */
  async release(): Promise<void> {
    const { mold } = this.origin;
    const code = mold === null ? null : await this.whenReady(this.origin, mold);
    if (code !== null) this.hookFailed(code);
    this.released = true;
  }

  /** A mold's process has called. The hooks of the start do not wait for an address; what imports the app does. */
  called(mold: Mold, connection: ControlConnection): void {
    mold.called(connection);
    const origin = this.originOf(mold);
    if (origin !== null) connection.say(this.processOf(origin, mold));
  }

  /** New options, and the app anew. See the picture above. */
  async renew(options: PythonAppOptions): Promise<Renewal> {
    this.dropNext('overtaken');
    const { mold } = this.origin;
    const { preload, master_hooks: hooks } = options.config;
    if (hooks && !preload && mold !== null && !this.origin.options.config.preload) {
      // It has imported nothing, and what its hooks have left behind is to stay.
      this.origin.options = options;
      await this.callHook(mold, { hook: 'on_reload', process: this.processOf(this.origin, mold) });
      return 'renewed';
    }
    const origin = this.newOrigin(options);
    if (origin.mold === null) {
      this.change(origin);
      return 'renewed';
    }
    const next = origin.mold;
    return await new Promise<Renewal>((done) => {
      this.next = { origin, done };
      next.start();
    });
  }

  /** How the last renewal ended: every worker is of the present origin, or one of it did not boot. */
  settle(good: boolean): void {
    if (this.before === null) return;
    if (!good) this.origin = this.before;
    this.before = null;
    this.endUnused();
  }

  /** To be called when a worker is gone: a mold that is not needed any more ends with its last worker. */
  endUnused(): void {
    const kept = [this.origin.mold, this.before?.mold, this.next?.origin.mold];
    for (const mold of this.molds) if (!kept.includes(mold) && !this.handler.isUsed(mold)) void mold.end(false);
  }

  /** Runs a hook of the master. */
  async call(call: HookCall): Promise<void> {
    const { mold } = this.origin;
    if (mold !== null && this.hasHooks) await this.callHook(mold, call);
  }

  /** False: the hook of an upgrade does not want it. */
  async beforeUpgrade(): Promise<boolean> {
    return !this.hasHooks || (await this.origin.mold?.call({ hook: 'pre_exec' })) == null;
  }

  reopenLogs(): void {
    for (const mold of this.molds) mold.reopenLogs();
  }

  /** `atEnd`: with the hook of the end. */
  async close(atEnd: boolean): Promise<void> {
    this.dropNext('overtaken');
    const hook = atEnd && this.hasHooks && this.released && !this.hasHookFailed;
    const ends = [...this.molds].map(async (mold) => {
      const code = await mold.end(hook && mold === this.origin.mold);
      if (code !== null && code !== 0) this.hookFailed(code);
    });
    await Promise.all(ends);
  }

  killAll(): void {
    for (const mold of this.molds) mold.kill();
  }

  private get hasHooks(): boolean {
    return this.origin.options.config.master_hooks;
  }

  private originOf(mold: Mold): Origin | null {
    return [this.origin, this.before, this.next?.origin].find((origin) => origin?.mold === mold) ?? null;
  }

  private newOrigin(options: PythonAppOptions): Origin {
    const origin: Origin = { options, mold: null };
    if (needsMold(options.config)) origin.mold = this.newMold(origin);
    return origin;
  }

  private newMold(origin: Origin): Mold {
    const { handler } = this;
    const mold: Mold = new Mold(
      {
        spawn: () => {
          const serial = --this.lastSerial;
          return { serial, child: handler.spawn(serial, origin.options) };
        },
        ready: (again) => void this.moldReady(origin, mold, again),
        forked: (serial, pid) => handler.forked(serial, pid),
        notForked: (serial) => handler.notForked(serial),
        exited: (pid, code, signal) => handler.exited(pid, code, signal),
        // on_starting takes as long as it takes: it may migrate a database.
        bootTimeoutMs: () => (origin.options.config.master_hooks ? 0 : origin.options.bootTimeoutMs),
        stacks: (pid, done) => readStacks(pid, this.stacksPath(mold), done),
        processEnded: (serial) => unlink(this.stacksPathOf(serial), () => {}),
        ended: () => void this.moldEnded(mold),
        unbootable: (code) => this.unbootable(origin, code),
        hookFailed: (code) => this.hookFailed(code),
      },
      this.log,
    );
    this.molds.add(mold);
    return mold;
  }

  private async moldReady(origin: Origin, mold: Mold, again: boolean): Promise<void> {
    if (!this.released) {
      this.prepared?.();
      return;
    }
    // A mold of later: its hooks of the start run too, for what they leave behind is needed in its workers. What when_ready
    // opens, as the port of a metrics server, or starts, as a scheduler, the mold before may still have.
    if (this.molds.size > 1) this.untold.add(mold);
    else {
      const code = await this.whenReady(origin, mold);
      if (code !== null) {
        this.hookFailed(code);
        return;
      }
    }
    const { next } = this;
    if (next?.origin === origin) {
      if (origin.options.config.master_hooks)
        await this.callHook(mold, { hook: 'on_reload', process: this.processOf(origin, mold) });
      if (this.next !== next) return; // overtaken meanwhile
      this.next = null;
      this.change(origin);
      next.done('renewed');
      return;
    }
    this.handler.ready(mold);
    if (again && origin === this.origin) this.handler.outdated();
  }

  private async moldEnded(mold: Mold): Promise<void> {
    this.molds.delete(mold);
    this.untold.delete(mold);
    const { origin } = this;
    if (origin.mold === null || this.molds.size > 1 || !this.untold.delete(origin.mold)) return;
    if ((await this.whenReady(origin, origin.mold)) !== null)
      this.log.error('when_ready has failed after a reload: the server goes on without what it does');
  }

  private change(origin: Origin): void {
    // Where a reload follows another one that is under way, what was there before both is what is known to be good.
    this.before ??= this.origin;
    this.origin = origin;
    this.endUnused();
  }

  private unbootable(origin: Origin, code: number | null): void {
    if (this.next?.origin === origin) {
      this.log.error('The new mold did not boot: the workers stay, and are forked from what there was before');
      this.dropNext('failed');
    } else if (this.hasHooks && !this.released) this.hookFailed(code ?? EXIT.ERROR);
    else this.handler.unbootable(code);
  }

  private dropNext(how: Renewal): void {
    const { next } = this;
    if (next === null) return;
    this.next = null;
    this.endUnused();
    next.done(how);
  }

  /** Resolves with an exit code if the hook failed, else with null. */
  private async whenReady({ options }: Origin, mold: Mold): Promise<number | null> {
    if (!options.config.master_hooks) return null;
    return await mold.call({ hook: 'when_ready', listeners: this.handler.listeners() });
  }

  private async callHook(mold: Mold, call: HookCall): Promise<void> {
    const code = await mold.call(call);
    if (code !== null) this.hookFailed(code);
  }

  private hookFailed(code: number): void {
    this.hasHookFailed = true;
    this.handler.hookFailed(code);
  }

  /** What a mold's process is told that it is. */
  private processOf({ options }: Origin, mold: Mold): object {
    const { config, title } = options;
    return {
      ...config,
      role: 'mold',
      title: title('mold'),
      forked: false,
      stacks_path: this.stacksPath(mold),
      listeners: this.released ? this.handler.listeners() : [],
    };
  }

  private stacksPath({ serial }: Mold): string {
    return this.stacksPathOf(serial ?? 0);
  }

  private stacksPathOf(serial: number): string {
    return join(this.folder, `mold${serial}.stacks`);
  }
}

/**
 * Several workers are forked even where the mold imports nothing: interpreters that lie alike in memory share what the processor
 * has learnt of their branches, and what they have not changed.
 */
function needsMold({ preload, master_hooks: hooks, workers }: PythonConfig): boolean {
  return preload || hooks || workers > 1;
}
