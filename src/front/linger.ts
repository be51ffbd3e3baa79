import type { Socket } from 'node:net';

/** What a refused request still sends is read, up to these limits, lest the answer be lost in a reset (RFC 9112, 9.6). */
export const LINGER_MS = 1000;
export const LINGER_BYTES = 64 * 1024 * 1024;

/** Reads and forgets what still comes after the last answer. */
export function linger(socket: Socket): void {
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  let left = LINGER_BYTES;
  // In the place of the parser, which would go on complaining.
  socket.removeAllListeners('data');
  socket.on('data', (piece: Buffer) => {
    left -= piece.length;
    if (left < 0) socket.destroy();
  });
  socket.once('close', () => clearTimeout(timer));
}
