/** What is measured and what is promised: the sites, the loads put on them, and the targets. */

import type { ServerId } from './servers.ts';

export type Load =
  /** Closed loop: each connection asks again as soon as it is answered. */
  | {
      readonly kind: 'full';
      readonly connections: number;
      readonly newConnections?: boolean;
      readonly postBytes?: number;
      readonly nginx?: boolean;
    }
  /** Open loop at a constant rate; 'half' is half of what gunicorn gthread reaches on this site at full speed. */
  | { readonly kind: 'rate'; readonly perSecond: number | 'half'; readonly connections: number }
  /** Simultaneous requests on new connections; twenty trials in the whole run. */
  | { readonly kind: 'burst'; readonly requests: number };

export interface Case {
  readonly id: string;
  readonly title: string;
  readonly load: Load;
  /** Variants that take part; all if absent. */
  readonly only?: readonly string[];
  /** The window is so many times as long: for slow pages, of which a short one has few. */
  readonly timesLonger?: number;
}

export interface Variant {
  /** Server and workers x threads, as the tables show it. */
  readonly id: string;
  /** 'python-threads' is no server but the ceiling of the sleep case: threads that only sleep. */
  readonly server: ServerId | 'python-threads';
  readonly workers: number;
  readonly threads: number;
}

/** An app with the servers it runs on. A server is started once a round and gets every load of its site. */
export interface Site {
  readonly id: string;
  readonly app: string;
  readonly path: string;
  /** How the right answer is known. */
  readonly expect: { readonly bytes: number } | { readonly contains: string };
  readonly variants: readonly Variant[];
  readonly cases: readonly Case[];
}

export const MIN_BURST_TRIALS = 20;
export const BURST_LIMIT_MS = 600;
export const SLEEP_SECONDS = 0.02;

const HELLO_BYTES = 'Hello, world!\n'.length;

function variant(server: Variant['server'], workers: number, threads: number): Variant {
  return { id: `${server} ${workers}x${threads}`, server, workers, threads };
}

const HELLO_VARIANTS = [
  variant('nunicorn', 1, 1),
  variant('gunicorn-gthread', 1, 1),
  variant('nunicorn', 1, 4),
  variant('gunicorn-gthread', 1, 4),
  variant('gunicorn-sync', 1, 1),
  variant('uwsgi', 1, 4),
  variant('waitress', 1, 4),
  variant('granian', 1, 4),
  variant('node-http', 1, 1),
];
const ids = HELLO_VARIANTS.map(({ id }) => id);
/** To keep the whole run under its time, not every server gets every load. */
const WITHOUT_WAITRESS = ids.filter((id) => !id.startsWith('waitress'));
const FOUR_THREADS = WITHOUT_WAITRESS.filter((id) => !/^(nunicorn|gunicorn-gthread) 1x1$/.test(id));

