/** A connection to the control socket of a server. */
import { connect, type Socket } from 'node:net';
import { EXIT, NunicornError } from '../errors.ts';
import { type ControlAnswer, encodeMessage, MessageDecoder } from './protocol.ts';

const ANSWER_MS = 30_000;

export class ControlClient {
  private readonly socket: Socket;
  private readonly path: string;
  private readonly waiting = new Map<number, (answer: ControlAnswer | Error) => void>();
  private lastId = 0;
  /** Why nothing more will be answered. */
  private ended: NunicornError | null = null;

  private constructor(socket: Socket, path: string) {
    this.socket = socket;
    this.path = path;
    const end = (reason: string): void => {
      this.ended ??= new NunicornError(`${path}: ${reason}`);
      for (const settle of this.waiting.values()) settle(this.ended);
    };
    const decoder = new MessageDecoder();
    socket.on('data', (piece) => {
      const answers = answersIn(piece, decoder);
      if (answers === null) {
        end('what listens there is no control socket: was it given to --control-socket?');
        socket.destroy();
        return;
      }
      for (const answer of answers) this.waiting.get(answer.id)?.(answer);
    });
    const closed = (): void => end('the server has closed the connection');
    socket.on('error', closed);
    socket.on('close', closed);
  }

  /** Throws NunicornError if nobody answers there. */
  static async open(path: string): Promise<ControlClient> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', () => resolve());
      socket.once('error', (error: NodeJS.ErrnoException) =>
        reject(new NunicornError(whyNot(path, error), EXIT.ERROR)),
      );
    });
    return new ControlClient(socket, path);
  }

  /** The `data` of the answer. Throws NunicornError with the error of the answer, or if there is none. */
  async send(command: string): Promise<unknown> {
    if (this.ended !== null) throw this.ended;
    const id = ++this.lastId;
    const answer = await new Promise<ControlAnswer | Error>((resolve) => {
      const timer = setTimeout(() => resolve(new NunicornError(`${this.path}: no answer within 30 s`)), ANSWER_MS);
      this.waiting.set(id, (settled) => {
        clearTimeout(timer);
        resolve(settled);
      });
      this.socket.write(encodeMessage({ id, command, args: [] }));
    });
    this.waiting.delete(id);
    if (answer instanceof Error) throw answer;
    if (answer.status === 'error') throw new NunicornError(answer.error, EXIT.ERROR);
    return answer.data;
  }

  close(): void {
    this.socket.end();
  }
}

/** Null: they are no answers. */
function answersIn(piece: Buffer, decoder: MessageDecoder): readonly ControlAnswer[] | null {
  try {
    const messages = decoder.push(piece);
    return messages.every(isAnswer) ? messages : null;
  } catch {
    return null;
  }
}

function isAnswer(message: unknown): message is ControlAnswer {
  if (typeof message !== 'object' || message === null) return false;
  const { id, status } = message as { readonly id?: unknown; readonly status?: unknown };
  return typeof id === 'number' && (status === 'ok' || status === 'error');
}

function whyNot(path: string, error: NodeJS.ErrnoException): string {
  const why =
    error.code === 'ENOENT'
      ? 'there is no such socket: was the server started with --control-socket?'
      : error.code === 'ECONNREFUSED'
        ? 'nobody listens there any more'
        : error.code === 'EACCES'
          ? 'only its owner may use it'
          : error.message;
  return `${path}: ${why}`;
}
