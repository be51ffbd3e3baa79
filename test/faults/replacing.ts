/** Workers that are replaced under load, for every reason there is: nobody notices. */
import { setTimeout as delay } from 'node:timers/promises';
import { Admin } from '../helpers/admin.ts';
import { until } from '../helpers/deadline.ts';
import { isAlive } from '../helpers/processes.ts';
import { Holdings } from './holdings.ts';
import type { Kind } from './kinds.ts';
import {
  Clients,
  describe,
  judge,
  type Scenario,
  served,
  times,
  type Verdict,
  waitFor,
  waitForServed,
  withFaults,
} from './scenario.ts';

const REPLACED = /is replaced:/;
const FOUR = { workers: 2, threads: 2 };
const LEAST_RATE = 0.9;

async function rate(clients: Clients, ms: number): Promise<number> {
  const [before, start] = [clients.total, performance.now()];
  await delay(ms);
  return ((clients.total - before) * 1000) / (performance.now() - start);
}

/** A request takes so long that threads, not processors, bound the rate: so rates compare on a busy machine. */
function slowBoot({ bootSeconds }: Kind): Record<string, string> {
  return { BOOT_SECONDS: String(bootSeconds), PAUSE_SECONDS: '0.02' };
}

export const replacing = (kind: Kind): readonly Scenario[] => [
  {
    name: `recycling by --max-requests, boot of ${kind.bootSeconds} s`,
    run: async (scale) => {
      const wanted = 50 * scale;
      let calm = 0;
      const reference = await withFaults(kind, { ...FOUR, env: slowBoot(kind) }, async (server) => {
        const clients = new Clients(server);
        await rate(clients, 2000);
        calm = await rate(clients, 10_000);
        await clients.stop();
        return { figures: '', wrong: [] };
      });
      if (reference.wrong.length > 0) return reference;
      const limit = ['--max-requests', String(kind.maxRequests), '--max-requests-jitter', '10'];
      const args = [...limit, '--min-worker-lifetime', '0'];
      return await withFaults(kind, { ...FOUR, args, env: slowBoot(kind) }, async (server) => {
        const clients = new Clients(server);
        await rate(clients, 2000);
        const start = performance.now();
        const [before, servedBefore] = [clients.total, served(server)];
        await waitForServed(server, servedBefore + wanted, wanted * 10_000);
        const busy = ((clients.total - before) * 1000) / (performance.now() - start);
        const outcomes = await clients.stop();
        const wrong = judge(outcomes, clients, ['200']);
        if (busy < LEAST_RATE * calm) wrong.push(`${((100 * busy) / calm).toFixed(0)} % of the rate without recycling`);
        const rates = `${busy.toFixed(0)}/s, without recycling ${calm.toFixed(0)}/s`;
        return { figures: `${served(server) - servedBefore} recycles; ${describe(outcomes)}; ${rates}`, wrong };
      });
    },
  },
  {
    name: `HUP, boot of ${kind.bootSeconds} s`,
    run: (scale) =>
      withFaults(kind, { ...FOUR, env: slowBoot(kind) }, async (server) => {
        const clients = new Clients(server);
        for (let hup = 1; hup <= 20 * scale; hup++) {
          server.kill('SIGHUP');
          await waitFor(server, 'reload', /Reloaded: all workers are ready/, hup, 60_000);
        }
        return await end(clients, `${times(server, REPLACED)} workers replaced`);
      }),
  },
  upgrades(kind),
  {
    name: `TTIN and TTOU, boot of ${kind.bootSeconds} s`,
    run: (scale) =>
      withFaults(kind, { ...FOUR, env: slowBoot(kind) }, async (server) => {
        const clients = new Clients(server);
        for (let time = 1; time <= 20 * scale; time++) {
          server.kill('SIGTTIN');
          await until(() => server.workers().length === 3, 'three workers', 30_000);
          // Half of them go while they boot, half after they have served.
          if (time % 2 === 0) await delay(2500);
          server.kill('SIGTTOU');
          await until(() => server.workers().length === 2, 'two workers', 30_000);
        }
        return await end(clients, `${20 * scale} times`);
      }),
  },
  {
    name: 'a leak of 1 MB a request, --memory-limit',
    run: (scale) => {
      const args = ['--memory-limit', String(kind.memoryLimit), '--min-worker-lifetime', '0'];
      const env = { LEAK_BYTES: String(1024 * 1024), PAUSE_SECONDS: '0.1' };
      return withFaults(kind, { ...FOUR, args, env }, async (server) => {
        const clients = new Clients(server, 3, 1);
        await waitFor(server, 'recycle', REPLACED, 6 * scale, 120_000 * scale);
        return await end(clients, `${times(server, REPLACED)} recycles`);
      });
    },
  },
  manyRecycles(kind),
];

async function end(clients: Clients, what: string): Promise<Verdict> {
  const outcomes = await clients.stop();
  return { figures: `${what}; ${describe(outcomes)}`, wrong: judge(outcomes, clients, ['200']) };
}

export function upgrades(kind: Kind): Scenario {
  return {
    name: `upgrades by USR2, boot of ${kind.bootSeconds} s`,
    run: (scale) =>
      withFaults(kind, { ...FOUR, env: slowBoot(kind) }, async (server) => {
        const clients = new Clients(server);
        let master = server.pid;
        for (let time = 1; time <= 5 * scale; time++) {
          process.kill(master, 'SIGUSR2');
          await waitFor(server, 'new master', /Started: all workers are ready/, time + 1, 60_000);
          const next = Number([...server.log.matchAll(/new master is pid (\d+)/g)].at(-1)?.[1]);
          process.kill(master, 'SIGTERM');
          await until(() => !isAlive(master), 'the old master to end', 60_000);
          await waitFor(server, 'promotion', /Master has been promoted/, time, 60_000);
          master = next;
        }
        const verdict = await end(clients, `${5 * scale} upgrades`);
        process.kill(master, 'SIGTERM');
        await until(() => !isAlive(master), 'the last master to end', 60_000);
        return verdict;
      }),
  };
}

export function manyRecycles(kind: Kind): Scenario {
  return {
    name: 'many recycles leave nothing behind',
    run: async (scale) => {
      const admin = await Admin.choose();
      const args = ['--max-requests', '100', '--min-worker-lifetime', '0', ...admin.args];
      return await withFaults(kind, { ...FOUR, args }, async (server) => {
        const first = new Clients(server);
        await waitForServed(server, 30, 60_000);
        const early = await first.stop();
        const before = await Holdings.atRest(server, kind, admin);
        const [start, clients] = [served(server), new Clients(server)];
        await waitForServed(server, start + 100 * scale, 120_000 * Math.max(1, scale));
        const recycles = served(server) - start;
        const outcomes = await clients.stop();
        const after = await Holdings.atRest(server, kind, admin);
        const wrong = [
          ...judge(early, first, ['200']),
          ...judge(outcomes, clients, ['200']),
          ...after.grownSince(before),
        ];
        await until(() => server.workers().length === 2, 'two workers');
        const wanted = 1 + 2 + kind.others.length;
        await until(
          () => server.processes().length === wanted,
          () => `${wanted} processes, of which ${server.processes().length} are there`,
        );
        const figures = `${recycles} recycles; ${describe(outcomes)}; ${after.describeSince(before)}`;
        return { figures, wrong };
      });
    },
  };
}
