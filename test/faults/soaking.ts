/** What only time shows: leaks of an app that is recycled, and leaks of the server as its workers come and go. */
import { setTimeout as delay } from 'node:timers/promises';
import { Admin } from '../helpers/admin.ts';
import { DJANGO_PROJECT, withDjangoData } from '../helpers/django.ts';
import { residentMiB } from '../helpers/processes.ts';
import type { Server } from '../helpers/server.ts';
import { Holdings } from './holdings.ts';
import { NODE_ASYNC, NODE_GTHREAD, PYTHON } from './kinds.ts';
import { manyRecycles, upgrades } from './replacing.ts';
import { Clients, describe, judge, of, type Scenario, times, withFaults } from './scenario.ts';

/** In MB. A worker of this app needs a fifth of it at rest. */
const MEMORY_LIMIT = 300;
/** At 20 MB a second: three samples over the limit, a boot, and the last requests. On a busy machine they take longer. */
const MOST_MIB = 2 * MEMORY_LIMIT;
const WARM_MS = 60_000;
const LOOK_EVERY_MS = 1000;

export const soaking = (minutes: number): readonly Scenario[] => [
  of(PYTHON, leakingDjango(minutes)),
  of(PYTHON, upgrades(PYTHON), 10),
  ...[PYTHON, NODE_ASYNC, NODE_GTHREAD].map((kind) => of(kind, manyRecycles(kind), 10 / kind.scale)),
];

interface Leaked {
  /** MiB of the fattest worker. */
  readonly most: number;
  readonly outcomes: ReadonlyMap<string, number>;
  readonly wrong: string[];
}

function leakingDjango(minutes: number): Scenario {
  return {
    name: `a Django app that leaks 1 MB a request, --memory-limit, ${minutes} minutes`,
    run: () =>
      withDjangoData(async (data) => {
        const admin = await Admin.choose();
        const app = { app: 'project.wsgi:application', chdir: DJANGO_PROJECT, readyPath: '/health/' };
        const args = ['--memory-limit', String(MEMORY_LIMIT), ...admin.args];
        const options = { ...app, args, workers: 2, threads: 2, env: { ...data, PAUSE_SECONDS: '0.1' } };
        return await withFaults(PYTHON, options, async (server) => {
          const leak = async (ms: number): Promise<Leaked> => {
            const clients = new Clients(server, 3, 1, '/leak/');
            const most = await fattest(server, performance.now() + ms);
            const outcomes = await clients.stop();
            return { most, outcomes, wrong: judge(outcomes, clients, ['200']) };
          };
          const warm = await leak(WARM_MS);
          const before = await Holdings.atRest(server, PYTHON, admin);
          const { most, outcomes, wrong } = await leak(minutes * 60_000);
          const after = await Holdings.atRest(server, PYTHON, admin);
          const recycles = times(server, /is replaced: it uses more than --memory-limit/);
          wrong.push(...warm.wrong, ...after.grownSince(before));
          if (recycles < minutes) wrong.push(`${recycles} recycles only`);
          if (most > MOST_MIB) wrong.push(`a worker of ${most.toFixed(0)} MiB`);
          const figures =
            `${recycles} recycles; ${describe(outcomes)}; the fattest worker had ${most.toFixed(0)} MiB; ` +
            after.describeSince(before);
          return { figures, wrong };
        });
      }),
  };
}

/** The most memory that a worker had until then, in MiB. */
async function fattest(server: Server, until: number): Promise<number> {
  let most = 0;
  while (performance.now() < until) {
    if (server.hasExited) throw new Error('the server has ended');
    for (const pid of server.workers()) {
      try {
        most = Math.max(most, residentMiB(pid));
      } catch {
        // It has just left.
      }
    }
    await delay(LOOK_EVERY_MS);
  }
  return most;
}
