/** Imports a Node app and finds out what it is: what it exports, or what it listens with. */
import { Server as HttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { Server as HttpsServer } from 'node:https';
import { type ListenOptions, Server as NetServer } from 'node:net';
import { pathToFileURL } from 'node:url';
import { EXIT, NunicornError } from '../errors.ts';
import type { NodeAppUri } from '../settings/app.ts';
import { type FetchHandler, listenerOf } from './fetch-listener.ts';

export type RequestListener = (request: IncomingMessage, response: ServerResponse) => unknown;

export type LoadedApp =
  | { readonly kind: 'listener'; readonly listener: RequestListener }
  /** The app has made a server of its own and called its listen(), or exported it. */
  | { readonly kind: 'server'; readonly server: HttpServer; readonly listened: boolean };

/** How long an app that exports nothing may go without a listen() before the log says so. */
const SILENT_MS = 10_000;

/**
 * @param warn called once if nothing happens for long
 * @throws {NunicornError} if what it exports is no app; and whatever the app's module throws
 */
export async function loadApp(app: NodeAppUri, warn: (text: string) => void): Promise<LoadedApp> {
  const listened = firstListen();
  const importing = import(pathToFileURL(app.path).href) as Promise<Readonly<Record<string, unknown>>>;
  // A program may wait for its listen() at its top level.
  await Promise.race([importing, listened.promise]);
  const server = listened.server;
  if (server !== null) return { kind: 'server', server, listened: true };
  const exported = exportOf(await importing, app);
  const found = await resolveApp(exported, app);
  // A factory may have called listen().
  const later = listened.server;
  if (later !== null) return { kind: 'server', server: later, listened: true };
  if (found !== null) {
    listened.cancel();
    return found;
  }
  const timer = setTimeout(() => warn(silence(app)), SILENT_MS).unref();
  const first = await listened.promise;
  clearTimeout(timer);
  return { kind: 'server', server: first, listened: true };
}

/** Of an app that exports nothing and has not called listen(). */
export function silence(app: NodeAppUri): string {
  return (
    `${describe(app)} exports no app and has called no listen() (what waits for require.main === module or ` +
    'import.meta.main does not run here; a configuration file is named with -c)'
  );
}

function exportOf(namespace: Readonly<Record<string, unknown>>, app: NodeAppUri): unknown {
  const main = namespace.default;
  if (app.name !== null) {
    const named = namespace[app.name] ?? (isObject(main) ? main[app.name] : undefined);
    if (named !== undefined) return named;
    const names = Object.keys(namespace).filter((name) => name !== 'module.exports');
    throw new NunicornError(
      `${app.path} has no export '${app.name}'; it has ${names.join(', ') || 'none'}`,
      EXIT.APP_LOAD_ERROR,
    );
  }
  // What a compiler has made of `export default` for require().
  if (isObject(main) && '__esModule' in main && 'default' in main) return main.default;
  // A namespace of require() that is empty: nothing was exported.
  if (isObject(main) && Object.getPrototypeOf(main) === Object.prototype && Object.keys(main).length === 0)
    return undefined;
  return main;
}

/** Null: nothing is exported, so the program is to call listen(). */
async function resolveApp(exported: unknown, app: NodeAppUri): Promise<LoadedApp | null> {
  const value = await exported;
  if (value === undefined || value === null) return null;
  const known = await appOf(value);
  if (known !== null) return known;
  if (typeof value === 'function' && value.length === 0) {
    const made = await value();
    if (made === undefined || made === null) return null;
    const second = await appOf(made);
    if (second !== null) return second;
    throw notAnApp(app, `what its factory returned (${typeof made})`);
  }
  if (app.name === null && isObject(value) && Object.getPrototypeOf(value) === Object.prototype) return null;
  throw notAnApp(app, typeof value);
}

function notAnApp(app: NodeAppUri, what: string): NunicornError {
  return new NunicornError(
    `${describe(app)} is no app but ${what}: a (request, response) listener, a fetch(request) function, an object with fetch(), ` +
      'a function without parameters that returns one of these, or a program that calls listen() is needed',
    EXIT.APP_LOAD_ERROR,
  );
}

/** What a value is by its shape. A function with two parameters or more is a listener, with one a fetch handler. */
async function appOf(value: unknown): Promise<LoadedApp | null> {
  if (value instanceof HttpServer || value instanceof HttpsServer) {
    return { kind: 'server', server: value as HttpServer, listened: false };
  }
  if (isObject(value)) {
    const { fetch, routing, ready, callback, middleware } = value;
    if (isFunction(routing) && isFunction(ready)) {
      await ready.call(value); // Fastify
      return { kind: 'listener', listener: (request, response) => routing.call(value, request, response) };
    }
    if (isFunction(callback) && Array.isArray(middleware)) {
      return { kind: 'listener', listener: callback.call(value) as RequestListener }; // Koa
    }
    if (isFunction(fetch)) {
      return {
        kind: 'listener',
        listener: listenerOf((request) => fetch.call(value, request) as ReturnType<FetchHandler>),
      };
    }
  }
  if (typeof value !== 'function' || value.length === 0) return null;
  return value.length === 1
    ? { kind: 'listener', listener: listenerOf(value as FetchHandler) }
    : { kind: 'listener', listener: value as RequestListener };
}

interface FirstListen {
  /** The server whose listen() was called. */
  readonly server: HttpServer | null;
  readonly promise: Promise<HttpServer>;
  /** From now on every listen() is Node's own. */
  cancel(): void;
}

/**
 * Catches the first listen() of an HTTP server: that server is served at --bind, whatever address the app named. All further
 * ones listen where they say.
 */
function firstListen(): FirstListen {
  const listen = NetServer.prototype.listen;
  let server: HttpServer | null = null;
  let resolve: (server: HttpServer) => void = () => {};
  const promise = new Promise<HttpServer>((done) => {
    resolve = done;
  });
  const cancel = (): void => {
    NetServer.prototype.listen = listen;
  };
  NetServer.prototype.listen = function (this: NetServer, ...args: unknown[]): NetServer {
    if (!(this instanceof HttpServer || this instanceof HttpsServer)) {
      return listen.apply(this, args as [ListenOptions]);
    }
    cancel();
    const callback = args.at(-1);
    if (isFunction(callback)) this.once('listening', callback as () => void);
    server = this as HttpServer;
    resolve(server);
    return this;
  } as typeof listen;
  return {
    get server() {
      return server;
    },
    promise,
    cancel,
  };
}

function describe({ path, name }: NodeAppUri): string {
  return name === null ? path : `${path}:${name}`;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return (typeof value === 'object' || typeof value === 'function') && value !== null;
}

type AnyFunction = (this: unknown, ...args: unknown[]) => unknown;

function isFunction(value: unknown): value is AnyFunction {
  return typeof value === 'function';
}
