/**
 * A front's connections to one Python worker: one for each of its threads, a pipe for requests and a pipe for answers, and a
 * socket for what is said beside them. What happens when is the caller's; here are pipes, sockets and frames.
 */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { connect, Socket, type SocketConstructorOpts } from 'node:net';
import {
  AnswerDecoder,
  type AnswerHandler,
  CONTROL_CONNECTION,
  type RequestFrame,
  SLOT_CONNECTION,
  writeRequests,
} from './frames.ts';

/** What a link tells its owner. `slot` is the thread's number. */
export interface LinkHandler {
  /** Called for each thread once: takes the frames that come from it. */
  answersOf(slot: number): AnswerHandler;
  /** All that came in one piece has been handed to the AnswerHandler. */
  piecesHandled(): void;
  /** The connection of a thread ended. `defect`: because what came on it could not be taken. Null: the worker has ended it. */
  slotLost(slot: number, defect: Error | null): void;
  takenBack(slot: number, ids: ReadonlySet<number>): void;
  /** Where a thread stands that was interrupted: lines of a Python stack. */
  stack(slot: number, id: number, stack: string): void;
}

const GREETING_BYTES = 20;
/** Said when the pipes of an offer have been opened. */
const OPENED = Buffer.of(1);
const READ_BYTES = 64 * 1024;
const WORD_BYTES = 8;
const RECONNECT_MS = 50;

/** One for all links of a front: whatever is read is used up before the next read. */
const readBuffer = Buffer.allocUnsafe(READ_BYTES);

/** What a worker says beside its answers. */
type FromWorker =
  | { readonly op: 'taken'; readonly slot: number; readonly ids: readonly number[] }
  | { readonly op: 'stack'; readonly slot: number; readonly id: number; readonly stack: string };

interface Connection {
  /** By which the pipes are asked for. Its end tells the worker that of this front. */
  readonly socket: Socket;
  pipes: Pipes | null;
  readonly number: number;
  /** Frames that wait for `flush`. */
  readonly frames: RequestFrame[];
  open: boolean;
}

interface Pipes {
  readonly requests: Socket;
  readonly answers: Socket;
}

/** What `new Socket` takes as `connect` does, and the types do not know. */
interface PipeOptions extends SocketConstructorOpts {
  readonly onread?: { readonly buffer: Buffer; callback(bytes: number): boolean };
}

/** `gone`: the worker has ended, and its file is gone with it, or somebody has cleared its folder. `full`: too much is open. */
export type NotOpened = 'gone' | 'full';

/** How many a link has: two pipes and a socket for each thread, a socket for what is said beside them, and what has begun. */
export function linkDescriptors(threads: number): number {
  return 3 * threads + 2;
}

/** Opens what a worker notes of what its threads have begun. */
export function openBegun(path: string): number | NotOpened {
  try {
    return openSync(path, 'r');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return 'gone';
    if (code === 'EMFILE' || code === 'ENFILE') return 'full';
    throw error;
  }
}

export class WorkerLink {
  private readonly path: string;
  private readonly token: Buffer;
  private readonly handler: LinkHandler;
  private readonly begunFd: number;
  private readonly connections: (Connection | null)[] = [];
  private control: Socket;
  /** Threads that were asked for what was sent ahead and have not answered. */
  private readonly askedBack = new Set<number>();
  private readonly unflushed: Connection[] = [];
  private closing = false;

  /** `begun`: of `openBegun`; the link closes it. */
  constructor(socketPath: string, begun: number, threads: number, token: string, handler: LinkHandler) {
    this.path = socketPath;
    this.token = Buffer.from(token, 'hex');
    this.handler = handler;
    this.begunFd = begun;
    for (let number = 0; number < threads; number++) this.connections.push(this.connectSlot(number));
    this.control = this.connectControl();
  }

  /** Gathers a request for a thread; `flush` sends it. */
  send(slot: number, frame: RequestFrame): void {
    const connection = this.connections[slot];
    if (connection === null || connection === undefined) return;
    if (connection.frames.length === 0) this.unflushed.push(connection);
    connection.frames.push(frame);
  }

  /** Sends what has gathered: one write for each thread. */
  flush(): void {
    for (const { frames, pipes } of this.unflushed) {
      if (pipes !== null) writeRequests(frames, pipes.requests);
      empty(frames);
    }
    empty(this.unflushed);
  }

  /** Stops reading a thread's answer, so that its thread waits in the kernel; `resume` goes on. */
  pause(slot: number): void {
    this.connections[slot]?.pipes?.answers.pause();
  }

  resume(slot: number): void {
    this.connections[slot]?.pipes?.answers.resume();
  }

  /** The client of a running request has left. */
  cancel(slot: number, id: number): void {
    this.say({ op: 'cancel', slot, id });
  }

  /** Asks for what was sent ahead; `takenBack` of the handler gets the answer. */
  takeBack(slot: number): void {
    this.askedBack.add(slot);
    this.say({ op: 'take-back', slot });
  }

  /** Interrupts the request, if it is still running; `stack` of the handler gets where. */
  interrupt(slot: number, id: number): void {
    this.say({ op: 'interrupt', slot, id });
  }

  /** The id of the request that each thread began last, readable also when the worker is dead. */
  begun(): number[] {
    const words = Buffer.alloc(this.connections.length * WORD_BYTES);
    readSync(this.begunFd, words, 0, words.length, 0);
    return this.connections.map((_, slot) => words.readUInt32LE(slot * WORD_BYTES));
  }

