/**
 * Metrics to a statsd server, through hot-shots: Gunicorn's names and types, and nunicorn's own under the same prefix. Fronts
 * send what they answer, the master the rest. Lines are gathered into datagrams; what a server that is gone does not get is lost.
 */
import { createRequire } from 'node:module';
import { getSystemErrorName } from 'node:util';
import type { StatsD } from 'hot-shots';
import { NunicornError } from '../errors.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { StatsdAddress } from '../settings/statsd-address.ts';

export interface StatsdSettings {
  readonly address: StatsdAddress;
  /** In front of each name as it is: empty, one letter, or with a point at its end. */
  readonly prefix: string;
  /** As the user wrote them: `name:value,name:value`. */
  readonly tags: string;
}

/** A line that is made already, to which tags are added, is one of the library's own ways that its types leave out. */
type Client = StatsD & { send(line: string): void };

/** Fits into a packet of an Ethernet. */
const MAX_DATAGRAM_BYTES = 1432;
const FLUSH_MS = 1000;

export class Statsd {
  private readonly client: Client;
  /** hot-shots would put a point behind it. */
  private readonly prefix: string;

  /** @throws {NunicornError} if this machine cannot send to such an address */
  static async open({ address, prefix, tags }: StatsdSettings, log: ErrorLog): Promise<Statsd> {
    const { StatsD } = await import('hot-shots');
    let first: Error | null = null;
    const failed = (error: Error): void => {
      if (first !== null) return;
      first = error;
      if (needsUnixDgram(error)) return;
      log.warning(`statsd at ${textOf(address)} cannot be reached (${reasonOf(error)}); metrics are lost meanwhile`);
    };
    // It makes its socket now. A server of a Unix socket that is not there is looked for again at each datagram.
    const client: unknown = new StatsD({
      ...(address.kind === 'udp'
        ? { protocol: 'udp', host: address.host, port: address.port, cacheDns: true }
        : { protocol: 'uds', path: address.path, udsGracefulErrorHandling: true }),
      globalTags: tags === '' ? [] : tags.split(','),
      // What DD_ENTITY_ID and the like hold is not what the user asked for; Gunicorn does not add it.
      includeDataDogTags: false,
      maxBufferSize: MAX_DATAGRAM_BYTES,
      bufferFlushInterval: FLUSH_MS,
      errorHandler: failed,
    });
    if (first !== null && needsUnixDgram(first)) {
      throw new NunicornError(
        `--statsd-host ${textOf(address)}: Node needs the package unix-dgram for Unix sockets, and ` +
          `${whyNoUnixDgram()}, with a C++ compiler, make and Python; or use HOST:PORT`,
      );
    }
    return new Statsd(client as Client, prefix);
  }

  private constructor(client: Client, prefix: string) {
    this.client = client;
    this.prefix = prefix;
  }

  /** As Gunicorn sends it for each request that it logs. */
  request(status: number, durationMs: number): void {
    this.client.timing(`${this.prefix}gunicorn.request.duration`, durationMs);
    this.count('gunicorn.requests', 1);
    this.count(`gunicorn.request.status.${status}`, 1);
  }

  /** With the rate that Gunicorn writes, although it says nothing: hot-shots itself leaves it out. */
  count(name: string, by: number): void {
    this.client.send(`${this.prefix}${name}:${by}|c|@1.0`);
  }

  gauge(name: string, value: number): void {
    this.client.gauge(this.prefix + name, value);
  }

  histogram(name: string, value: number): void {
    this.client.histogram(this.prefix + name, value);
  }

  /** Sends what has gathered. */
  close(): Promise<void> {
    return new Promise((resolve) => this.client.close(() => resolve()));
  }
}

function needsUnixDgram(error: Error): boolean {
  return error.message.includes('unix_dgram');
}

/** hot-shots does not say why it could not load it. */
function whyNoUnixDgram(): string {
  try {
    createRequire(import.meta.resolve('hot-shots'))('unix-dgram');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_DLOPEN_FAILED')
      return `it was built for another version of Node than ${process.version}: install nunicorn again with this one`;
  }
  return 'it is not there: npm install unix-dgram';
}

/** unix-dgram's errors have negative numbers of the system as their codes; hot-shots puts words of its own before others. */
function reasonOf(error: Error): string {
  const code: unknown = 'code' in error ? error.code : undefined;
  if (typeof code === 'number' && code < 0) return getSystemErrorName(code);
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'its name is not known';
  return typeof code === 'string' ? code : error.message;
}

function textOf(address: StatsdAddress): string {
  return address.kind === 'unix' ? `unix://${address.path}` : `${address.host}:${address.port}`;
}
