/** The hooks that run in a worker of a Node app. */
import type { ErrorLog } from '../log/error-log.ts';
import { appStack } from '../node-app/app-stack.ts';
import { type HookFunctions, loadFunctions } from './functions.ts';
import type { HooksConfig } from './messages.ts';
import { type ServerView, serverView, type WorkerView, workerView } from './views.ts';

export class WorkerHooks {
  private readonly functions: HookFunctions;
  private readonly server: ServerView;
  private readonly worker: WorkerView;
  private readonly log: ErrorLog;

  /**
   * Runs the file in this process, in the folder that the server was started in.
   *
   * @param age the serial of the worker
   * @throws whatever the file throws
   */
  static async open(config: HooksConfig, age: number, number: number, log: ErrorLog): Promise<WorkerHooks> {
    process.chdir(config.cwd);
    const functions = await loadFunctions(config.file, 1);
    process.chdir(config.settings.chdir);
    return new WorkerHooks(config, functions, age, number, log);
  }

  private constructor(config: HooksConfig, functions: HookFunctions, age: number, number: number, log: ErrorLog) {
    this.functions = functions;
    this.log = log;
    this.server = serverView(config, log);
    this.worker = workerView(this.server, age, number, process.pid);
  }

  /** Before the app is imported. @throws whatever post_fork throws: the worker does not boot */
  async forked(): Promise<void> {
    await this.functions.get('post_fork')?.(this.server, this.worker);
  }

  /** The app is imported. @throws whatever post_worker_init throws: the worker does not boot */
  async imported(): Promise<void> {
    await this.functions.get('post_worker_init')?.(this.worker);
    this.worker.booted = true;
  }

  /** The worker is told to stop at once. */
  async interrupted(): Promise<void> {
    await this.attempt('worker_int', this.worker);
  }

  /** It did not leave in time, and is about to be killed. */
  async aborted(): Promise<void> {
    this.worker.aborted = true;
    await this.attempt('worker_abort', this.worker);
  }

  async leaving(): Promise<void> {
    await this.attempt('worker_exit', this.server, this.worker);
  }

  private async attempt(name: 'worker_int' | 'worker_abort' | 'worker_exit', ...given: unknown[]): Promise<void> {
    try {
      await this.functions.get(name)?.(...given);
    } catch (error) {
      this.log.error(`Exception in ${name} hook\n${appStack(error)}`);
    }
  }
}
