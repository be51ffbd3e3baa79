/**
 * Listening sockets that outlive the process that accepts. The master binds them and never accepts; a front gets a handle and
 * accepts. While no front lives, connections wait in the kernel.
 *
 * node:cluster cannot do this: it closes a listening socket with its last worker. So this file uses `net._createServerHandle`
 * and `Server#_listen2`, which cluster itself is built on and which have been there in every release since Node 0.6.
 */
import * as net from 'node:net';
import { getSystemErrorName } from 'node:util';

/** A bound socket, as Node's own code holds it. */
export interface ListeningHandle {
  readonly fd: number;
  close(): void;
  getsockname?(out: SocketName): number;
}

export interface SocketName {
  address?: string;
  port?: number;
  family?: string;
}

interface Internals {
  _createServerHandle(
    address: string | null,
    port: number,
    type: 4 | 6 | -1,
    fd?: number,
    flags?: number,
  ): ListeningHandle | number;
}

interface ServerInternals {
  _handle: unknown;
  _listen2(address: null, port: number, type: number, backlog: number, fd: null, flags: number): void;
}

/** Binding failed; `code` is the system's, such as EADDRINUSE. */
export class BindError extends Error {
  readonly code: string;
  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/** Binds to an address of this machine. Throws BindError. */
export function bindTcp(host: string, port: number): ListeningHandle {
  const handle = create(host, port, net.isIPv6(host) ? 6 : 4);
  // libuv keeps EADDRINUSE to itself until listen(); asking for the name brings it out.
  const error = handle.getsockname?.({}) ?? 0;
  if (error < 0) {
    handle.close();
    throw new BindError(getSystemErrorName(error));
  }
  return handle;
}

/** Binds to a path; the file is made with the process's umask. Throws BindError. */
export function bindUnix(path: string): ListeningHandle {
  return create(path, -1, -1);
}

/** A listening socket that this process was started with. Throws BindError if `fd` is none. */
export function adopt(fd: number): ListeningHandle {
  const handle = (net as unknown as Internals)._createServerHandle(null, 0, -1, fd);
  if (typeof handle === 'number') throw new BindError(getSystemErrorName(handle));
  return handle;
}

function create(address: string, port: number, type: 4 | 6 | -1): ListeningHandle {
  const handle = (net as unknown as Internals)._createServerHandle(address, port, type);
  if (typeof handle === 'number') throw new BindError(getSystemErrorName(handle));
  return handle;
}

/** Connections that this process has accepted. */
let accepted = 0;

/**
 * Has `server` accept from a handle that came from the master, past node:cluster. `failed` is called with the system's code if
 * another process, bound there too, was quicker to listen.
 */
export function attachHandle(
  server: net.Server,
  handle: unknown,
  backlog: number,
  listening: () => void,
  failed: (code: string) => void,
): void {
  const refused = ({ code = 'unknown' }: NodeJS.ErrnoException): void => failed(code);
  server.once('error', refused);
  server.once('listening', () => {
    server.off('error', refused);
    listening();
  });
  // Before those who look at a connection first and pass it on later.
  server.prependListener('connection', () => {
    accepted++;
  });
  const internals = server as unknown as ServerInternals;
  internals._handle = handle;
  internals._listen2(null, -1, -1, backlog, null, 0);
}

/**
 * Closes only the handle that `server` accepts from. The server still counts as listening, so that a close() by whoever it
 * belongs to works as ever.
 */
export function stopAccepting(server: net.Server): void {
  ((server as unknown as ServerInternals)._handle as ListeningHandle | null)?.close();
}

/**
 * Calls `then` when the connections that wait in the listening queues have been accepted: closing a socket resets those that
 * are still there. A turn of the event loop accepts one connection of each socket (libuv), so that is after a turn that brought
 * none, or after as many turns as a queue holds connections (`backlog`).
 */
export function afterAccepting(backlog: number, then: () => void): void {
  let turnsLeft = backlog;
  const look = (before: number): void => {
    setImmediate(() => {
      turnsLeft--;
      if (accepted === before || turnsLeft <= 0) then();
      else look(accepted);
    });
  };
  setImmediate(() => look(accepted)); // in the turn that runs now nobody may have looked at the sockets
}
