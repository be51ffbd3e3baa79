/**
 * The process that forks workers, and the one after it when it dies. With --preload it has imported the app; hooks of the master
 * run in it, one after the other.
 */
import type { ChildProcess } from 'node:child_process';
import { after, now } from '../clock.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { Backoff } from '../policy/backoff.ts';
import type { WorkerFacts } from './app-kind.ts';
import { onEnd } from './child-end.ts';
import type { ControlConnection, FromPython, HookCall } from './control-server.ts';

export interface MoldHandler {
  spawn(): { readonly serial: number; readonly child: ChildProcess };
  ready(again: boolean): void;
  forked(serial: number, pid: number): void;
  notForked(serial: number): void;
  exited(pid: number, code: number | null, signal: NodeJS.Signals | null): void;
  /** How long it may take until it is ready, and to fork. 0: no limit. */
  bootTimeoutMs(): number;
  /** Gives what the process is doing. */
  stacks(pid: number, done: (stacks: string) => void): void;
  processEnded(serial: number): void;
  /** After `end`: it is gone. */
  ended(): void;
  /** None has ever been ready, and none will. */
  unbootable(code: number | null): void;
  /** A hook failed that nobody waits for: the server is to end with this exit code. */
  hookFailed(code: number): void;
}

/** How long on_exit may take, and exit handlers after it. */
const END_MS = 30_000;

interface MoldProcess {
  readonly serial: number;
  readonly child: ChildProcess;
  readonly startedAt: number;
  control: ControlConnection | null;
  /** Null: it is not ready yet. */
  readyAt: number | null;
  /** How many workers it was asked to fork, and of how many it has told what became of that. */
  asked: number;
  answered: number;
  /** Takes back the limit for what it does. */
  cancelLimit: () => void;
}

export class Mold {
  private readonly handler: MoldHandler;
  private readonly log: ErrorLog;
  private readonly backoff = new Backoff();
  private current: MoldProcess | null = null;
  private everReady = false;
  /** Waiting for the hook that runs, and for those after it: called with an exit code if the hook failed, else null. */
  private readonly hooked: ((code: number | null) => void)[] = [];
  /** It is to end: what the end of its last process gives. */
  private ending: Promise<number | null> | null = null;
  private tellEnd: (code: number | null) => void = () => {};
  private restart: NodeJS.Timeout | null = null;

  constructor(handler: MoldHandler, log: ErrorLog) {
    this.handler = handler;
    this.log = log;
  }

  /** The serial of the process that forks now, or null. */
  get serial(): number | null {
    return this.current?.serial ?? null;
  }

  /** Null: it has no process now. */
  get pid(): number | null {
    return this.current?.child.pid ?? null;
  }

  start(): void {
    const { serial, child } = this.handler.spawn();
    const mold: MoldProcess = {
      serial,
      child,
      startedAt: now(),
      control: null,
      readyAt: null,
      asked: 0,
      answered: 0,
      cancelLimit: () => {},
    };
    this.current = mold;
    this.limit(mold, 'boot', () => mold.readyAt !== null);
    const notStarted = (why: string): void => {
      this.log.error(`Python could not be started: ${why}`);
      this.ended(mold, null);
    };
    onEnd(child, notStarted, (code) => this.ended(mold, code));
  }

  called(connection: ControlConnection): void {
    if (this.current !== null) this.current.control = connection;
  }

  /** False: it is not ready; ask again when it is. */
  fork({ serial, number }: WorkerFacts): boolean {
    const mold = this.current;
    if (mold?.readyAt == null) return false;
    mold.control?.say({ op: 'fork', serial, number });
    if (mold.asked++ === mold.answered) this.limitFork(mold);
    return true;
  }

  /** One that hangs, in what the app has registered to run at a fork, would leave the server without workers. */
  private limitFork(mold: MoldProcess): void {
    const before = mold.answered;
    this.limit(mold, 'fork', () => mold.answered > before);
  }

  private hasForked(mold: MoldProcess | null): void {
    if (mold === null) return;
    mold.answered++;
    mold.cancelLimit();
    if (mold.answered < mold.asked) this.limitFork(mold);
  }

