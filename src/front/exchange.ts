/** One request and its answer, from the client's first byte to the last one sent. */
import type { RequestFrame } from '../bridge/frames.ts';
import type { Dispatched, Slot } from '../dispatch/dispatcher.ts';
import type { TimedOutAt } from '../policy/deadline.ts';
import type { ClientConnection } from './client-connection.ts';
import type { Request } from './request.ts';
import type { Response } from './response.ts';
import type { SpoolFile } from './spool.ts';

export type Phase =
  /** The body is being read from the client. */
  | 'reading'
  /** In the queue, or sent to a worker. */
  | 'dispatched'
  /** The head of the answer has gone out. */
  | 'answering'
  /** Answered, or given up: what still comes from a worker is thrown away. */
  | 'over';

export class Exchange implements RequestFrame, Dispatched {
  readonly id: number;
  readonly request: Request;
  readonly response: Response;
  readonly connection: ClientConnection;
  readonly block: string;
  /** When the head had been read: `now` of clock.ts. */
  readonly startedAt: number;
  flags: number;
  body: Buffer | null = null;
  /** Of the body, as far as it has come and is in no file. */
  bodyBytesInMemory = 0;
  /** `body` is the beginning; the rest is still with the client, and `request` is paused. */
  bodyOpen = false;
  spool: SpoolFile | null = null;
  phase: Phase = 'reading';
  slot: Slot<this> | null = null;
  queuePrevious: this | null = null;
  queueNext: this | null = null;
  queued = false;
  /** When the request began to wait for a slot. */
  queuedAt = 0;
  /** When the last piece of the request's body, or of the answer, came. */
  pieceAt = 0;
  /** The thread that is held back, because the client does not read. */
  heldBack: Slot<this> | null = null;
  /** See deadline.ts. */
  timedOutAt: TimedOutAt = 0;
  /** The worker was asked for an answer that it may be holding. */
  askedFor = false;
  /** The connection ends with this answer. */
  closeAfter = false;
  /** The process that it was sent to last. */
  workerPid = 0;
  /** Its worker's number and thread's, from 1. */
  worker = 0;
  thread = 0;
  /** What the access log shows of the environ. */
  environ: ReadonlyMap<string, string> | null = null;
  status = 0;
  /** What became of it: see OUTCOME. */
  outcome = 0;
  bytesSent = 0;
  /** Head block of the answer. */
  responseBlock = '';

  constructor(
    id: number,
    request: Request,
    response: Response,
    connection: ClientConnection,
    block: string,
    flags: number,
    startedAt: number,
  ) {
    this.id = id;
    this.request = request;
    this.response = response;
    this.connection = connection;
    this.block = block;
    this.flags = flags;
    this.startedAt = startedAt;
  }
}
