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
  end(): void;
}

export interface ControlHandler {
  /** A process has called that proved itself. Whoever it is gets its settings by `connection.say`. */
  called(serial: number, pid: number, connection: ControlConnection): void;
  said(serial: number, message: FromPython): void;
  hungUp(serial: number): void;
}

const GREETING_LIMIT = 4096;
/** Of a line, in characters: metrics of an app are the longest. */
const LINE_LIMIT = 64 * 1024 * 1024;

export class ControlServer {
  readonly path: string;
  private readonly token: Buffer;
  private readonly handler: ControlHandler;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  /** Of processes that are connected: nobody else is heard in their place. */
  private readonly serials = new Set<number>();

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
      if (serial === null) return;
      this.serials.delete(serial);
      this.handler.hungUp(serial);
    });
    socket.on('data', (text: string) => {
      rest += text;
      if (!text.includes('\n')) {
        if (rest.length > (serial === null ? GREETING_LIMIT : LINE_LIMIT)) socket.destroy();
        return;
      }
      const lines = rest.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const message = parse(line);
        if (serial === null) {
          serial = this.greeted(socket, message);
          if (serial === null) return;
        } else if (isFromPython(message)) this.handler.said(serial, message);
      }
    });
  }

  private greeted(socket: Socket, message: unknown): number | null {
    const { token, serial, pid } = (message ?? {}) as { token?: unknown; serial?: unknown; pid?: unknown };
    const proof = Buffer.from(String(token));
    if (
      proof.length !== this.token.length ||
      !timingSafeEqual(proof, this.token) ||
      !isNumber(serial) ||
      !isNumber(pid) ||
      this.serials.has(serial)
    ) {
      socket.destroy();
      return null;
    }
    this.serials.add(serial);
    this.handler.called(serial, pid, {
      say: (answer) => void socket.write(`${JSON.stringify(answer)}\n`),
      end: () => void socket.end(),
    });
    return serial;
  }
}

type Check = (value: unknown) => boolean;
const isNumber = (value: unknown): value is number => Number.isSafeInteger(value);
const isText: Check = (value) => typeof value === 'string';
const isAmount: Check = (value) => typeof value === 'number';
const listOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check);
const orNull =
  (check: Check): Check =>
  (value) =>
    value === null || check(value);
const orNone =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);
const oneOf =
  (...texts: readonly string[]): Check =>
  (value) =>
    texts.includes(value as string);
const withFields =
  (fields: Readonly<Record<string, Check>>): Check =>
  (value) =>
    typeof value === 'object' &&
    value !== null &&
    Object.entries(fields).every(([name, check]) => check((value as Record<string, unknown>)[name]));

const isSeries: Check = (value) =>
  Array.isArray(value) && listOf(isText)(value[0]) && (isAmount(value[1]) || listOf(isAmount)(value[1]));
const isMetric = withFields({
  // One of ours, or what is no name, would spoil what Prometheus reads.
  name: (name) => /^(?!nunicorn_)[a-zA-Z_:][\w:]*$/.test(String(name)),
  kind: oneOf('counter', 'gauge', 'histogram'),
  help: isText,
  labels: listOf((label) => /^[a-zA-Z_]\w*$/.test(String(label))),
  series: listOf(isSeries),
  across: orNone(oneOf('sum', 'max', 'min')),
  buckets: orNone(listOf(isAmount)),
});

/** What comes may be the app's word, and the app somebody else's by now. */
const SHAPES: Readonly<Record<FromPython['op'], Check>> = {
  imported: () => true,
  ready: () => true,
  files: withFields({
    files: (files) => typeof files === 'object' && files !== null && Object.values(files).every(isAmount),
  }),
  pong: () => true,
  stacks: withFields({ text: isText }),
  leaving: withFields({ why: isText }),
  threads: withFields({ ids: listOf(isNumber), gil: orNull((gil) => /^0x[0-9a-f]{1,16}$/.test(String(gil))) }),
  metrics: withFields({ metrics: listOf(isMetric) }),
  forked: withFields({ serial: isNumber, pid: isNumber }),
  'not-forked': withFields({ serial: isNumber }),
  exited: withFields({ pid: isNumber, code: orNull(isAmount), signal: orNull(isText) }),
  hooked: withFields({ code: orNull(isAmount) }),
  'hook-failed': withFields({ hook: isText, code: isAmount }),
};

function isFromPython(message: unknown): message is FromPython {
  const { op } = (message ?? {}) as { readonly op?: unknown };
  return typeof op === 'string' && Object.hasOwn(SHAPES, op) && SHAPES[op as FromPython['op']](message);
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}