  /** Calls `done` when all that a dead worker had sent has been read, at the latest after `limitMs`. */
  drainDead(limitMs: number, done: () => void): void {
    this.closing = true;
    // If this process could not run for so long, what is there is still read first.
    const timer = setTimeout(() => setImmediate(finish), limitMs);
    const connections = this.connections;
    let left = 1;
    function finish(): void {
      clearTimeout(timer);
      if (left >= 0) done();
      left = -1;
    }
    function one(): void {
      left--;
      if (left === 0) finish();
    }
    for (const connection of connections) {
      if (connection === null || !connection.open) continue;
      left++;
      const { answers } = connection.pipes ?? { answers: connection.socket };
      answers.once('close', one);
      answers.resume();
    }
    one();
  }

  close(): void {
    this.closing = true;
    for (const connection of this.connections) if (connection !== null) destroy(connection);
    this.control.destroy();
    closeSync(this.begunFd);
  }

  private say(message: object): void {
    this.control.write(`${JSON.stringify(message)}\n`);
  }

  /** A worker that stands still may have no room for it in its listening queue, and one that is slow to be greeted is let go. */
  private connectControl(): Socket {
    const control = connect({ path: this.path });
    control.on('error', ignore);
    control.on('close', () => {
      setTimeout(() => {
        if (this.closing) return;
        this.control = this.connectControl();
        for (const slot of this.askedBack) this.takeBack(slot);
      }, RECONNECT_MS);
    });
    control.write(this.greeting(CONTROL_CONNECTION, 0));
    let rest = '';
    control.setEncoding('utf8');
    control.on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const message = messageIn(line);
        if (message === null) {
          control.destroy(); // whatever has got into it costs this connection, not the front
          return;
        }
        this.heard(message);
      }
    });
    return control;
  }

  private heard(message: FromWorker): void {
    if (message.op === 'taken') {
      this.askedBack.delete(message.slot);
      this.handler.takenBack(message.slot, new Set(message.ids));
    } else this.handler.stack(message.slot, message.id, message.stack);
  }

  private connectSlot(number: number): Connection {
    const socket = connect({ path: this.path });
    const connection: Connection = { socket, pipes: null, number, frames: [], open: true };
    socket.on('error', ignore);
    socket.once('data', (offer) => {
      try {
        connection.pipes = this.openPipes(connection, offer.toString());
      } catch {
        socket.destroy(); // the worker has ended, or no descriptor is left
        return;
      }
      socket.write(OPENED);
    });
    socket.on('close', () => {
      // What is left in the pipe of answers comes first.
      if (connection.pipes === null) this.ended(connection, null);
    });
    socket.write(this.greeting(SLOT_CONNECTION, number));
    return connection;
  }

  /** Throws if they cannot be opened. */
  private openPipes(connection: Connection, path: string): Pipes {
    const decoder = new AnswerDecoder(this.handler.answersOf(connection.number));
    let defect: Error | null = null;
    const callback = (bytes: number): boolean => {
      try {
        decoder.push(readBuffer, bytes);
      } catch (error) {
        defect = error instanceof Error ? error : new Error(String(error));
        answers.destroy();
      }
      this.handler.piecesHandled();
      return true;
    };
    // Both, before one becomes a Socket: what cannot be opened is left to the worker to remove.
    const requestsFd = openSync(`${path}.requests`, constants.O_WRONLY | constants.O_NONBLOCK);
    let answersFd: number;
    try {
      answersFd = openSync(`${path}.answers`, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      closeSync(requestsFd);
      throw error;
    }
    const requests = new Socket({ fd: requestsFd, readable: false, writable: true });
    const options: PipeOptions = {
      fd: answersFd,
      readable: true,
      writable: false,
      onread: { buffer: readBuffer, callback },
    };
    const answers = new Socket(options);
    requests.on('error', ignore);
    answers.on('error', ignore);
    answers.on('close', () => {
      destroy(connection);
      this.ended(connection, defect);
    });
    return { requests, answers };
  }

  private ended(connection: Connection, defect: Error | null): void {
    const { number } = connection;
    connection.open = false;
    if (this.closing || this.connections[number] !== connection) return;
    this.connections[number] = null;
    this.handler.slotLost(number, defect);
    setTimeout(() => {
      if (!this.closing) this.connections[number] = this.connectSlot(number);
    }, RECONNECT_MS);
  }

  private greeting(kind: number, slot: number): Buffer {
    const greeting = Buffer.alloc(GREETING_BYTES);
    this.token.copy(greeting, 0);
    greeting.writeUInt16LE(kind, 16);
    greeting.writeUInt16LE(slot, 18);
    return greeting;
  }
}

/** Setting the length would be a call into the runtime, and the next element would need memory anew. */
function empty(array: unknown[]): void {
  while (array.length > 0) array.pop();
}

function destroy({ socket, pipes }: Connection): void {
  socket.destroy();
  pipes?.requests.destroy();
  pipes?.answers.destroy();
}

/** Null: it is no message. */
function messageIn(line: string): FromWorker | null {
  try {
    return JSON.parse(line) as FromWorker | null;
  } catch {
    return null;
  }
}

/** Errors of these sockets are told by their end. */
function ignore(): void {}