  said(message: FromPython): void {
    if (message.op === 'ready' && this.current !== null) {
      const again = this.everReady;
      this.current.readyAt = now();
      this.current.cancelLimit();
      this.everReady = true;
      this.handler.ready(again);
    } else if (message.op === 'forked') {
      this.hasForked(this.current);
      this.handler.forked(message.serial, message.pid);
    } else if (message.op === 'not-forked') {
      this.hasForked(this.current);
      this.handler.notForked(message.serial);
    } else if (message.op === 'exited') this.handler.exited(message.pid, message.code, message.signal);
    else if (message.op === 'hooked') this.hooked.shift()?.(message.code);
    else if (message.op === 'hook-failed') this.handler.hookFailed(message.code);
  }

  /** Runs a hook in the process that forks now. Resolves with an exit code if it failed, else with null. */
  async call(call: HookCall): Promise<number | null> {
    const control = this.current?.control;
    if (control == null) return null;
    return await new Promise<number | null>((resolve) => {
      this.hooked.push(resolve);
      control.say({ op: 'hook', ...call });
    });
  }

  /** `hook`: on_exit is run first. Resolves with the exit code of its process; null: there was none, or it was killed. */
  end(hook: boolean): Promise<number | null> {
    this.ending ??= new Promise((resolve) => {
      this.tellEnd = (code) => {
        this.handler.ended();
        resolve(code);
      };
      this.leave(hook);
    });
    return this.ending;
  }

  private leave(hook: boolean): void {
    if (this.restart !== null) clearTimeout(this.restart);
    const mold = this.current;
    if (mold === null) this.tellEnd(null);
    else if (mold.readyAt !== null) {
      if (hook) mold.control?.say({ op: 'hook', hook: 'on_exit' });
      mold.control?.say({ op: 'leave', quick: false });
      setTimeout(() => {
        if (this.current !== mold) return;
        this.log.error(`The mold (pid:${mold.child.pid}) did not end within ${END_MS / 1000} s and is killed`);
        mold.child.kill('SIGKILL');
      }, END_MS).unref();
    } else mold.child.kill('SIGKILL'); // it does not hear
  }

  reopenLogs(): void {
    this.current?.control?.say({ op: 'reopen' });
  }

  kill(): void {
    this.current?.child.kill('SIGKILL');
  }

  /** If it does not do so in time something hangs: with --preload the app's import. */
  private limit(mold: MoldProcess, what: 'boot' | 'fork', isDone: () => boolean): void {
    const { child } = mold;
    const limitMs = this.handler.bootTimeoutMs();
    if (limitMs === 0) return;
    const kill = (stacks: string): void => {
      if (isDone()) return; // it did after all
      this.log.critical(
        `The mold (pid:${child.pid}) did not ${what} within ${limitMs / 1000} s (--boot-timeout)\n${stacks}`,
      );
      child.kill('SIGKILL');
    };
    mold.cancelLimit = after(limitMs, () => {
      if (child.pid !== undefined) this.handler.stacks(child.pid, kill);
    });
  }

  private ended(mold: MoldProcess, code: number | null): void {
    const { pid } = mold.child;
    mold.cancelLimit();
    this.current = null;
    this.handler.processEnded(mold.serial);
    for (const resolve of this.hooked.splice(0)) resolve(null);
    if (this.ending !== null) {
      this.tellEnd(code);
      return;
    }
    if (!this.everReady) {
      if (code === null && pid !== undefined) this.log.error(`The mold (pid:${pid}) was killed before it was ready`);
      this.handler.unbootable(code);
      return;
    }
    const delayMs = this.backoff.delayAfter({
      startedAt: mold.startedAt,
      readyAt: mold.readyAt,
      hasBegun: false,
      diedAt: now(),
    });
    if (pid !== undefined)
      this.log.error(`The mold (pid:${pid}) has died; its workers go on until a new one replaces them`);
    if (delayMs > 0) this.log.warning(`The mold is started again in ${delayMs / 1000} s`);
    this.restart = setTimeout(() => this.start(), delayMs);
  }
}
