/** What is often sent by mistake to an address that speaks HTTP, by its first bytes, and what to do. */
const OTHERS: readonly (readonly [isMeant: (start: string) => boolean, means: string])[] = [
  [
    (start) => start.startsWith('\x16\x03'),
    'a TLS handshake, but this address speaks plain HTTP: use http:// in the proxy, or --certfile here',
  ],
  [
    (start) => start[0] === '\0' && start[3] === '\0',
    'the uwsgi protocol, but this address speaks HTTP: in nginx use proxy_pass in the place of uwsgi_pass',
  ],
  [
    (start) => start.startsWith('PRI * HTTP/2'),
    'HTTP/2, but this address speaks HTTP/1.1 only: have the proxy speak that',
  ],
  [
    (start) => start.startsWith('PROXY ') || start.startsWith('\r\n\r\n\0\r\nQUIT'),
    'a header of the PROXY protocol: --proxy-protocol reads it',
  ],
];
/** Errors of the parser with a request's first bytes. */
const AT_THE_START = ['HPE_INVALID_METHOD', 'HPE_PAUSED_H2_UPGRADE'];

/** For the log: what a client has sent, where that is known to be something else than HTTP, or what the parser says. */
export function describeParseError(error: NodeJS.ErrnoException & { readonly rawPacket?: Buffer }): string {
  if (!AT_THE_START.includes(error.code ?? '') || error.rawPacket === undefined) return error.message;
  const start = error.rawPacket.toString('latin1', 0, 16);
  return OTHERS.find(([isMeant]) => isMeant(start))?.[1] ?? error.message;
}
