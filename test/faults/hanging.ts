/** Requests that hang in every way there is, with one thread and with four. */
import { until } from '../helpers/deadline.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { type Kind, NODE_ASYNC, NODE_GTHREAD, PYTHON } from './kinds.ts';
import { type Scenario, withFaults } from './scenario.ts';

const TIMEOUT_S = 2;
const GRACEFUL_S = 3;
/** How long after the deadline the 504 may come. */
const LATE_MS = 200;
/** The same for the end of a worker that no longer hears: asked every third of --timeout, killed after --graceful-timeout. */
const DEAF_MS = ((TIMEOUT_S * 4) / 3 + GRACEFUL_S) * 1000;

interface Hang {
  readonly path: string;
  readonly what: string;
  /** The file that the app makes when it has begun. */
  readonly mark: string;
  /** Neighbours in the same process can run meanwhile. */
  readonly neighboursRun: boolean;
  /** The process is replaced: with one thread, with four. */
  readonly replaced: readonly [boolean, boolean];
  /** The process that hangs is the one that has the clients: no 504 can come. */
  readonly deaf?: true;
}

const PYTHON_HANGS: readonly Hang[] = [
  { path: '/sleep', what: 'sleeps', mark: 'sleeping', neighboursRun: true, replaced: [true, true] },
  { path: '/loop', what: 'loops in Python', mark: 'looping', neighboursRun: true, replaced: [true, true] },
  { path: '/regex', what: 'matches for ever', mark: 'matching', neighboursRun: false, replaced: [true, true] },
  { path: '/gil-wait', what: 'holds the GIL in C', mark: 'gil', neighboursRun: false, replaced: [true, true] },
  {
    path: '/swallow',
    what: 'swallows BaseException',
    mark: 'swallowing',
    neighboursRun: true,
    replaced: [true, true],
  },
  { path: '/socket', what: 'waits for a socket', mark: 'receiving', neighboursRun: true, replaced: [true, true] },
];

const NEVER = { path: '/never', what: 'is never answered', mark: 'waiting' } as const;
const LOOP = { path: '/loop', what: 'loops', mark: 'looping' } as const;
const REGEX = { path: '/regex', what: 'matches for ever', mark: 'matching' } as const;
const NATIVE = { path: '/native-sleep', what: 'waits in native code', mark: 'sleeping' } as const;

const ASYNC_HANGS: readonly Hang[] = [
  { ...NEVER, neighboursRun: true, replaced: [false, false] },
  ...[LOOP, REGEX, NATIVE].map((hang): Hang => ({ ...hang, neighboursRun: false, replaced: [true, true], deaf: true })),
];

const GTHREAD_HANGS: readonly Hang[] = [
  ...[NEVER, LOOP, REGEX].map((hang): Hang => ({ ...hang, neighboursRun: true, replaced: [false, false] })),
  { ...NATIVE, neighboursRun: true, replaced: [true, true] },
];

/** With how many threads which requests hang, and in which app. */
const HANGS = new Map<
  Kind,
  { readonly app: string; readonly threads: readonly (1 | 4)[]; readonly all: readonly Hang[] }
>([
  [PYTHON, { app: 'pathology.faults:application', threads: [1, 4], all: PYTHON_HANGS }],
  [NODE_ASYNC, { app: './node/listener.cjs', threads: [1], all: ASYNC_HANGS }],
  [NODE_GTHREAD, { app: './node/listener.cjs', threads: [1, 4], all: GTHREAD_HANGS }],
]);

export function hanging(kind: Kind): readonly Scenario[] {
  const hangs = HANGS.get(kind);
  if (hangs === undefined) return [];
  return hangs.all.flatMap((hang) => hangs.threads.map((threads) => scenario(kind, hangs.app, hang, threads)));
}

function scenario(kind: Kind, app: string, hang: Hang, threads: 1 | 4): Scenario {
  return {
    name: `a request that ${hang.what}, ${threads} thread${threads === 1 ? '' : 's'}`,
    run: () => {
      const args = ['--timeout', String(TIMEOUT_S), '--graceful-timeout', String(GRACEFUL_S)];
      return withFaults(kind, { app, chdir: FIXTURES, threads, args }, async (server) => {
        const worker = (await server.get('/pid')).text();
        const start = performance.now();
        const hung = server.get(hang.path, '', 30_000).catch(() => null);
        await server.marked(hang.mark);
        // Begin later than what hangs, so that their own time is not over with its. In an event loop one thread is many.
        const neighbours =
          threads === 1 && kind !== NODE_ASYNC
            ? []
            : [1, 2, 3].map(() => server.get('/ticks?25', '', 30_000).catch(() => null));
        const answer = await hung;
        const outcome = answer?.complete ? answer.status : 'cut';
        const late = performance.now() - start - TIMEOUT_S * 1000;
        const statuses = (await Promise.all(neighbours)).map((one) =>
          one === null ? 'cut' : one.complete ? one.status : 'cut',
        );
        const wrong: string[] = [];
        if (outcome !== (hang.deaf ? 'cut' : 504)) wrong.push(`it got ${outcome}`);
        const latest = hang.deaf ? DEAF_MS - TIMEOUT_S * 1000 + 1000 : LATE_MS;
        if (late > latest) wrong.push(`${late.toFixed(0)} ms after the deadline`);
        const expected = hang.neighboursRun ? [200] : hang.deaf ? [200, 'cut'] : [200, 502, 504];
        for (const one of statuses) if (!expected.includes(one)) wrong.push(`a neighbour got ${one}`);
        await until(async () => (await server.get('/', '', 30_000)).status === 200, 'a 200 again', 30_000);
        const replaced = hang.replaced[threads === 1 ? 0 : 1];
        if (replaced)
          await until(() => !server.workers().includes(Number(worker)), 'the worker to be replaced', 30_000);
        const stayed = server.workers().includes(Number(worker));
        if (!replaced && !stayed) wrong.push('the worker was replaced, which was not needed');
        const figures = `${outcome} ${late.toFixed(0)} ms after the deadline; neighbours ${statuses.join(' ') || '-'}; worker ${stayed ? 'stays' : 'replaced'}`;
        return { figures, wrong };
      });
    },
  };
}
