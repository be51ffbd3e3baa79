/**
 * The header by which a proxy tells who its client is, ahead of everything else on a connection: the PROXY protocol, version 1
 * (a line) and 2 (binary). https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
 */
import { isIPv4, isIPv6 } from 'node:net';
import type { ProxyProtocol } from '../settings/types.ts';

export interface ProxyHeader {
  /** LOCAL: the proxy speaks for itself (a health check). UNKNOWN, UNSPEC: it does not say for whom. */
  readonly protocol: 'TCP4' | 'TCP6' | 'LOCAL' | 'UNKNOWN' | 'UNSPEC';
  /** Who connected, and to which address of the proxy; null: the connection's own addresses hold. */
  readonly addresses: {
    readonly client: string;
    readonly clientPort: number;
    readonly proxy: string;
    readonly proxyPort: number;
  } | null;
}

export type ProxyReading =
  /** Too few bytes to tell. */
  | { readonly state: 'incomplete' }
  /** The connection begins with something else. */
  | { readonly state: 'absent' }
  | { readonly state: 'present'; readonly header: ProxyHeader; readonly bytes: number }
  | { readonly state: 'invalid'; readonly message: string };

const V1_START = Buffer.from('PROXY ', 'latin1');
/** With CRLF, by the specification. */
const V1_MOST_BYTES = 107;
const V2_START = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
const V2_FIXED_BYTES = 16;

/** Looks for a header at the beginning of `bytes`, which is all that has come so far. */
export function readProxyHeader(bytes: Buffer, mode: ProxyProtocol): ProxyReading {
  for (const [version, start, read] of [
    ['v1', V1_START, readV1],
    ['v2', V2_START, readV2],
  ] as const) {
    if (mode !== version && mode !== 'auto') continue;
    const there = Math.min(bytes.length, start.length);
    if (bytes.compare(start, 0, there, 0, there) !== 0) continue;
    return there < start.length ? { state: 'incomplete' } : read(bytes);
  }
  return { state: 'absent' };
}

function readV1(bytes: Buffer): ProxyReading {
  const end = bytes.subarray(0, V1_MOST_BYTES).indexOf('\r\n');
  if (end < 0) {
    if (bytes.length < V1_MOST_BYTES) return { state: 'incomplete' };
    return { state: 'invalid', message: `PROXY line of more than ${V1_MOST_BYTES} bytes` };
  }
  const line = bytes.toString('latin1', 0, end);
  const invalid: ProxyReading = { state: 'invalid', message: `Invalid PROXY line ${JSON.stringify(line)}` };
  const [, protocol, client = '', proxy = '', clientPort = '', proxyPort = '', ...more] = line.split(' ');
  // What follows UNKNOWN is not to be looked at.
  if (protocol === 'UNKNOWN') return { state: 'present', header: { protocol, addresses: null }, bytes: end + 2 };
  if (protocol !== 'TCP4' && protocol !== 'TCP6') return invalid;
  const isAddress = protocol === 'TCP4' ? isIPv4 : isPlainIPv6;
  if (!isAddress(client) || !isAddress(proxy) || !isPort(clientPort) || !isPort(proxyPort) || more.length > 0) {
    return invalid;
  }
  const addresses = { client, clientPort: Number(clientPort), proxy, proxyPort: Number(proxyPort) };
  return { state: 'present', header: { protocol, addresses }, bytes: end + 2 };
}

function isPlainIPv6(text: string): boolean {
  return isIPv6(text) && !text.includes('%');
}

function isPort(text: string): boolean {
  return /^\d{1,5}$/.test(text) && Number(text) <= 65535;
}

function readV2(bytes: Buffer): ProxyReading {
  if (bytes.length < V2_FIXED_BYTES) return { state: 'incomplete' };
  const versionAndCommand = bytes.readUInt8(12);
  const familyAndTransport = bytes.readUInt8(13);
  const length = bytes.readUInt16BE(14);
  const command = versionAndCommand & 0x0f;
  if (versionAndCommand >> 4 !== 2) return wrong(`unsupported version ${versionAndCommand >> 4}`);
  if (command > 1) return wrong(`unsupported command ${command}`);
  const total = V2_FIXED_BYTES + length;
  if (bytes.length < total) return { state: 'incomplete' };
  if (command === 0) return { state: 'present', header: { protocol: 'LOCAL', addresses: null }, bytes: total };
  const family = familyAndTransport >> 4;
  if (family === 0) return { state: 'present', header: { protocol: 'UNSPEC', addresses: null }, bytes: total };
  if ((familyAndTransport & 0x0f) !== 1) return wrong('only TCP is supported');
  if (family > 2) return wrong(`unsupported address family ${family}`);
  const size = family === 1 ? 4 : 16;
  // Further fields (TLVs) may follow; nothing here needs them.
  if (length < 2 * size + 4) return wrong('its addresses are cut off');
  const show = family === 1 ? ipv4 : ipv6;
  const ports = V2_FIXED_BYTES + 2 * size;
  const addresses = {
    client: show(bytes, V2_FIXED_BYTES),
    clientPort: bytes.readUInt16BE(ports),
    proxy: show(bytes, V2_FIXED_BYTES + size),
    proxyPort: bytes.readUInt16BE(ports + 2),
  };
  return { state: 'present', header: { protocol: family === 1 ? 'TCP4' : 'TCP6', addresses }, bytes: total };
}

function wrong(what: string): ProxyReading {
  return { state: 'invalid', message: `Invalid PROXY header: ${what}` };
}

function ipv4(bytes: Buffer, at: number): string {
  return [...bytes.subarray(at, at + 4)].join('.');
}

/** As inet_ntop(3) writes it: the longest run of zeros is `::`. */
function ipv6(bytes: Buffer, at: number): string {
  const groups = Array.from({ length: 8 }, (_, group) => bytes.readUInt16BE(at + 2 * group).toString(16)).join(':');
  // A URL brings it into that form, in brackets.
  return new URL(`http://[${groups}]`).hostname.slice(1, -1);
}
