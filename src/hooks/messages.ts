/** What the master tells the process of the hooks, and a Node app's worker that has hooks. */
import type { ErrorLogSettings } from '../log/error-log.ts';
import type { NodeHooks } from '../settings/config-file.ts';
import type { Settings } from '../settings/table.ts';

export interface ListenerFacts {
  readonly url: string;
  readonly address: readonly [string, number] | string;
}

export interface HooksConfig {
  readonly file: NodeHooks;
  /** The folder the server was started in. */
  readonly cwd: string;
  readonly settings: Settings;
  /** As the user named it. */
  readonly app: string;
  readonly masterPid: number;
  readonly address: readonly (readonly [string, number] | string)[];
  /** Empty: none is open yet. */
  readonly listeners: readonly ListenerFacts[];
  readonly errorLog: ErrorLogSettings;
  readonly title: string;
}

/** A hook of the master, and what it is told. */
export type HookCall =
  | { readonly hook: 'when_ready'; readonly listeners: readonly ListenerFacts[] }
  | { readonly hook: 'nworkers_changed'; readonly workers: number }
  | { readonly hook: 'on_reload'; readonly config: HooksConfig }
  | { readonly hook: 'pre_fork'; readonly serial: number; readonly number: number }
  | { readonly hook: 'child_exit'; readonly serial: number; readonly number: number; readonly pid: number | null }
  | { readonly hook: 'pre_exec' | 'on_exit' };

export type ToHooks =
  /** Runs what comes before an address is listened at; with `config.listeners`, what comes after it too. */
  | { readonly op: 'start'; readonly config: HooksConfig }
  | ({ readonly op: 'hook' } & HookCall)
  | { readonly op: 'spawned'; readonly serial: number; readonly pid: number }
  | { readonly op: 'reopen' }
  | { readonly op: 'leave' };

export type FromHooks =
  /** The hooks of the start have run. One that failed ends the process with the server's exit code instead. */
  | { readonly op: 'ready' }
  /** One answer for each `hook`, in their order. `code`: it failed, and the server is to end with this exit code. */
  | { readonly op: 'hooked'; readonly code: number | null };
