/** Unix sockets that not everybody may use. */
import type { Server } from 'node:net';

/**
 * Begins to listen at a Unix socket that has `mode` when it comes to be: between its making and a chmod() anybody could connect,
 * and in a folder of another user's a link in its place would lead the chmod() to any file.
 */
export function listenWithMode(server: Server, path: string, mode: number): void {
  const before = process.umask(0o777 & ~mode);
  try {
    server.listen({ path });
  } finally {
    process.umask(before);
  }
}
