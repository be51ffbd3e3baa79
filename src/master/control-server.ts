/** Where every Python process calls first, and stays connected: what master and worker say to each other, a JSON object a line. */
import { timingSafeEqual } from 'node:crypto';
import { lchownSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';

import type { AppMetric } from '../metrics/app-metrics.ts';
import type { FileTimes } from './code-watch.ts';

export type FromPython =
  | { readonly op: 'imported' }
  | { readonly op: 'ready' }
  /** With --reload: files that the app consists of. */
  | { readonly op: 'files'; readonly files: FileTimes }
  | { readonly op: 'pong' }
  /** Where its threads are, if it was asked. */
  | { readonly op: 'stacks'; readonly text: string }
  /** The worker was sent a signal that asks it to go, or a hook of the app wants it to. */
  | { readonly op: 'leaving'; readonly why: string }
  /** The threads that run requests, as the system numbers them, and the address of the interpreter's lock (hexadecimal). */
  | { readonly op: 'threads'; readonly ids: readonly number[]; readonly gil: string | null }
  /** The app's own metrics: the first time unasked, then whenever it is asked for. */
  | { readonly op: 'metrics'; readonly metrics: readonly AppMetric[] }
  /** Of the mold. */
  | { readonly op: 'forked'; readonly serial: number; readonly pid: number }
  /** The system had no process for the worker. */
  | { readonly op: 'not-forked'; readonly serial: number }
  | {
      readonly op: 'exited';
      readonly pid: number;
      readonly code: number | null;
      readonly signal: NodeJS.Signals | null;
    }
  /** A hook has run that was asked for. `code`: it failed, and the server is to end with this exit code. */
  | { readonly op: 'hooked'; readonly code: number | null }
  /** pre_fork or child_exit failed. */
  | { readonly op: 'hook-failed'; readonly hook: string; readonly code: number };

export type ToPython =
  /** `quick`: a shutdown that does not wait for requests. */
  | { readonly op: 'leave'; readonly quick: boolean }
  /** It has not left, or cannot. */
  | { readonly op: 'abort' }
  | { readonly op: 'reopen' }
  | { readonly op: 'metrics' }
  | { readonly op: 'ping' }
  | { readonly op: 'stacks' }
  /** To the mold. */
  | { readonly op: 'fork'; readonly serial: number; readonly number: number }
  | ({ readonly op: 'hook' } & HookCall);

/** A hook of the master, and what it is told. */
export type HookCall =
  | { readonly hook: 'when_ready'; readonly listeners: readonly { readonly url: string; readonly address: unknown }[] }
  | { readonly hook: 'nworkers_changed'; readonly workers: number }
  /** With the new settings of the process. */
  | { readonly hook: 'on_reload'; readonly process: object }
  | { readonly hook: 'pre_exec' | 'on_exit' };

export interface ControlConnection {
  say(message: ToPython | object): void;
}

export interface ControlHandler {
  /** A process has called that proved itself. Whoever it is gets its settings by `connection.say`. */
  called(serial: number, pid: number, connection: ControlConnection): void;
  said(serial: number, message: FromPython): void;
  hungUp(serial: number): void;
}

const GREETING_LIMIT_BYTES = 4096;

export class ControlServer {
  readonly path: string;
  private readonly token: Buffer;
  private readonly handler: ControlHandler;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();

  constructor(path: string, token: string, handler: ControlHandler) {
    this.path = path;
    this.token = Buffer.from(token);
    this.handler = handler;
    this.server = createServer((socket) => this.connected(socket));
    // A process that could not be accepted does not boot, and is replaced.
    this.server.on('error', () => {});
  }

  /** `owner`: the user and group of the workers, where they are others than the master's. */
  async listen(owner: { uid: number; gid: number } | null): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(this.path, resolve);
    });
    if (owner !== null) lchownSync(this.path, owner.uid, owner.gid);
  }

  close(): void {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }

  private connected(socket: Socket): void {
    this.sockets.add(socket);
    let rest = '';
    let serial: number | null = null;
    socket.setEncoding('utf8');
    socket.on('error', () => {});
    socket.on('close', () => {
      this.sockets.delete(socket);
      if (serial !== null) this.handler.hungUp(serial);
    });
    socket.on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      if (serial === null && rest.length > GREETING_LIMIT_BYTES) socket.destroy();
      for (const line of lines) {
        const message = parse(line);
        if (serial === null) {
          serial = this.greeted(socket, message);
          if (serial === null) return;
        } else if (message !== null) this.handler.said(serial, message as FromPython);
      }
    });
  }

  private greeted(socket: Socket, message: unknown): number | null {
    const { token, serial, pid } = (message ?? {}) as { token?: string; serial?: number; pid?: number };
    const proof = Buffer.from(String(token));
    if (
      proof.length !== this.token.length ||
      !timingSafeEqual(proof, this.token) ||
      serial === undefined ||
      pid === undefined
    ) {
      socket.destroy();
      return null;
    }
    this.handler.called(serial, pid, { say: (answer) => void socket.write(`${JSON.stringify(answer)}\n`) });
    return serial;
  }
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}
