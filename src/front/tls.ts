/** HTTPS. Loaded only with --certfile. */
import type { IncomingMessage, ServerOptions, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { TLSSocket } from 'node:tls';
import type { TlsConfig } from './messages.ts';

/** A server whose requests come over TLS 1.2 or newer. */
export function createTlsServer<Q extends typeof IncomingMessage, R extends typeof ServerResponse<InstanceType<Q>>>(
  config: TlsConfig,
  options: ServerOptions<Q, R>,
): Server<Q, R> {
  return createServer({
    ...options,
    ...contextOptions(config),
    requestCert: config.clientCertificates !== 'none',
    rejectUnauthorized: config.clientCertificates === 'required',
    ALPNProtocols: ['http/1.1'],
  });
}

/** Whether the client may go on: an optional certificate that is there has to be a good one. */
export function isAcceptable(socket: TLSSocket, config: TlsConfig): boolean {
  if (config.clientCertificates !== 'optional' || socket.authorized) return true;
  return Object.keys(socket.getPeerCertificate()).length === 0;
}

function contextOptions(config: TlsConfig) {
  return {
    cert: config.cert,
    key: config.key,
    minVersion: 'TLSv1.2' as const,
    ...(config.ca === null ? {} : { ca: config.ca }),
    ...(config.ciphers === null ? {} : { ciphers: config.ciphers }),
  };
}
