/** Runs the hooks of the master, one after the other, and keeps the objects that they are given. */
import { EXIT } from '../errors.ts';
import { appStack } from '../node-app/app-stack.ts';
import type { MasterHook } from '../settings/hook-names.ts';
import type { HookFunctions } from './functions.ts';
import type { HookCall, HooksConfig } from './messages.ts';
import {
  type HookLog,
  listenerView,
  renew,
  type ServerView,
  serverView,
  type WorkerView,
  workerView,
} from './views.ts';

/** A hook failed: the server is to end with this exit code. */
export class HookFailed extends Error {
  readonly code: number;

  constructor(code: number) {
    super(`exit code ${code}`);
    this.code = code;
  }
}

export class MasterHooks {
  private readonly server: ServerView;
  private readonly log: HookLog;
  private functions: HookFunctions;
  private readonly load: (config: HooksConfig) => Promise<HookFunctions>;
  private readonly workers = new Map<number, WorkerView>();

  /** `load` runs the file again. */
  constructor(
    config: HooksConfig,
    functions: HookFunctions,
    log: HookLog,
    load: (config: HooksConfig) => Promise<HookFunctions>,
  ) {
    this.server = serverView(config, log);
    this.functions = functions;
    this.log = log;
    this.load = load;
  }

  /** @throws {HookFailed} */
  async start(workers: number, isListening: boolean): Promise<void> {
    const { server } = this;
    server.num_workers = workers;
    await this.run('nworkers_changed', EXIT.ERROR, workers, null);
    await this.run('on_starting', EXIT.ERROR);
    if (isListening) await this.run('when_ready', EXIT.ERROR);
  }

  /** @throws {HookFailed} */
  async call(call: HookCall): Promise<void> {
    const { server } = this;
    switch (call.hook) {
      case 'when_ready':
        server.LISTENERS = call.listeners.map(listenerView);
        return await this.run(call.hook, EXIT.ERROR);
      case 'on_exit':
        server.LISTENERS = [];
        return await this.run(call.hook, EXIT.ERROR);
      case 'pre_exec':
        return await this.run(call.hook, EXIT.HOOK_ERROR);
      case 'nworkers_changed':
        return await this.changeWorkers(call.workers);
      case 'on_reload':
        if (await this.reload(call.config)) await this.changeWorkers(call.config.settings.workers);
        return await this.run(call.hook, EXIT.HOOK_ERROR);
      case 'pre_fork': {
        server.worker_age = call.serial;
        const worker = workerView(server, call.serial, call.number, null);
        this.workers.set(call.serial, worker);
        return await this.run(call.hook, EXIT.HOOK_ERROR, worker);
      }
      case 'child_exit': {
        // One that is older than this process, which has taken the place of another, is not known here.
        const worker = this.workers.get(call.serial) ?? workerView(server, call.serial, call.number, call.pid);
        this.workers.delete(call.serial);
        worker.pid = call.pid;
        if (call.pid !== null) server.WORKERS.delete(call.pid);
        return await this.run(call.hook, EXIT.HOOK_ERROR, worker);
      }
    }
  }

  spawned(serial: number, pid: number): void {
    const worker = this.workers.get(serial);
    if (worker === undefined) return;
    worker.pid = pid;
    this.server.WORKERS.set(pid, worker);
  }

  /** False: the file failed. */
  private async reload(config: HooksConfig): Promise<boolean> {
    try {
      this.functions = await this.load(config);
    } catch (error) {
      this.log.error(`The configuration file failed: the hooks stay as they were\n${appStack(error)}`);
      return false;
    }
    renew(this.server, config);
    return true;
  }

  private async changeWorkers(workers: number): Promise<void> {
    const before = this.server.num_workers;
    this.server.num_workers = workers;
    await this.run('nworkers_changed', EXIT.HOOK_ERROR, workers, before);
  }

  /** `code`: what an error in it means. */
  private async run(name: MasterHook, code: number, ...given: readonly unknown[]): Promise<void> {
    try {
      await this.functions.get(name)?.(this.server, ...given);
    } catch (error) {
      this.log.error(`Exception in ${name} hook\n${appStack(error)}`);
      throw new HookFailed(code);
    }
  }
}
