// What a statsd server receives, line by line.
import { createSocket, type Socket } from 'node:dgram';
import { after } from 'node:test';
import { until } from '../helpers/deadline.ts';
import type { Kind, Server } from '../helpers/server.ts';
import { type Differs, onNewServers, type Scenario, type Transcript } from './parity.ts';

/** A statsd server for each of the two. */
class Listener {
  readonly lines: string[] = [];
  private readonly socket: Socket;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('message', (datagram) => this.lines.push(...datagram.toString().split('\n').filter(Boolean)));
  }

  static async open(): Promise<Listener> {
    const socket = createSocket('udp4');
    await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
    return new Listener(socket);
  }

  get port(): number {
    return this.socket.address().port;
  }

  close(): void {
    this.socket.close();
  }
}

const listeners: Record<Kind, Listener> = { gunicorn: await Listener.open(), nunicorn: await Listener.open() };
after(() => {
  for (const listener of Object.values(listeners)) listener.close();
});

/** Gunicorn's metrics, the times masked, those that mean the same gathered: how often a gauge is sent is free. */
function seen(lines: readonly string[], prefix = ''): Transcript {
  const shown = lines
    .filter((line) => line.startsWith(`${prefix}gunicorn.`))
    .map((line) => line.replace(/(request\.duration:)[\d.]+/, '$1MS'));
  const counts = new Map<string, number>();
  for (const line of shown) counts.set(line, (counts.get(line) ?? 0) + 1);
  return [...counts]
    .filter(([line]) => !line.includes('gunicorn.workers:'))
    .map(([line, count]) => `${count} x ${line}`)
    .sort();
}

interface Case {
  readonly name: string;
  readonly args?: readonly string[];
  readonly prefix?: string;
  readonly requests: readonly string[];
  /** A line that is the last to come. */
  readonly until: (lines: readonly string[]) => boolean;
  readonly also?: (server: Server) => Promise<void>;
  readonly differs?: Differs;
}

function scenario({ name, args = [], prefix = '', requests, until: complete, also, differs }: Case): Scenario {
  return {
    name,
    options: {
      app: 'wsgi_matrix:application',
      threads: 2,
      args: (kind: Kind) => ['--statsd-host', `127.0.0.1:${listeners[kind].port}`, ...args],
    },
    run: async (server) => {
      const { lines } = listeners[server.kind];
      await server.ready();
      // The requests that found it ready are counted as well.
      await until(() => lines.some((line) => line.includes('request.status.200')), 'the first request');
      lines.length = 0;
      for (const path of requests) await server.get(path).catch(() => null);
      await also?.(server);
      await until(
        () => complete(lines),
        () => `the last line; have ${lines.join(', ')}`,
      );
      const transcript = seen(lines, prefix);
      server.kill('SIGTERM');
      await server.exit();
      lines.length = 0;
      return transcript;
    },
    ...(differs && { differs }),
  };
}

function counted(lines: readonly string[], part: string): number {
  return lines.filter((line) => line.includes(part)).length;
}

/** They share the two listeners. */
const ONE_AFTER_THE_OTHER = 1;

onNewServers(
  'statsd',
  { app: 'wsgi_matrix:application' },
  [
    scenario({
      name: 'three requests',
      requests: ['/', '/', '/status/201'],
      until: (l) => counted(l, 'status.201') === 1 && counted(l, 'status.200') === 2,
    }),
    scenario({
      name: 'a page that is not there',
      requests: ['/nowhere'],
      until: (l) => counted(l, 'status.404') === 1,
    }),
    scenario({
      name: 'a prefix',
      args: ['--statsd-prefix', 'svc'],
      prefix: 'svc.',
      requests: ['/'],
      until: (l) => counted(l, 'status.200') === 1,
    }),
    scenario({
      name: 'a prefix with a point',
      args: ['--statsd-prefix', 'svc.'],
      prefix: 'svc.',
      requests: ['/'],
      until: (l) => counted(l, 'status.200') === 1,
    }),
    scenario({
      name: 'tags',
      args: ['--dogstatsd-tags', 'a:b,c'],
      requests: ['/'],
      until: (l) => counted(l, 'status.200') === 1,
    }),
    scenario({
      name: 'an OSError of the app',
      // The second request tells that nothing of the first is still to come.
      requests: ['/error/oserror', '/status/201'],
      until: (l) => counted(l, 'status.201') === 1 && counted(l, 'log.') >= 1,
      differs: {
        nunicorn: 'is counted as a request with status 500',
        gunicorn: 'is counted as a line of the log alone',
        why: 'An error of the app is answered, whatever its class',
      },
    }),
    scenario({
      name: 'an error of the app',
      requests: ['/error/before'],
      until: (l) => counted(l, 'status.500') === 1 && counted(l, 'log.') >= 1,
    }),
    {
      name: 'the number of workers',
      options: {
        app: 'wsgi_matrix:application',
        workers: 2,
        args: (kind: Kind) => ['--statsd-host', `127.0.0.1:${listeners[kind].port}`],
      },
      run: async (server) => {
        const { lines } = listeners[server.kind];
        await server.ready();
        await until(
          () => lines.includes('gunicorn.workers:2|g'),
          () => `the gauge; have ${lines.join(', ')}`,
        );
        server.kill('SIGTTIN');
        await until(
          () => lines.includes('gunicorn.workers:3|g'),
          () => `the gauge; have ${lines.join(', ')}`,
        );
        return ['gunicorn.workers:2|g', 'gunicorn.workers:3|g'];
      },
    },
  ],
  ONE_AFTER_THE_OTHER,
);
