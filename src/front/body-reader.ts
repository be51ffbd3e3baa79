/** Reads the bodies of requests: small ones into memory, what is large or slow or too much for all together into files. */
import { BODY_IN_FILE } from '../bridge/frames.ts';
import { now } from '../clock.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { BodyPieces } from './body-pieces.ts';
import type { Exchange } from './exchange.ts';
import { SpoolFile } from './spool.ts';

/** A body up to this size is kept in memory, a larger one in a file. */
const MAX_BYTES_IN_MEMORY = 256 * 1024;
/** Bodies in memory, all together; beyond that every body goes to a file. */
const MAX_BYTES_IN_MEMORY_OF_ALL = 32 * 1024 * 1024;
/** A client that is slower than MAX_BYTES_IN_MEMORY in this time holds no thread: its body goes to a file. */
const QUICK_CLIENT_MS = 1000;

export interface BodyHandler {
  /** Whether requests are handed over while their bodies still come: those larger than what is kept in memory. */
  readonly takesOpenBodies: boolean;
  /** The body has been read; or, with `bodyOpen`, as much of it as is kept in memory. */
  bodyRead(exchange: Exchange): void;
  /** It cannot be kept: the request is to be answered with this status. */
  refuse(exchange: Exchange, status: number, message: string): void;
  /** Whether a descriptor is left for a file. */
  mayOpenFile(): boolean;
}

export class BodyReader {
  /** Files that exist. */
  files = 0;
  private readonly handler: BodyHandler;
  private readonly log: ErrorLog;
  private bytesInMemory = 0;

  constructor(handler: BodyHandler, log: ErrorLog) {
    this.handler = handler;
    this.log = log;
  }

  /** `limitBytes`: 0 is no limit. */
  read(exchange: Exchange, limitBytes: number, spoolFolder: string): void {
    const { request } = exchange;
    const pieces = new BodyPieces();
    let bytes = 0;
    const goOn = (): void => {
      request.resume();
    };
    const spoolFailed = (error: NodeJS.ErrnoException): void => {
      if (exchange.phase !== 'reading') return;
      const full = error.code === 'ENOSPC' || error.code === 'EDQUOT';
      this.log.error(`A request's body could not be kept in ${spoolFolder}: ${error.message}`);
      this.handler.refuse(
        exchange,
        full ? 507 : 503,
        full ? 'No space left for the request' : 'The request could not be stored',
      );
    };
    exchange.pieceAt = now();
    const read = (piece: Buffer): void => {
      if (exchange.phase !== 'reading') return;
      exchange.pieceAt = now();
      bytes += piece.length;
      if (limitBytes > 0 && bytes > limitBytes) {
        this.handler.refuse(exchange, 413, `The request's body is larger than ${limitBytes} bytes`);
        return;
      }
      if (exchange.spool === null) {
        pieces.add(piece);
        exchange.bodyBytesInMemory += piece.length;
        this.bytesInMemory += piece.length;
        const fits = this.bytesInMemory <= MAX_BYTES_IN_MEMORY_OF_ALL;
        if (fits && bytes <= MAX_BYTES_IN_MEMORY) return;
        if (fits && this.handler.takesOpenBodies && exchange.pieceAt - exchange.startedAt < QUICK_CLIENT_MS) {
          request.pause();
          request.off('data', read);
          request.off('end', readAll);
          exchange.bodyOpen = true;
          exchange.body = pieces.take();
          this.handler.bodyRead(exchange);
          return;
        }
        if (!this.handler.mayOpenFile()) {
          this.handler.refuse(exchange, 503, 'Too many connections');
          return;
        }
        exchange.spool = new SpoolFile(spoolFolder, spoolFailed);
        this.files++;
        piece = pieces.take();
        this.bytesInMemory -= exchange.bodyBytesInMemory;
        exchange.bodyBytesInMemory = 0;
      }
      if (!exchange.spool.write(piece, goOn)) request.pause();
    };
    const readAll = (): void => {
      if (exchange.phase !== 'reading') return;
      const { spool } = exchange;
      if (spool === null) {
        exchange.body = pieces.take();
        this.handler.bodyRead(exchange);
        return;
      }
      spool.finish(() => {
        if (exchange.phase !== 'reading') return;
        exchange.body = Buffer.from(spool.path);
        exchange.flags |= BODY_IN_FILE;
        this.handler.bodyRead(exchange);
      });
    };
    request.on('data', read);
    request.on('end', readAll);
  }

  /** The request is over: its body is not needed any more. */
  drop(exchange: Exchange): void {
    this.bytesInMemory -= exchange.bodyBytesInMemory;
    exchange.bodyBytesInMemory = 0;
    exchange.body = null;
    if (exchange.spool === null) return;
    this.files--;
    exchange.spool.remove();
  }
}
