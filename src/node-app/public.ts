/** What an app can import from 'nunicorn'. Outside of nunicorn the functions do nothing, so that the app runs under node too. */

/** Called when the worker is to leave: all its requests have been answered. A promise is waited for. */
export type ShutdownHook = () => unknown;

/** Between this module, which an app may load from any copy of the package, and the worker that runs the app. */
export interface AppBridge {
  ready(): void;
  onShutdown(hook: ShutdownHook): void;
}

const KEY = Symbol.for('nunicorn.app');

export function setAppBridge(bridge: AppBridge): void {
  Object.defineProperty(globalThis, KEY, { value: bridge, configurable: true });
}

function bridge(): AppBridge | undefined {
  return (globalThis as { [KEY]?: AppBridge })[KEY];
}

/** Says that the app is ready for requests. With `--wait-ready` none comes before. */
export function ready(): void {
  bridge()?.ready();
}

/**
 * Has `hook` called when the worker, or the thread, is to end: after its last request, before the process exits. It may take
 * what is left of `--graceful-timeout`.
 */
export function onShutdown(hook: ShutdownHook): void {
  bridge()?.onShutdown(hook);
}
