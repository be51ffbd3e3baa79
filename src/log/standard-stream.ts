import { constants, fstatSync, openSync } from 'node:fs';

export const STDOUT = 1;
export const STDERR = 2;

/**
 * A descriptor for a standard stream that does not block where that can be had. A write to a full pipe would stop the
 * process, or hold one of Node's few file threads and the end of the process with it. So a pipe is opened a second time as
 * non-blocking; the descriptor that we were given stays as it is, for the application shares it. Where that is not possible
 * (sockets, other systems than Linux) it is used itself.
 */
export function openStandardStream(fd: typeof STDOUT | typeof STDERR): number {
  try {
    if (!fstatSync(fd).isFIFO()) return fd;
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch {
    return fd;
  }
}
