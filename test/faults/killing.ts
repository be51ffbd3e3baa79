/** Processes that are killed under load, and code that does not boot. */
import { linkSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '../helpers/deadline.ts';
import { isAlive } from '../helpers/processes.ts';
import type { Server } from '../helpers/server.ts';
import { type Kind, PYTHON } from './kinds.ts';
import { Clients, describe, judge, type Scenario, withFaults } from './scenario.ts';

const KILL_EVERY_MS = 200;
const THREADS = 2;

/** What each worker has noted of what its threads have begun: a word for each thread, with the number of the request. */
class BegunNotes {
  readonly #server: Server;
  readonly #kept = new Map<string, string>();

  constructor(server: Server) {
    this.#server = server;
  }

  /** The server removes the file with the worker: a second name keeps it. */
  keep(): void {
    const { temporary, home } = this.#server;
    for (const folder of readdirSync(temporary)) {
      for (const name of readdirSync(join(temporary, folder))) {
        if (!name.endsWith('.begun') || this.#kept.has(name)) continue;
        const path = join(home, name);
        try {
          linkSync(join(temporary, folder, name), path);
        } catch {
          continue; // a worker that has just gone
        }
        this.#kept.set(name, path);
      }
    }
  }

  /** The numbers of what began last on each thread of each worker. */
  last(): readonly number[] {
    return [...this.#kept.values()].flatMap((path) => {
      const bytes = readFileSync(path);
      const words = Array.from({ length: bytes.length / 8 }, (_, thread) => Number(bytes.readBigUInt64LE(thread * 8)));
      return words.filter((word) => word !== 0);
    });
  }
}

/**
 * Which of the 502s should not be. A thread's answers leave in their order: what a killed worker owed are the last requests that
 * a thread of it had begun, one or, where several were sent ahead, those whose answers had not left. Where the kill came between the
 * worker's note and the app's own line, the app does not know the request: there are as many such 502s as there are such notes.
 */
function judgeLost(clients: Clients, killed: ReadonlySet<number>, noted: readonly number[]): string[] {
  const ran = clients.ran();
  const known = new Set(ran.map(({ id }) => id));
  const numbers = new Set(ran.map(({ number }) => number));
  const lost = new Set([...clients.outcomes].flatMap(([id, outcome]) => (outcome === '502' ? [id] : [])));
  const answeredLater = new Set<string>();
  const wrong: string[] = [];
  for (const { id, pid, thread } of ran.toReversed()) {
    if (!lost.has(id)) answeredLater.add(thread);
    else if (!killed.has(pid)) wrong.push(`request ${id} was lost in a worker that nobody killed`);
    else if (answeredLater.has(thread))
      wrong.push(`request ${id} was lost, but its thread had gone on to the next one`);
  }
  const unknown = [...lost].filter((id) => !known.has(id)).length;
  const notes = noted.filter((number) => !numbers.has(number)).length;
  if (unknown !== notes) wrong.push(`${unknown} requests lost that the app had not begun, but ${notes} noted`);
  return wrong;
}

/** Request by request: of a Python app. */
const killedExactly = (
  [
    ['an app of 10 ms', '0.01', 60_000],
    // So fast an app that requests are sent ahead: those have not begun, and are run elsewhere.
    ['a fast app', '0', 20_000],
  ] as const
).map(
  ([what, pause, ms]): Scenario => ({
    name: `kill -9 of a random one of 4 workers every 0.2 s, ${what}`,
    run: (scale) =>
      withFaults(PYTHON, { workers: 4, threads: THREADS, env: { PAUSE_SECONDS: pause } }, async (server) => {
        const clients = new Clients(server);
        const notes = new BegunNotes(server);
        const end = performance.now() + ms * scale;
        const killed = new Set<number>();
        while (performance.now() < end) {
          await delay(KILL_EVERY_MS);
          const workers = server.workers();
          const victim = workers[Math.floor(Math.random() * workers.length)];
          if (victim === undefined) continue;
          notes.keep();
          process.kill(victim, 'SIGKILL');
          killed.add(victim);
        }
        const outcomes = await clients.stop();
        const wrong = [...judge(outcomes, clients, ['200', '502']), ...judgeLost(clients, killed, notes.last())];
        return { figures: `${killed.size} kills; ${describe(outcomes)}`, wrong };
      }),
  }),
);

/** By number: of a kind whose clients cannot tell what had begun. */
function killedByNumber(kind: Kind): Scenario {
  return {
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
  };
}

export const killing = (kind: Kind): readonly Scenario[] => [
  ...(kind === PYTHON ? killedExactly : [killedByNumber(kind)]),
  ...(kind.others.includes('front') ? [frontKilled(kind)] : []),
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
              const now = server.workers(); // on a busy machine with what else was tried
              if (!before.every((pid) => now.includes(pid))) wrong.push(`of the workers ${before} only ${now} stayed`);
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
