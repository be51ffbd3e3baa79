/**
 * Layout of the frames on the bridge. `python/nunicorn_worker/frames.py` says the same for the worker, and explains it.
 */
import type { Writable } from 'node:stream';

export const HEADER_BYTES = 20;
/** Offsets in the header; all numbers are little-endian. */
export const AT = { length: 0, kind: 4, flags: 5, status: 6, id: 8, head: 12, appUs: 16 } as const;

export const REQUEST = 1;
export const ANSWER = 2;
export const HEAD = 3;
export const DATA = 4;
export const END = 5;
export const ERROR = 6;
export const HINTS = 7;
export const EXTEND = 8;
export const READY = 9;
export const ENVIRON = 10;

/** Flags of REQUEST. */
export const PATH_ENCODED = 1;
export const BODY_IN_FILE = 2;
/** Flag of HEAD and DATA. */
export const LAST = 1;
/** Flag of END. */
export const CUT = 1;

export const SLOT_CONNECTION = 1;
export const CONTROL_CONNECTION = 2;

/** No frame but DATA, which is passed on as it comes, may be longer than this. */
export const MAX_FRAME_BYTES = 64 * 1024 * 1024;

export interface RequestFrame {
  readonly id: number;
  readonly flags: number;
  /** The environ entries: latin-1, `NAME\0value\0...` without the last NUL. */
  readonly block: string;
  readonly body: Uint8Array | null;
}

/** Writes REQUESTs to `pipe`, in one piece if it takes that much. A short text leaves with less ado than a Buffer. */
export function writeRequests(frames: readonly RequestFrame[], pipe: Writable): void {
  let text = '';
  for (const frame of frames) {
    text += beforeBody(frame);
    if (frame.body === null) continue;
    if (pipe.writableCorked === 0) pipe.cork();
    pipe.write(text, 'latin1');
    pipe.write(frame.body);
    text = '';
  }
  if (text !== '') pipe.write(text, 'latin1');
  pipe.uncork();
}

/** A REQUEST as far as its body: latin-1. */
function beforeBody({ id, flags, block, body }: RequestFrame): string {
  const length = u32(block.length + (body === null ? 0 : body.length));
  const head = body === null ? length : u32(block.length);
  return `${length}${String.fromCharCode(REQUEST, flags, 0, 0)}${u32(id)}${head}${ZERO}${block}`;
}

const ZERO = u32(0);

function u32(value: number): string {
  return String.fromCharCode(value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24);
}

/** What a decoder tells about the frames of a worker. Buffers given are valid only during the call. */
export interface AnswerHandler {
  /** A whole answer. The body is `buffer[bodyStart..bodyEnd)`. `appUs` is null if `end` follows when the app has cleaned up. */
  answer(
    id: number,
    status: number,
    head: string,
    buffer: Buffer,
    bodyStart: number,
    bodyEnd: number,
    appUs: number | null,
  ): void;
  /** `dataFollows`: the first piece of the body belongs to the same frame. */
  head(id: number, status: number, head: string, dataFollows: boolean): void;
  data(id: number, buffer: Buffer, start: number, end: number): void;
  end(id: number, cut: boolean, appUs: number): void;
  error(id: number, appUs: number): void;
  hints(id: number, head: string): void;
  /** The thread at the other end has taken the connection and runs nothing. */
  ready(): void;
  /** The app asks for this much time from now on, in milliseconds. */
  extend(id: number, ms: number): void;
  /** What the access log shows of the environ: NAME, value ..., joined by NUL. The last frame of the answer follows. */
  environ(id: number, head: string): void;
  /** The body is complete; `end` follows when the app has cleaned up. */
  last(id: number): void;
}

/** The peer sent what is no frame. */
export class FrameError extends Error {}

/**
 * Takes the bytes of one connection in pieces of any size and calls `handler` for each frame. The body of a DATA, and of a HEAD
 * that is not LAST, is passed on as it comes; all else when it is whole. `push` throws a FrameError at what is no frame.
 */
export class AnswerDecoder {
  private readonly handler: AnswerHandler;
  /** The beginning of a frame whose rest has not come. */
  private rest: Buffer | null = null;
  private restBytes = 0;
  /** Bytes of body of `streamId` that are still to come in the present frame. */
  private streamLeft = 0;
  private streamId = 0;
  /** The body is complete with that. */
  private streamIsLast = false;

  constructor(handler: AnswerHandler) {
    this.handler = handler;
  }

  /** Whether the connection may end here without having cut a frame. */
  get betweenFrames(): boolean {
    return this.restBytes === 0 && this.streamLeft === 0;
  }

