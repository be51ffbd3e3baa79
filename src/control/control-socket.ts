/** The control socket (--control-socket): a Unix socket of the operator's, to ask the master and to tell it. */
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { EXIT, NunicornError } from '../errors.ts';
import { listenFailure } from '../listen-failure.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { checkSocketPath } from '../settings/address.ts';
import { listenWithMode } from '../socket-mode.ts';
import { removeStaleSocket } from '../stale-socket.ts';
import { CommandError, runCommand } from './commands.ts';
import { type ControlAnswer, encodeMessage, MessageDecoder } from './protocol.ts';
import type { ControlTarget } from './target.ts';

/** As Gunicorn. */
const IDLE_MS = 300_000;

export class ControlSocket {
  private readonly path: string;
  private readonly mode: number;
  private readonly log: ErrorLog;
  private readonly target: ControlTarget;
  private readonly server: Server;
  private readonly connections = new Set<Socket>();

  constructor(path: string, mode: number, target: ControlTarget, log: ErrorLog) {
    this.path = path;
    this.mode = mode;
    this.target = target;
    this.log = log;
    this.server = createServer((socket) => this.accept(socket));
    // A connection that could not be accepted is its client's loss alone.
    this.server.on('error', () => {});
  }

  /** Throws NunicornError if the socket cannot be made. */
  async listen(): Promise<void> {
    try {
      checkSocketPath(this.path);
      mkdirSync(dirname(this.path), { recursive: true, mode: 0o700 });
      const obstacle = await removeStaleSocket(this.path);
      if (obstacle === 'file') throw new Error('there is a file of this name, and it is no socket');
      if (obstacle === 'listener') throw new Error('another server listens there');
      await new Promise<void>((resolve, reject) => {
        this.server.once('error', reject);
        this.server.once('listening', resolve);
        listenWithMode(this.server, this.path, this.mode);
      });
    } catch (error) {
      throw new NunicornError(`--control-socket ${this.path}: ${this.reason(error)}`, EXIT.ERROR);
    }
    this.log.info(`Control socket listening at ${this.path}`);
  }

  close(): void {
    this.server.close();
    for (const socket of this.connections) socket.destroy();
    rmSync(this.path, { force: true });
  }

  private reason(error: unknown): string {
    if (!(error instanceof Error)) return String(error);
    const code = 'code' in error ? String(error.code) : '';
    const folder = dirname(this.path);
    if (code === 'EACCES' && !existsSync(folder)) return `this user may not make the folder ${folder} (EACCES)`;
    const why = listenFailure(code, { kind: 'unix', path: this.path });
    return why === code ? error.message : why;
  }

  private accept(socket: Socket): void {
    this.connections.add(socket);
    const decoder = new MessageDecoder();
    let answering = Promise.resolve();
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.on('error', () => {});
    socket.on('close', () => this.connections.delete(socket));
    socket.on('data', (piece) => {
      let messages: unknown[];
      try {
        messages = decoder.push(piece);
      } catch (error) {
        this.log.warning(`Control socket: ${error instanceof Error ? error.message : error}`);
        socket.destroy();
        return;
      }
      for (const message of messages) {
        // One after the other, in the order they came.
        answering = answering.then(async () => {
          const answer = await this.answer(message);
          if (!socket.destroyed) socket.write(encodeMessage(answer));
        });
      }
    });
  }

  private async answer(message: unknown): Promise<ControlAnswer> {
    const { id, command, args } = (message ?? {}) as { id?: unknown; command?: unknown; args?: unknown };
    const number = typeof id === 'number' ? id : 0;
    try {
      if (typeof command !== 'string') throw new CommandError('Invalid argument: command is no text');
      // Numbers are numbers of workers, or pids.
      const more = Array.isArray(args) ? args.map((one) => (typeof one === 'number' ? String(one) : one)) : [];
      if (!more.every((one) => typeof one === 'string')) throw new CommandError('Invalid argument: args are no texts');
      const data = await runCommand(this.target, command, more);
      return { id: number, status: 'ok', data };
    } catch (error) {
      if (error instanceof CommandError) return { id: number, status: 'error', error: error.message };
      this.log.error(`Control socket: '${command}' failed: ${error instanceof Error ? error.stack : error}`);
      return {
        id: number,
        status: 'error',
        error: `Command failed: ${error instanceof Error ? error.message : error}`,
      };
    }
  }
}
