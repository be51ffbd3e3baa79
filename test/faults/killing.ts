/** Processes that are killed under load, and code that does not boot. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '../helpers/deadline.ts';
import { isAlive } from '../helpers/processes.ts';
import type { Kind } from './kinds.ts';
import { Clients, describe, judge, type Scenario, withFaults } from './scenario.ts';

const KILL_EVERY_MS = 200;
const THREADS = 2;

export const killing = (kind: Kind): readonly Scenario[] => [
  {
    name: 'kill -9 of a random one of 4 workers every 0.2 s',
    run: (scale) =>
      withFaults(kind, { workers: 4, threads: THREADS, env: { PAUSE_SECONDS: '0.01' } }, async (server) => {
        const clients = new Clients(server);
        const end = performance.now() + 60_000 * scale;
        let kills = 0;
        while (performance.now() < end) {
          await delay(KILL_EVERY_MS);
          const workers = server.workers();
          const victim = workers[Math.floor(Math.random() * workers.length)];
          if (victim === undefined) continue;
          process.kill(victim, 'SIGKILL');
          kills++;
        }
        const outcomes = await clients.stop();
        const wrong = judge(outcomes, clients, ['200', ...kind.lost]);
        const lost = kind.lost.reduce((sum, outcome) => sum + (outcomes.get(outcome) ?? 0), 0);
        const most = kills * kind.running(THREADS, clients.clients);
        if (lost > most) wrong.push(`${lost} requests lost in ${kills} workers, ${most} at most could run there`);
        return { figures: `${kills} kills; ${describe(outcomes)}`, wrong };
      }),
  },
  ...(kind.fronts === 0 ? [] : [frontKilled(kind)]),
  {
    name: 'kill -9 of the master',
    run: () =>
      withFaults(kind, { workers: 2, threads: THREADS, env: { PAUSE_SECONDS: '0.01' } }, async (server) => {
        const clients = new Clients(server);
        await delay(1000);
        const others = server.processes();
        server.kill('SIGKILL');
        const start = performance.now();
        await until(() => !others.some(({ pid }) => isAlive(pid)), 'all processes to end', 10_000);
        const ms = performance.now() - start;
        const stopped = clients.stop();
        const outcomes = await stopped;
        const figures = `all gone after ${ms.toFixed(0)} ms; ${outcomes.get('200') ?? 0} x 200 before`;
        return { figures, wrong: ms > 2000 ? [`gone after ${ms.toFixed(0)} ms only`] : [] };
      }),
  },
  ...(['does not import', 'hangs at import'] as const).map(
    (what): Scenario => ({
      name: `HUP with code that ${what}`,
      run: async () => {
        const folder = mkdtempSync(join(tmpdir(), 'faults-'));
        const { file, text } = kind.module;
        const deploy = (head: string): void => writeFileSync(join(folder, file), text(head));
        deploy('');
        try {
          return await withFaults(
            kind,
            { chdir: folder, workers: 2, threads: THREADS, args: ['--boot-timeout', '5'] },
            async (server) => {
              const clients = new Clients(server);
              const before = server.workers();
              deploy(what === 'does not import' ? kind.doesNotImport : kind.hangsAtImport);
              server.kill('SIGHUP');
              await server.waitForLog(/did not boot: the worker stays/, { ms: 30_000 });
              await delay(1000);
              const outcomes = await clients.stop();
              const wrong = judge(outcomes, clients, ['200']);
              if (String(server.workers()) !== String(before)) wrong.push('the old workers did not stay');
              return { figures: describe(outcomes), wrong };
            },
          );
        } finally {
          rmSync(folder, { recursive: true });
        }
      },
    }),
  ),
];

function frontKilled(kind: Kind): Scenario {
  return {
    name: 'kill -9 of the front',
    run: (scale) =>
      withFaults(kind, { workers: 2, threads: THREADS }, async (server) => {
        const workers = server.workers();
        const waits: number[] = [];
        for (let time = 0; time < 5 * scale; time++) {
          const [front] = await until(() => (server.fronts().length === 1 ? server.fronts() : null), 'the front');
          if (front === undefined) continue;
          process.kill(front, 'SIGKILL');
          const start = performance.now();
          await until(() => !isAlive(front), 'the front to end');
          await server.get('/'); // waits in the kernel until the next front accepts it
          waits.push(performance.now() - start);
          // One that has just come up and dies again at once is held back, as it should be.
          await delay(1500);
        }
        const slowest = Math.max(...waits);
        const wrong = slowest > 500 ? [`back after ${slowest.toFixed(0)} ms`] : [];
        if (String(server.workers()) !== String(workers)) wrong.push('workers were restarted');
        return { figures: `${waits.length} kills; back after ${slowest.toFixed(0)} ms at most`, wrong };
      }),
  };
}
