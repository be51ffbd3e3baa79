/** What users import from 'nunicorn': `defineConfig` in a nunicorn.config.ts, `ready` and `onShutdown` in a Node app. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { HookServer, HookWorker } from './hooks/views.ts';
import type { HookName } from './settings/hook-names.ts';
import type { SettingName, ValueOf } from './settings/table.ts';

export type { HookListener, HookLog, HookServer, HookWorker } from './hooks/views.ts';
export { onShutdown, ready, type ShutdownHook } from './node-app/public.ts';

/** A list may be one text, a number may be text: as on the command line. */
type Given<T> = T | (T extends readonly string[] | number ? string : never);

/** Server hooks, as functions or by the dotted name of one in Python. A promise is waited for. */
interface Hooks {
  on_starting?(server: HookServer): unknown;
  when_ready?(server: HookServer): unknown;
  on_reload?(server: HookServer): unknown;
  /** `old` is null at the start. */
  nworkers_changed?(server: HookServer, now: number, old: number | null): unknown;
  pre_fork?(server: HookServer, worker: HookWorker): unknown;
  child_exit?(server: HookServer, worker: HookWorker): unknown;
  pre_exec?(server: HookServer): unknown;
  on_exit?(server: HookServer): unknown;
  post_fork?(server: HookServer, worker: HookWorker): unknown;
  post_worker_init?(worker: HookWorker): unknown;
  /** Of a Node app, as the next one: in the thread that runs the request. */
  pre_request?(worker: HookWorker, req: IncomingMessage): unknown;
  /** The answer has been sent, or the client has left. */
  post_request?(worker: HookWorker, req: IncomingMessage, resp: ServerResponse): unknown;
  worker_int?(worker: HookWorker): unknown;
  worker_abort?(worker: HookWorker): unknown;
  worker_exit?(server: HookServer, worker: HookWorker): unknown;
}

/** Every setting under its name, each optional; docs/settings.md describes them. */
export type Config = {
  readonly [Name in Exclude<SettingName, HookName>]?: Given<ValueOf<Name>>;
} & {
  readonly [Name in HookName]?: ValueOf<Name> | (Name extends keyof Hooks ? Hooks[Name] : never);
};

/** The configuration itself; what it is good for is that the editor knows the names and types. */
export function defineConfig(config: Config): Config {
  return config;
}
