/** The pid file, by gunicorn's rules: written beside and renamed, refused while another living process is named in it. */
import { randomBytes } from 'node:crypto';
import { closeSync, fchmodSync, openSync, readFileSync, renameSync, rmSync, unlinkSync, writeSync } from 'node:fs';
import { NunicornError } from '../errors.ts';
import { fileFailure } from '../file-failure.ts';

export class PidFile {
  private path: string;

  /** Throws NunicornError if the file names a process that lives, or cannot be written. */
  constructor(path: string) {
    this.path = path;
    this.write(path);
  }

  /** The file gets another name. Throws NunicornError as the constructor does. */
  rename(path: string): void {
    this.write(path);
    this.remove();
    this.path = path;
  }

  private write(path: string): void {
    const other = readPid(path);
    if (other !== null && other !== process.pid && lives(other)) {
      throw new NunicornError(`Already running on PID ${other} (or pid file '${path}' is stale)`);
    }
    // A name that nobody can foresee: in a folder of all, a link may lie in wait.
    const draft = `${path}.${randomBytes(8).toString('hex')}`;
    try {
      const fd = openSync(draft, 'wx', 0o644);
      try {
        writeSync(fd, `${process.pid}\n`);
        fchmodSync(fd, 0o644);
      } finally {
        closeSync(fd);
      }
      renameSync(draft, path);
    } catch (error) {
      rmSync(draft, { force: true });
      throw new NunicornError(`the pid file '${path}' cannot be written (${fileFailure(error, draft)})`);
    }
  }

  /** Removes the file, unless another process has written itself into it. */
  remove(): void {
    if (readPid(this.path) !== process.pid) return;
    try {
      unlinkSync(this.path);
    } catch {
      // Somebody else removed it.
    }
  }
}

/** Its end has not been taken note of: who is to do that may be slow, as the first process of a container. */
function isZombie(pid: number): boolean {
  try {
    return /\) [ZX] [^)]*$/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

function readPid(path: string): number | null {
  try {
    const pid = Number.parseInt(readFileSync(path, 'utf8'), 10);
    return pid > 0 ? pid : null;
  } catch {
    return null;
  }
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !isZombie(pid);
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
