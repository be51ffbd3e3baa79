/** Gunicorn's server hooks by name, and what each is called with as a function of JavaScript: there is no environ. */

/** The hooks that run where workers are started, as in gunicorn's master. */
const MASTER_HOOK_ARGUMENTS = {
  on_starting: ['server'],
  when_ready: ['server'],
  on_reload: ['server'],
  nworkers_changed: ['server', 'new', 'old'],
  pre_fork: ['server', 'worker'],
  child_exit: ['server', 'worker'],
  pre_exec: ['server'],
  on_exit: ['server'],
} as const;

/** The hooks that run in a worker. */
const WORKER_HOOK_ARGUMENTS = {
  post_fork: ['server', 'worker'],
  post_worker_init: ['worker'],
  pre_request: ['worker', 'req'],
  post_request: ['worker', 'req', 'resp'],
  worker_int: ['worker'],
  worker_abort: ['worker'],
  worker_exit: ['server', 'worker'],
} as const;

export type MasterHook = keyof typeof MASTER_HOOK_ARGUMENTS;
export type WorkerHook = keyof typeof WORKER_HOOK_ARGUMENTS;
export type HookName = MasterHook | WorkerHook;

const ARGUMENTS: Readonly<Record<string, readonly string[]>> = { ...MASTER_HOOK_ARGUMENTS, ...WORKER_HOOK_ARGUMENTS };

export const MASTER_HOOKS = Object.keys(MASTER_HOOK_ARGUMENTS) as readonly MasterHook[];
export const WORKER_HOOKS = Object.keys(WORKER_HOOK_ARGUMENTS) as readonly WorkerHook[];

/** The hooks of a worker that are called for each request. */
export const REQUEST_HOOKS = ['pre_request', 'post_request'] as const satisfies readonly WorkerHook[];

/** What the hook of that name is called with; undefined: there is no such hook. */
export function hookArguments(name: string): readonly string[] | undefined {
  return Object.hasOwn(ARGUMENTS, name) ? ARGUMENTS[name] : undefined;
}
