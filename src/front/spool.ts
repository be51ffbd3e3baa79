/** Large request bodies in files, so that neither this process nor a worker holds them in memory. */
import { close, createWriteStream, mkdir, open, readdir, unlink, type WriteStream, write, writev } from 'node:fs';
import { dirname, join } from 'node:path';

let serial = 0;

type Opened = (error: NodeJS.ErrnoException | null, fd: number) => void;

/** Opens a file; the folder is made anew if it is gone: what cleans temporary folders may have taken it for forgotten. */
function openAnyway(path: string, flags: string, mode: number, opened: Opened): void {
  open(path, flags, mode, (error, fd) => {
    if (error?.code !== 'ENOENT') {
      opened(error, fd);
      return;
    }
    mkdir(dirname(path), { mode: 0o700 }, (failed) => {
      if (failed !== null && failed.code !== 'EEXIST') opened(error, fd);
      else open(path, flags, mode, opened);
    });
  });
}

function nameOf(pid: number, number: number | ''): string {
  return `body-${pid}-${number}`;
}

/** Removes what a process that has ended had in `folder`. */
export function removeFilesOf(pid: number, folder: string): void {
  readdir(folder, (_, names = []) => {
    for (const name of names) if (name.startsWith(nameOf(pid, ''))) unlink(join(folder, name), () => {});
  });
}

/** A body being written, then read by a worker. The file goes when the request is over. */
export class SpoolFile {
  readonly path: string;
  private readonly stream: WriteStream;
  private removed = false;

  /** `onError` is called at most once, with what went wrong (ENOSPC: the disk is full). */
  constructor(folder: string, onError: (error: NodeJS.ErrnoException) => void) {
    this.path = join(folder, nameOf(process.pid, ++serial));
    this.stream = createWriteStream(this.path, {
      flags: 'wx',
      mode: 0o600,
      fs: { open: openAnyway, write, writev, close },
    });
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
