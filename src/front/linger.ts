/** What becomes of the bytes that nobody parses any more. */
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

/** Reads on and forgets what comes: the parser would go on complaining. */
export function forget(socket: Socket): void {
  socket.removeAllListeners('data');
  socket.on('data', () => {});
  socket.resume();
}

/** Of node:http's errors: the client has ended its side in the middle of a request. */
export const ENDED_EARLY = 'HPE_INVALID_EOF_STATE';
