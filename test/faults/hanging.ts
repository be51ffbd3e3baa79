/** Requests that hang in every way there is, with one thread and with four. */
import { until } from '../helpers/deadline.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { type Scenario, withFaults } from './scenario.ts';

const TIMEOUT_S = 2;
/** How long after the deadline the 504 may come. */
const LATE_MS = 200;

interface Hang {
  readonly path: string;
  readonly what: string;
  /** The file that the app makes when it has begun. */
  readonly mark: string;
  /** Neighbours in the same process can run meanwhile. */
  readonly releasesLock: boolean;
  /** An interruption ends it: with one thread, with four. Null: mostly, on a busy machine not soon enough. */
  readonly interrupted: readonly [boolean | null, boolean];
}

const HANGS: readonly Hang[] = [
  { path: '/sleep', what: 'sleeps', mark: 'sleeping', releasesLock: true, interrupted: [true, false] },
  { path: '/loop', what: 'loops in Python', mark: 'looping', releasesLock: true, interrupted: [true, true] },
  { path: '/regex', what: 'matches for ever', mark: 'matching', releasesLock: false, interrupted: [null, false] },
  { path: '/gil-wait', what: 'holds the GIL in C', mark: 'gil', releasesLock: false, interrupted: [false, false] },
  {
    path: '/swallow',
    what: 'swallows BaseException',
    mark: 'swallowing',
    releasesLock: true,
    interrupted: [false, false],
  },
  { path: '/socket', what: 'waits for a socket', mark: 'receiving', releasesLock: true, interrupted: [true, false] },
];

export const hanging: readonly Scenario[] = HANGS.flatMap((hang) =>
  [1, 4].map(
    (threads): Scenario => ({
      name: `a request that ${hang.what}, ${threads} thread${threads === 1 ? '' : 's'}`,
      run: () => {
        const args = ['--timeout', String(TIMEOUT_S), '--graceful-timeout', '3'];
        const options = { app: 'pathology.faults:application', chdir: FIXTURES, threads, args };
        return withFaults(options, async (server) => {
          const worker = (await server.get('/pid')).text();
          const start = performance.now();
          const hung = server.get(hang.path, '', 30_000);
          await server.marked(hang.mark);
          // Begin later than what hangs, so that their own time is not over with its.
          const neighbours =
            threads === 1 ? [] : [1, 2, 3].map(() => server.get('/ticks?25', '', 30_000).catch(() => null));
          const { status } = await hung;
          const late = performance.now() - start - TIMEOUT_S * 1000;
          const statuses = (await Promise.all(neighbours)).map((one) =>
            one === null ? 'cut' : one.complete ? one.status : 'cut',
          );
          const wrong: string[] = [];
          if (status !== 504) wrong.push(`status ${status}`);
          if (late > LATE_MS) wrong.push(`${late.toFixed(0)} ms after the deadline`);
          const expected = hang.releasesLock ? [200] : [200, 502, 504];
          for (const one of statuses) if (!expected.includes(Number(one))) wrong.push(`a neighbour got ${one}`);
          await until(async () => (await server.get('/', '', 30_000)).status === 200, 'a 200 again', 30_000);
          const [, many] = hang.interrupted;
          const stays = threads === 1 ? hang.interrupted[0] : many;
          if (stays === false)
            await until(() => !server.workers().includes(Number(worker)), 'the worker to be replaced', 30_000);
          const stayed = server.workers().includes(Number(worker));
          if (stays && !stayed) wrong.push('the worker was replaced, though the interruption was enough');
          const figures = `504 ${late.toFixed(0)} ms after the deadline; neighbours ${statuses.join(' ') || '-'}; worker ${stayed ? 'stays' : 'replaced'}`;
          return { figures, wrong };
        });
      },
    }),
  ),
);
