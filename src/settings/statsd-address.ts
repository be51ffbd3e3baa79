/** Where a statsd server listens. */
import { NunicornError } from '../errors.ts';
import { parseAddress } from './address.ts';

export type StatsdAddress =
  | { readonly kind: 'udp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

const DEFAULT_PORT = 8125;

/**
 * Reads HOST, HOST:PORT or unix://PATH. As in Gunicorn, `unix:NUMBER` is a host that is called unix.
 *
 * @throws {NunicornError} in one line, when it is none of these
 */
export function parseStatsdAddress(text: string): StatsdAddress {
  const host = /^unix:(\d+)$/.exec(text);
  if (host !== null) return { kind: 'udp', host: 'unix', port: Number(host[1]) };
  // A port that is none is refused as such.
  const withPort = /^unix:|:[^:\]/]+$/.test(text) ? text : `${text.replace(/:$/, '')}:${DEFAULT_PORT}`;
  const address = parseAddress(withPort.replace(/^udp:\/\//, ''));
  if (address.kind === 'unix') return address;
  if (address.kind === 'fd') throw new NunicornError(`'${text}': HOST:PORT or unix://PATH is needed`);
  if (address.host === '0.0.0.0')
    throw new NunicornError(`'${text}' names no host: HOST:PORT or unix://PATH is needed`);
  return { kind: 'udp', host: address.host, port: address.port };
}
