import { randomInt } from 'node:crypto';
import { connect, createServer } from 'node:net';
import type { ConnectionOptions } from 'node:tls';

// Below the range from which the kernel takes source ports, so that no client's socket can sit on ours.
const LOWEST = 15_000;
const HIGHEST = 32_000;

export async function freePort(host = '127.0.0.1'): Promise<number> {
  for (;;) {
    const port = randomInt(LOWEST, HIGHEST);
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(false));
      server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

export type Address = ({ readonly host: string; readonly port: number } | { readonly path: string }) & {
  /** HTTPS, with these options of the client. */
  readonly tls?: ConnectionOptions;
  /** Sent first, before the handshake. */
  readonly prelude?: string | Buffer;
};

/** True when somebody accepts connections there. */
export function isListening(address: Address): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(address);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

export async function hasIPv6(): Promise<boolean> {
  return await new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port: 0, host: '::1' }, () => server.close(() => resolve(true)));
  });
}
