/** Large request bodies in files, so that neither this process nor a worker holds them in memory. */
import { createWriteStream, unlink, type WriteStream } from 'node:fs';
import { join } from 'node:path';

let serial = 0;

/** A body being written, then read by a worker. The file goes when the request is over. */
export class SpoolFile {
  readonly path: string;
  private readonly stream: WriteStream;
  private removed = false;

  /** `onError` is called at most once, with what went wrong (ENOSPC: the disk is full). */
  constructor(folder: string, onError: (error: NodeJS.ErrnoException) => void) {
    this.path = join(folder, `body-${process.pid}-${++serial}`);
    this.stream = createWriteStream(this.path, { flags: 'wx', mode: 0o600 });
    this.stream.on('error', (error: NodeJS.ErrnoException) => {
      if (!this.removed) onError(error);
    });
  }

  /** False: too much waits to be written; hold the client back until `onDrain` is called. */
  write(piece: Buffer, onDrain: () => void): boolean {
    if (this.stream.write(piece)) return true;
    this.stream.once('drain', onDrain);
    return false;
  }

  finish(done: () => void): void {
    this.stream.end(done);
  }

  remove(): void {
    if (this.removed) return;
    this.removed = true;
    const drop = (): void => unlink(this.path, () => {});
    if (this.stream.closed) {
      drop();
    } else {
      // Before its end the file may be about to be made.
      this.stream.once('close', drop);
      this.stream.destroy();
    }
  }
}
