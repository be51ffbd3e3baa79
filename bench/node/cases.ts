/** What is measured of Node apps, on what, and what is promised. */

export type ServerId = 'nunicorn' | 'cluster' | 'pm2';

export interface Variant {
  /** As the tables show it. */
  readonly id: string;
  readonly server: ServerId;
  /** Major version of Node. Null: the one that runs the benchmark. */
  readonly node: number | null;
  /** Below bench/apps/node. */
  readonly app: string;
  readonly workers: number;
  /** Of gthread. Null: async. */
  readonly threads: number | null;
}

export interface Case {
  readonly id: string;
  readonly title: string;
  readonly variants: readonly Variant[];
  /** 'hello': full speed. 'compute': clients that want the processor, and health checks beside them. */
  readonly load: 'hello' | 'compute';
}

export const CONNECTIONS = 32;
export const THREADS = 4;
export const NODE_VERSIONS = [20, 22, 24, 26] as const;
export const WORK_MS = 20;
export const WORK_CLIENTS = 3;
export const HEALTH_PER_SECOND = 50;
/** The ceiling of the case: two processes that do nothing but the work. */
export const CEILING = 'the work alone, two processes';

const nunicorn = { server: 'nunicorn', node: null, threads: null } as const;
const against = (workers: number): Variant[] => [
  { ...nunicorn, id: 'nunicorn', app: 'hello.cjs', workers },
  { ...nunicorn, id: 'nunicorn, a program', app: 'program.cjs', workers },
  { ...nunicorn, id: 'node:cluster', server: 'cluster', app: 'program.cjs', workers },
  { ...nunicorn, id: 'PM2', server: 'pm2', app: 'program.cjs', workers },
];

export const hopOf = (node: number): readonly [async: string, gthread: string] => [
  `Node ${node}, async`,
  `Node ${node}, gthread`,
];

export const CASES: readonly Case[] = [
  ...[1, 2].map(
    (workers): Case => ({
      id: `async-${workers}`,
      title: `Hello in the worker's own event loop, ${workers} worker${workers === 1 ? '' : 's'}, full speed`,
      variants: against(workers),
      load: 'hello',
    }),
  ),
  {
    id: 'hop',
    title: `Hello on threads, 1 worker of ${THREADS}, full speed`,
    variants: NODE_VERSIONS.flatMap((node) =>
      hopOf(node).map(
        (id, at): Variant => ({
          ...nunicorn,
          id,
          node,
          app: 'hello.cjs',
          workers: 1,
          threads: at === 0 ? null : THREADS,
        }),
      ),
    ),
    load: 'hello',
  },
  {
    id: 'compute',
    title: `${WORK_CLIENTS} clients want ${WORK_MS} ms of the processor, 1 worker on all cores`,
    variants: [
      { ...nunicorn, id: `gthread, ${THREADS} threads`, app: 'compute.cjs', workers: 1, threads: THREADS },
      { ...nunicorn, id: 'async, one event loop', app: 'compute.cjs', workers: 1 },
    ],
    load: 'compute',
  },
];

/** Either will do: async is to cost no more than this beyond bare node:cluster. */
export const ASYNC_COST = { ratio: 1.1, us: 1.5 } as const;
/** What a thread may cost a request beyond the event loop, by version of Node. */
export const HOP_US: Readonly<Record<number, number>> = { 20: 25, 22: 25, 26: 15 };
export const COMPUTE = { variant: `gthread, ${THREADS} threads`, leastOfCeiling: 0.9, healthP99Ms: 60 } as const;
