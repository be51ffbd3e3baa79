/** The process in which hooks of the master run that are functions of a nunicorn.config file: started, restarted, ended. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { now } from '../clock.ts';
import { EXIT } from '../errors.ts';
import type { FromHooks, HookCall, HooksConfig, ToHooks } from '../hooks/messages.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { Backoff } from '../policy/backoff.ts';
import { onEnd } from './child-end.ts';
import { startChild } from './child-start.ts';

export interface HookProcessHandler {
  /** For the process that is about to be started. */
  config(): HooksConfig;
  /** The first one has run the hooks of the start. */
  ready(): void;
  /** A hook failed: the server is to end with this exit code. */
  failed(code: number): void;
}

/** Called with an exit code if the hook failed, else with null. */
type Done = (code: number | null) => void;

const MAIN = fileURLToPath(new URL('../hooks/main.js', import.meta.url));
const TITLE_ROOM = ' '.repeat(120);
/** How long on_exit may take, and exit handlers after it. */
const END_MS = 30_000;

export class HookProcess {
  private readonly handler: HookProcessHandler;
  private readonly log: ErrorLog;
  private readonly backoff = new Backoff();
  private child: ChildProcess | null = null;
  private startedAt = 0;
  private isReady = false;
  private everReady = false;
  /** Hooks that the process was told to run and has not answered. */
  private readonly running: Done[] = [];
  /** While there is no process that could run them. */
  private readonly waiting: { readonly call: HookCall; readonly done: Done }[] = [];
  private ended: (() => void) | null = null;

  constructor(handler: HookProcessHandler, log: ErrorLog) {
    this.handler = handler;
    this.log = log;
  }

  start(): void {
    const config = this.handler.config();
    const child = startChild(() =>
      fork(MAIN, [TITLE_ROOM], {
        cwd: config.cwd,
        // A group of its own: Ctrl-C reaches the master alone.
        detached: true,
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      }),
    );
    this.child = child;
    this.startedAt = now();
    child.on('message', (message: FromHooks) => this.said(message));
    onEnd(
      child,
      (why) => this.gone(`could not be started: ${why}`, null),
      (code, signal) => this.gone(`(pid:${child.pid}) ended (${signal ?? `exit code ${code}`})`, code),
    );
    this.say({ op: 'start', config });
  }

  /** Runs a hook, after those asked for before. */
  async call(call: HookCall): Promise<number | null> {
    return await new Promise<number | null>((done) => {
      if (this.isReady) this.run(call, done);
      else this.waiting.push({ call, done });
    });
  }

  say(message: ToHooks): void {
    if (this.child?.connected) this.child.send(message);
  }

  /** `hook`: on_exit is run first. */
  async end(hook: boolean): Promise<void> {
    const { child } = this;
    const gone = new Promise<void>((resolve) => {
      this.ended = resolve;
    });
    if (child === null) return;
    if (!this.isReady) {
      child.kill('SIGKILL'); // it does not hear
      return await gone;
    }
    const limit = setTimeout(() => {
      this.log.error(`The process of the hooks (pid:${child.pid}) did not end within ${END_MS / 1000} s and is killed`);
      child.kill('SIGKILL');
    }, END_MS);
    const code = hook ? await this.call({ hook: 'on_exit' }) : null;
    if (code !== null) this.handler.failed(code);
    this.say({ op: 'leave' });
    await gone;
    clearTimeout(limit);
  }

  kill(): void {
    this.child?.kill('SIGKILL');
  }

  private run(call: HookCall, done: Done): void {
    this.running.push(done);
    this.say({ op: 'hook', ...call });
  }

  private said(message: FromHooks): void {
    if (message.op === 'hooked') {
      this.running.shift()?.(message.code);
      return;
    }
    this.isReady = true;
    for (const { call, done } of this.waiting.splice(0)) this.run(call, done);
    if (this.everReady) return;
    this.everReady = true;
    this.handler.ready();
  }

  private gone(how: string, code: number | null): void {
    const { isReady, startedAt } = this;
    const wasRunning = this.running.splice(0);
    this.child = null;
    this.isReady = false;
    if (this.ended === null && code !== null && (!this.everReady || wasRunning.length > 0)) {
      // process.exit() in a hook, or an error in its background.
      this.handler.failed(code);
    } else if (this.ended === null && !this.everReady) {
      this.log.error(`The process of the hooks ${how} before it was ready`);
      this.handler.failed(EXIT.ERROR);
    } else if (this.ended === null) {
      this.log.error(`The process of the hooks ${how}: another one is started`);
      const readyAt = isReady ? startedAt : null;
      const delayMs = this.backoff.delayAfter({ startedAt, readyAt, hasBegun: false, diedAt: now() });
      setTimeout(() => {
        if (this.ended === null && this.child === null) this.start();
      }, delayMs);
    }
    for (const done of wasRunning) done(null);
    this.ended?.();
  }
}
