import { randomInt } from 'node:crypto';
import { connect, createServer, type ListenOptions, type Server } from 'node:net';
import type { ConnectionOptions } from 'node:tls';

// Below the range from which the kernel takes source ports, so that no client's socket can sit on ours.
const LOWEST = 15_000;
const HIGHEST = 32_000;

/** A port that nobody listens at and that no other test process is given while this one runs. */
export async function freePort(host = '127.0.0.1'): Promise<number> {
  for (;;) {
    const port = randomInt(LOWEST, HIGHEST);
    const claim = await listening({ path: `\0nunicorn-test-port-${port}` });
    if (claim === null) continue;
    claim.unref(); // the kernel forgets it with this process
    const server = await listening({ port, host, exclusive: true });
    if (server === null) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

function listening(options: ListenOptions): Promise<Server | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(null));
    server.listen(options, () => resolve(server));
  });
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
  const server = await listening({ port: 0, host: '::1' });
  server?.close();
  return server !== null;
}
