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
  | { readonly kind: 'server'; readonly server: HttpServer };

/** How long an app that exports nothing may go without a listen() before the log says so. */
const SILENT_MS = 10_000;

type Exports = Readonly<Record<string, unknown>>;

/**
 * @param warn called once if nothing happens for long
 * @param listensLater the app is exported and served, and its own server is to listen too
 * @throws {NunicornError} if what it exports is no app; and whatever the app's module throws. What it throws later is uncaught.
 */
export async function loadApp(
  app: NodeAppUri,
  warn: (text: string) => void,
  listensLater: (server: HttpServer) => void,
): Promise<LoadedApp> {
  const listens = holdListens();
  let exports: Exports | null = null;
  const importing = (import(pathToFileURL(app.path).href) as Promise<Exports>).then((found) => {
    exports = found;
    return found;
  });
  await Promise.race([importing, listens.first]);
  if (listens.any) {
    // A program may wait at its top level for what it listens with, but most have run to their end by now.
    await Promise.race([importing, nextTurn()]);
    importing.catch(throwUncaught);
    return taken(listens.take(exports === null ? undefined : exportOf(exports, app)));
  }
  const exported = exportOf(await importing, app);
  const found = await resolveApp(exported, app);
  // A factory may have called listen().
  if (listens.any) return taken(listens.take(exported));
  if (found !== null) {
    listens.leave(await exported, listensLater);
    return found;
  }
  const timer = setTimeout(() => warn(silence(app)), SILENT_MS).unref();
  await listens.first;
  clearTimeout(timer);
  return taken(listens.take(exported));
}

function taken(server: HttpServer): LoadedApp {
  return { kind: 'server', server };
}

async function nextTurn(): Promise<void> {
  await new Promise((done) => setImmediate(done));
}

/** As node does with a program whose top level fails. */
function throwUncaught(error: unknown): void {
  process.nextTick(() => {
    throw error;
  });
}

/** Of an app that exports nothing and has not called listen(). */
export function silence(app: NodeAppUri): string {
  return (
    `${describe(app)} exports no app and has called no listen() (what waits for require.main === module or ` +
    'import.meta.main does not run here; a configuration file is named with -c)'
  );
}

function exportOf(namespace: Exports, app: NodeAppUri): unknown {
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
    return { kind: 'server', server: value as HttpServer };
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

interface HeldListens {
  readonly any: boolean;
  /** There is one. */
  readonly first: Promise<void>;
  /** The server that is served at --bind, whatever address the app named. The others listen where they say. */
  take(exported: unknown): HttpServer;
  /** From now on every listen() is Node's own, but for servers of what is exported: these are `later`'s. */
  leave(exported: unknown, later: (server: HttpServer) => void): void;
}

/** Catches each listen() of an HTTP server, until it is known which of them is the app's. */
function holdListens(): HeldListens {
  const listen = NetServer.prototype.listen;
  const held: { readonly server: HttpServer; readonly args: readonly unknown[] }[] = [];
  let resolve: () => void = () => {};
  const first = new Promise<void>((done) => {
    resolve = done;
  });
  NetServer.prototype.listen = function (this: NetServer, ...args: unknown[]): NetServer {
    if (!(this instanceof HttpServer || this instanceof HttpsServer)) {
      return listen.apply(this, args as [ListenOptions]);
    }
    held.push({ server: this as HttpServer, args });
    resolve();
    return this;
  } as typeof listen;
  return {
    get any() {
      return held.length > 0;
    },
    first,
    take: (exported) => {
      NetServer.prototype.listen = listen;
      const own = held.find(({ server }) => isOf(exported, server)) ?? held[0];
      if (own === undefined) throw new Error('nothing listens');
      tellWhenListening(own.server, own.args);
      for (const { server, args } of held) if (server !== own.server) listen.apply(server, args as [ListenOptions]);
      return own.server;
    },
    leave: (exported, later) => {
      NetServer.prototype.listen = function (this: NetServer, ...args: unknown[]): NetServer {
        const server = this as HttpServer;
        if (!isOf(exported, server)) return listen.apply(this, args as [ListenOptions]);
        tellWhenListening(server, args);
        later(server);
        return this;
      } as typeof listen;
    },
  };
}

function tellWhenListening(server: HttpServer, args: readonly unknown[]): void {
  const callback = args.at(-1);
  if (isFunction(callback)) server.once('listening', callback as () => void);
}

/** What the module exports is the server, has it (Fastify), or is the listener of its requests (Express). */
function isOf(exported: unknown, server: HttpServer): boolean {
  if (isFunction(exported) && server.listeners('request').includes(exported)) return true;
  return exported === server || (isObject(exported) && exported.server === server);
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
