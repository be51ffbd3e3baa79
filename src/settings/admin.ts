/** What the settings of the admin server and of statsd mean together. */
import { isIPv4 } from 'node:net';
import { NunicornError } from '../errors.ts';
import type { StatsdSettings } from '../metrics/statsd.ts';
import { type Address, parseAddress } from './address.ts';
import { parseStatsdAddress } from './statsd-address.ts';
import type { Settings } from './table.ts';

/** Whether anything is to be counted. */
export function wantsMetrics(settings: Settings): boolean {
  return settings.admin_bind !== null || settings.statsd_host !== null || controlSocketPath(settings) !== null;
}

export function statsdSettings(settings: Settings): StatsdSettings | null {
  if (settings.statsd_host === null) return null;
  return {
    address: parseStatsdAddress(settings.statsd_host),
    // A point at the end of every prefix of more than one letter, as in Gunicorn.
    prefix: settings.statsd_prefix.replace(/^(.+[^.]+)\.*$/, '$1.'),
    tags: settings.dogstatsd_tags,
  };
}

/** Null: there is none. */
export function controlSocketPath({ control_socket: path, control_socket_disable: disabled }: Settings): string | null {
  return disabled ? null : path;
}

/** An address that the master can listen at by itself. Throws NunicornError for others. */
export function parseAdminAddress(text: string): Exclude<Address, { kind: 'fd' }> {
  const address = parseAddress(text);
  if (address.kind === 'fd') throw new NunicornError(`'${text}': --admin-bind takes HOST:PORT or unix:PATH`);
  return address;
}

/** Throws NunicornError where other machines could reach the admin server and nothing would keep them out. */
export function checkAdmin(bind: string | null, token: string | null): void {
  if (bind === null || token !== null) return;
  const address = parseAdminAddress(bind);
  if (address.kind === 'unix' || isLoopback(address.host)) return;
  throw new NunicornError(
    `--admin-bind ${bind} is refused: other machines can reach it, and it shows paths and addresses of requests. ` +
      'Give --admin-token (better NUNICORN_ADMIN_TOKEN in the environment), or bind to 127.0.0.1',
  );
}

/** Whether only this machine can reach `host`. */
function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true;
  const four = host.startsWith('::ffff:') ? host.slice('::ffff:'.length) : host;
  return isIPv4(four) && four.startsWith('127.');
}
