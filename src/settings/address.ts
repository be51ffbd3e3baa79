import { NunicornError } from '../errors.ts';

/** Where a server listens or a client connects. */
export type Address =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  /** A listening socket that the process was started with. */
  | { readonly kind: 'fd'; readonly fd: number };

export const DEFAULT_PORT = 8000;
const ANY_HOST = '0.0.0.0';
const MAX_PORT = 65535;
/** sun_path of unix(7) without the zero at its end; macOS takes less than Linux. */
export const LONGEST_SOCKET_PATH_BYTES = process.platform === 'darwin' ? 103 : 107;
const FORMS = 'HOST, HOST:PORT, :PORT, [IPV6]:PORT, unix:PATH or fd://N';

/**
 * Reads an address as Gunicorn writes it: `HOST`, `HOST:PORT`, `:PORT` (every IPv4 address of the machine),
 * `[IPV6]:PORT`, `tcp://HOST:PORT`, `unix:PATH`, `unix:///PATH` or `fd://N`. Without a port it is 8000. Host names are lower-cased.
 *
 * @throws {NunicornError} in one line, when it is none of these
 */
export function parseAddress(text: string): Address {
  const address = text.trim();
  if (address.startsWith('unix:')) return parseUnix(address);
  if (address.startsWith('fd://')) return parseDescriptor(text, address);
  const netloc = address.startsWith('tcp://') ? address.slice('tcp://'.length) : address;
  if (netloc.includes(',')) {
    throw new NunicornError(
      `'${text}' is not one address: give each its own --bind, or its own entry of the bind list`,
    );
  }
  if (/^[a-z]+:\/\//i.test(netloc)) {
    throw new NunicornError(`'${text}' is not an address to listen at: ${FORMS} is needed, without a scheme or a path`);
  }
  return netloc.includes('[') || netloc.includes(']') ? parseBracketed(text, netloc) : parseHostPort(text, netloc);
}

/** The address as users write it and as log lines show it, e.g. `127.0.0.1:8000`, `[::1]:8000` or `unix:/run/app.sock`. */
export function formatAddress(address: Address): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  if (address.kind === 'fd') return `fd://${address.fd}`;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}

function parseUnix(text: string): Address {
  const path = text.slice('unix:'.length).replace(/^\/\//, '');
  if (path === '') throw new NunicornError(`'${text}' names no socket file: unix:PATH is needed`);
  checkSocketPath(path);
  return { kind: 'unix', path };
}

/** libuv cuts a path that the system does not take, and listens at what is left. Throws NunicornError instead. */
export function checkSocketPath(path: string): void {
  if (Buffer.byteLength(path) <= LONGEST_SOCKET_PATH_BYTES) return;
  throw new NunicornError(
    `'${path}' is too long for a Unix socket: the system takes ${LONGEST_SOCKET_PATH_BYTES} bytes`,
  );
}

function parseDescriptor(text: string, address: string): Address {
  const number = address.slice('fd://'.length);
  if (!/^\d{1,9}$/.test(number))
    throw new NunicornError(`'${text}' names no descriptor: fd://N is needed, such as fd://3`);
  return { kind: 'fd', fd: Number(number) };
}

function parseBracketed(text: string, netloc: string): Address {
  const match = /^\[([^[\]]+)\](?::(.*))?$/.exec(netloc);
  const host = match?.[1];
  if (host === undefined)
    throw new NunicornError(`'${text}' is not an address: [IPV6]:PORT is needed, such as [::1]:8000`);
  return { kind: 'tcp', host: host.toLowerCase(), port: parsePort(text, match?.[2]) };
}

function parseHostPort(text: string, netloc: string): Address {
  const parts = netloc.split(':');
  if (parts.length > 2) {
    throw new NunicornError(`'${text}' is not an address: an IPv6 address goes in brackets, such as [::1]:8000`);
  }
  const host = parts[0] ?? '';
  return { kind: 'tcp', host: host === '' ? ANY_HOST : host.toLowerCase(), port: parsePort(text, parts[1]) };
}

function parsePort(text: string, port: string | undefined): number {
  if (port === undefined) return DEFAULT_PORT;
  const value = /^\d{1,5}$/.test(port) ? Number(port) : Number.NaN;
  if (!(value <= MAX_PORT)) {
    throw new NunicornError(
      `'${port}' is not a valid port number in '${text}': a whole number from 0 to ${MAX_PORT} is needed`,
    );
  }
  return value;
}
