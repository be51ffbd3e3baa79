/** What stands where a Unix socket is to be made: a server that was killed leaves its file behind. */
import { lstatSync, rmSync } from 'node:fs';
import { connect } from 'node:net';

/** Somebody listens there, or it is no socket. */
export type Obstacle = 'listener' | 'file';

/** Removes the file of a socket at which nobody listens any more. Gives what else is in the way; null: nothing. */
export async function removeStaleSocket(path: string): Promise<Obstacle | null> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return null;
  if (!stat.isSocket()) return 'file';
  const listens = await new Promise<boolean>((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    // EAGAIN: its queue is full.
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'EAGAIN'));
  });
  if (listens) return 'listener';
  rmSync(path, { force: true });
  return null;
}
