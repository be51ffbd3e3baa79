/** The hooks that run in a worker of a Node app, and in its threads. */
import type { Server as HttpServer, IncomingMessage, ServerResponse } from 'node:http';
import type { ErrorLog } from '../log/error-log.ts';
import { appStack } from '../node-app/app-stack.ts';
import type { RequestListener } from '../node-app/load.ts';
import { REQUEST_HOOKS } from '../settings/hook-names.ts';
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

  /**
   * For pre_request and post_request in a thread that runs the app: the file is run there too, in the folder that all
   * threads share.
   *
   * @throws whatever the file throws
   */
  static async inThread(config: HooksConfig, age: number, number: number, log: ErrorLog): Promise<WorkerHooks> {
    const hooks = new WorkerHooks(config, await loadFunctions(config.file, 1), age, number, log);
    hooks.worker.booted = true;
    return hooks;
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

  /**
   * `listener` with pre_request and post_request around it; itself where there are none. What pre_request throws is an error of
   * its request.
   */
  around(listener: RequestListener): RequestListener {
    if (!this.hasRequestHooks()) return listener;
    return (request, response) => {
      const begun = this.begin(request, response);
      return begun instanceof Promise ? begun.then(() => listener(request, response)) : listener(request, response);
    };
  }

  /** The same for a server of the app's own. Its first listener is nunicorn's, which counts the request. */
  aroundServer(server: HttpServer): void {
    if (!this.hasRequestHooks()) return;
    const { emit } = server;
    server.emit = (event: string | symbol, ...given: unknown[]): boolean => {
      if (event !== 'request') return Reflect.apply(emit, server, [event, ...given]) as boolean;
      const [request, response] = given as [IncomingMessage, ServerResponse];
      const [counts, ...own] = server.rawListeners('request');
      const run = (): void => {
        for (const listener of own) Reflect.apply(listener, server, given);
      };
      counts?.call(server, request, response);
      try {
        const begun = this.begin(request, response);
        // What the app throws is as uncaught as without the hook.
        if (begun instanceof Promise) {
          begun.then(
            () => process.nextTick(run),
            (error: unknown) => this.refuse(request, response, error),
          );
          return true;
        }
      } catch (error) {
        this.refuse(request, response, error);
        return true;
      }
      run();
      return true;
    };
  }

  private hasRequestHooks(): boolean {
    return REQUEST_HOOKS.some((name) => this.functions.has(name));
  }

  /** What pre_request returns. */
  private begin(request: IncomingMessage, response: ServerResponse): unknown {
    if (this.functions.has('post_request'))
      response.once('close', () => void this.attempt('post_request', this.worker, request, response));
    return this.functions.get('pre_request')?.(this.worker, request);
  }

  private refuse(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    this.log.error(`Error handling request ${request.method} ${request.url}\n${appStack(error)}`);
    response.writeHead(500, { 'Content-Type': 'text/plain', Connection: 'close' }).end('Internal Server Error\n');
  }

  private async attempt(
    name: 'worker_int' | 'worker_abort' | 'worker_exit' | 'post_request',
    ...given: unknown[]
  ): Promise<void> {
    try {
      await this.functions.get(name)?.(...given);
    } catch (error) {
      this.log.error(`Exception in ${name} hook\n${appStack(error)}`);
    }
  }
}