export const SITES: readonly Site[] = [
  {
    id: 'hello',
    app: 'hello:application',
    path: '/',
    expect: { bytes: HELLO_BYTES },
    variants: HELLO_VARIANTS,
    cases: [
      {
        id: 'hello',
        title: 'Hello, keep-alive, 32 connections, full speed',
        load: { kind: 'full', connections: 32 },
      },
      {
        id: 'hello-500',
        title: 'Hello, keep-alive, 32 connections, constant 500/s',
        load: { kind: 'rate', perSecond: 500, connections: 32 },
        only: WITHOUT_WAITRESS,
      },
      {
        id: 'hello-2000',
        title: 'Hello, keep-alive, 32 connections, constant 2,000/s',
        load: { kind: 'rate', perSecond: 2000, connections: 32 },
        only: WITHOUT_WAITRESS,
      },
      {
        id: 'hello-close',
        title: 'Hello, a new connection for each request, 32 at a time, full speed',
        load: { kind: 'full', connections: 32, newConnections: true },
        only: FOUR_THREADS,
      },
      {
        id: 'hello-nginx',
        title: 'Hello behind nginx with its default proxy settings (HTTP/1.0, new connections), 32 clients, full speed',
        load: { kind: 'full', connections: 32, nginx: true },
        only: FOUR_THREADS,
      },
    ],
  },
  {
    id: 'echo',
    app: 'hello:echo',
    path: '/',
    expect: { bytes: 0 },
    variants: [
      variant('nunicorn', 1, 4),
      variant('gunicorn-gthread', 1, 4),
      variant('gunicorn-sync', 1, 1),
      variant('uwsgi', 1, 4),
      variant('waitress', 1, 4),
      variant('granian', 1, 4),
    ],
    cases: [
      {
        id: 'echo',
        title: 'Echo of a 10 KB POST, keep-alive, 32 connections, full speed',
        load: { kind: 'full', connections: 32, postBytes: 10_240 },
      },
    ],
  },
  {
    id: 'django',
    app: 'django_shop.wsgi:application',
    path: '/books/',
    expect: { contains: '<p>12 books</p>' },
    variants: [
      variant('nunicorn', 2, 2),
      variant('gunicorn-gthread', 2, 2),
      variant('gunicorn-sync', 2, 1),
      variant('uwsgi', 2, 2),
      variant('granian', 2, 2),
    ],
    cases: [
      {
        id: 'django',
        title: 'Django list page from SQLite, keep-alive, 32 connections, full speed, windows of twice the length',
        load: { kind: 'full', connections: 32 },
        timesLonger: 2,
      },
      {
        id: 'django-half',
        title:
          "Django list page from SQLite, keep-alive, 32 connections, constant half of gunicorn gthread's full speed, windows of twice the length",
        load: { kind: 'rate', perSecond: 'half', connections: 32 },
        timesLonger: 2,
      },
    ],
  },
  {
    id: 'sleep',
    app: 'hello:sleep_20ms',
    path: '/',
    expect: { bytes: HELLO_BYTES },
    variants: [
      variant('python-threads', 1, 8),
      variant('nunicorn', 2, 4),
      variant('gunicorn-gthread', 2, 4),
      variant('uwsgi', 2, 4),
      variant('granian', 2, 4),
    ],
    cases: [
      {
        id: 'sleep',
        title: 'A sleep of 20 ms, eight threads, 16 clients, full speed',
        load: { kind: 'full', connections: 16 },
      },
    ],
  },
  {
    id: 'burst',
    app: 'hello:sleep_500ms',
    path: '/',
    expect: { bytes: HELLO_BYTES },
    variants: [variant('nunicorn', 4, 2), variant('gunicorn-gthread', 4, 2), variant('uwsgi', 4, 2)],
    cases: [
      {
        id: 'burst',
        title: 'Eight requests of 0.5 s at once on new connections, eight threads: until the last answer',
        load: { kind: 'burst', requests: 8 },
      },
    ],
  },
];

export type Metric = 'cpuUs' | 'p99Ms' | 'rps';

export interface RatioTarget {
  readonly case: string;
  readonly metric: Metric;
  readonly variant: string;
  readonly against: string;
  readonly atMost?: number;
  readonly atLeast?: number;
}

function cpu(caseId: string, variantId: string, against: string, atMost: number): RatioTarget {
  return { case: caseId, metric: 'cpuUs', variant: variantId, against, atMost };
}

function p99(caseId: string, variantId: string, against: string, atMost: number): RatioTarget {
  return { case: caseId, metric: 'p99Ms', variant: variantId, against, atMost };
}

export const RATIO_TARGETS: readonly RatioTarget[] = [
  cpu('hello', 'nunicorn 1x1', 'gunicorn-gthread 1x1', 0.3),
  cpu('hello', 'nunicorn 1x4', 'gunicorn-gthread 1x4', 0.3),
  cpu('hello', 'nunicorn 1x1', 'node-http 1x1', 2.3),
  cpu('hello', 'nunicorn 1x4', 'node-http 1x1', 2.3),
  cpu('hello-500', 'nunicorn 1x1', 'gunicorn-gthread 1x1', 0.7),
  cpu('hello-500', 'nunicorn 1x4', 'gunicorn-gthread 1x4', 0.7),
  cpu('hello-2000', 'nunicorn 1x1', 'gunicorn-gthread 1x1', 0.5),
  cpu('hello-2000', 'nunicorn 1x4', 'gunicorn-gthread 1x4', 0.5),
  cpu('hello-close', 'nunicorn 1x4', 'gunicorn-sync 1x1', 1),
  cpu('django', 'nunicorn 2x2', 'gunicorn-gthread 2x2', 1),
  p99('django', 'nunicorn 2x2', 'gunicorn-gthread 2x2', 1),
  cpu('django-half', 'nunicorn 2x2', 'gunicorn-gthread 2x2', 1),
  p99('django-half', 'nunicorn 2x2', 'gunicorn-gthread 2x2', 1),
  { case: 'sleep', metric: 'rps', variant: 'nunicorn 2x4', against: 'python-threads 1x8', atLeast: 0.97 },
];

/** Private memory of master and front together, on the hello site. */
export const MEMORY_TARGETS = { variant: 'nunicorn 1x4', idleMb: 30, afterLoadMb: 40 } as const;