  /** Takes the first `bytes` of `chunk`. */
  push(chunk: Buffer, bytes = chunk.length): void {
    let offset = 0;
    while (offset < bytes) {
      if (this.streamLeft > 0) {
        const end = Math.min(bytes, offset + this.streamLeft);
        this.streamLeft -= end - offset;
        this.handler.data(this.streamId, chunk, offset, end);
        offset = end;
        if (this.streamIsLast && this.streamLeft === 0) this.handler.last(this.streamId);
      } else if (this.rest !== null) {
        offset = this.completeRest(chunk, offset, bytes);
      } else {
        const used = this.decode(chunk, offset, bytes);
        if (used === 0) {
          this.keep(chunk, offset, bytes);
          return;
        }
        offset += used;
      }
    }
  }

  /** Decodes one frame at `offset`. Returns the bytes used, 0 if more are needed. */
  private decode(buffer: Buffer, offset: number, end: number): number {
    if (end - offset < HEADER_BYTES) return 0;
    const length = buffer.readUInt32LE(offset + AT.length);
    const kind = buffer[offset + AT.kind];
    const headBytes = buffer.readUInt32LE(offset + AT.head);
    if (kind === undefined || kind < ANSWER || kind > ENVIRON) throw new FrameError(`a frame of unknown kind ${kind}`);
    const flags = buffer[offset + AT.flags] ?? 0;
    const streams = comesInPieces(kind, flags);
    const wholeBytes = streams ? headBytes : length;
    if (headBytes > length || wholeBytes > MAX_FRAME_BYTES) throw new FrameError('a frame of impossible size');
    const neededBytes = HEADER_BYTES + wholeBytes;
    if (end - offset < neededBytes) return 0;
    const id = buffer.readUInt32LE(offset + AT.id);
    const headStart = offset + HEADER_BYTES;
    const headEnd = headStart + headBytes;
    switch (kind) {
      case ANSWER:
      case HEAD: {
        const status = buffer.readUInt16LE(offset + AT.status);
        const head = buffer.toString('latin1', headStart, headEnd);
        if (streams) this.handler.head(id, status, head, length > headBytes);
        else {
          const appUs = kind === ANSWER ? buffer.readUInt32LE(offset + AT.appUs) : null;
          this.handler.answer(id, status, head, buffer, headEnd, headStart + length, appUs);
        }
        break;
      }
      case DATA:
        if (length === 0 && (flags & LAST) !== 0) this.handler.last(id);
        break;
      case END:
        this.handler.end(id, (flags & CUT) !== 0, buffer.readUInt32LE(offset + AT.appUs));
        break;
      case ERROR:
        this.handler.error(id, buffer.readUInt32LE(offset + AT.appUs));
        break;
      case HINTS:
        this.handler.hints(id, buffer.toString('latin1', headStart, headEnd));
        break;
      case ENVIRON:
        this.handler.environ(id, buffer.toString('latin1', headStart, headEnd));
        break;
      case READY:
        this.handler.ready();
        break;
      case EXTEND:
        this.handler.extend(id, buffer.readUInt32LE(offset + AT.appUs));
        break;
    }
    if (streams) {
      this.streamId = id;
      this.streamLeft = length - headBytes;
      this.streamIsLast = (flags & LAST) !== 0;
    }
    return neededBytes;
  }

  private keep(chunk: Buffer, offset: number, bytes: number): void {
    this.rest = Buffer.allocUnsafe(Math.max(HEADER_BYTES, bytes - offset));
    this.restBytes = chunk.copy(this.rest, 0, offset, bytes);
  }

  /** Adds to the kept beginning of a frame what it lacks, and decodes it when it is whole. Returns the new offset. */
  private completeRest(chunk: Buffer, offset: number, bytes: number): number {
    let rest = this.rest;
    if (rest === null) return offset;
    let wanted = HEADER_BYTES;
    if (this.restBytes >= HEADER_BYTES) {
      const streams = comesInPieces(rest[AT.kind], rest[AT.flags] ?? 0);
      wanted = HEADER_BYTES + rest.readUInt32LE(streams ? AT.head : AT.length);
    }
    if (rest.length < wanted) {
      const larger = Buffer.allocUnsafe(wanted);
      rest.copy(larger, 0, 0, this.restBytes);
      this.rest = rest = larger;
    }
    const end = Math.min(bytes, offset + wanted - this.restBytes);
    this.restBytes += chunk.copy(rest, this.restBytes, offset, end);
    if (this.restBytes >= wanted) {
      // The header alone is decoded only for frames without a payload; others come here again for the rest.
      if (this.decode(rest, 0, this.restBytes) > 0) {
        this.rest = null;
        this.restBytes = 0;
      }
    }
    return end;
  }
}

function comesInPieces(kind: number | undefined, flags: number): boolean {
  return kind === DATA || (kind === HEAD && (flags & LAST) === 0);
}
