/** What the scenarios of the fault suite share: a server under constant load, and the tally of what its clients got. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../helpers/deadline.ts';
import { ROOT } from '../helpers/paths.ts';
import { Server, type ServerOptions } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';
import type { Kind } from './kinds.ts';

export interface Verdict {
  /** What clients got, and what was counted. */
  readonly figures: string;
  /** What does not hold; empty: all does. */
  readonly wrong: readonly string[];
}

export interface Scenario {
  readonly name: string;
  /** `scale`: of its time and its counts. */
  run(scale: number): Promise<Verdict>;
}

/** A kind's own scenario: named after it, and as long as befits it, `times` over. */
export function of(kind: Kind, { name, run }: Scenario, times = 1): Scenario {
  return { name: kind.name + name, run: (scale) => run(scale * kind.scale * times) };
}

const BODY = Buffer.alloc(16_384, 'x');
const FOLDER = join(ROOT, 'test', 'faults');

/** Keep-alive and new connections that post 16 KB, each request with an id of its own. */
export class Clients {
  readonly loads: readonly Load[];
  /** By the id of the request. */
  readonly outcomes = new Map<string, string>();
  readonly #server: Server;
  /** How many. */
  readonly clients: number;
  static #lastId = 0;

  constructor(server: Server, keepAlive = 6, fresh = 2, where = '/') {
    this.#server = server;
    this.clients = keepAlive + fresh;
    const path = (): string => `${where}?${++Clients.#lastId}`;
    const heard = (asked: string, outcome: string): void => {
      this.outcomes.set(asked.slice(`${where}?`.length), outcome);
    };
    const common = { address: server.address, path, heard, method: 'POST', body: BODY };
    this.loads = [
      new Load({ ...common, clients: keepAlive, keepAlive: true }),
      new Load({ ...common, clients: fresh }),
    ];
  }

  get total(): number {
    return this.loads.reduce((sum, load) => sum + load.total, 0);
  }

  count(outcome: string): number {
    return this.loads.reduce((sum, load) => sum + load.count(outcome), 0);
  }

  /** Every outcome of every client. */
  async stop(): Promise<Map<string, number>> {
    const all = new Map<string, number>();
    for (const load of this.loads) {
      for (const [outcome, count] of await load.stop(90_000)) all.set(outcome, (all.get(outcome) ?? 0) + count);
    }
    return all;
  }

  /** Every time that the app has begun a request, in the order of each thread. */
  ran(): readonly Run[] {
    const { home } = this.#server;
    return ran(this.#server).flatMap((name) => {
      const pid = Number(name.slice('ran.'.length));
      const lines = readFileSync(join(home, name), 'latin1').split('\n');
      return lines.slice(0, -1).map((line) => {
        const [id = '', number, thread] = line.split(' ');
        return { id, number: Number(number), pid, thread: `${pid} ${thread}` };
      });
    });
  }
}

export interface Run {
  readonly id: string;
  /** That the front gave it. This and the next two are not told of Node apps. */
  readonly number: number;
  readonly pid: number;
  /** Unique among all threads of all processes. */
  readonly thread: string;
}

/** The files of those that have run requests: processes, or the threads of Node workers. */
function ran(server: Server): string[] {
  return readdirSync(server.home).filter((name) => name.startsWith('ran.'));
}

/** How many processes or threads have run requests since the start. */
export function served(server: Server): number {
  return ran(server).length;
}

export async function waitForServed(server: Server, count: number, ms: number): Promise<void> {
  await until(
    () => served(server) >= count,
    () => `${count} that have run requests; had ${served(server)}`,
    ms,
  );
}

export function describe(outcomes: ReadonlyMap<string, number>): string {
  return [...outcomes].map(([outcome, count]) => `${count} x ${outcome}`).join(', ');
}

/** Only these outcomes, and no request run twice. */
export function judge(outcomes: ReadonlyMap<string, number>, clients: Clients, allowed: readonly string[]): string[] {
  const wrong = [...outcomes.keys()].filter((outcome) => !allowed.includes(outcome)).map((one) => `outcome ${one}`);
  const ran = clients.ran();
  const again = ran.length - new Set(ran.map(({ id }) => id)).size;
  if (again > 0) wrong.push(`${again} requests run twice`);
  return wrong;
}

/** How often the log says so. */
export function times(server: Server, pattern: RegExp): number {
  return [...server.log.matchAll(new RegExp(pattern, 'g'))].length;
}

export async function waitFor(server: Server, what: string, pattern: RegExp, count: number, ms: number): Promise<void> {
  await until(
    () => times(server, pattern) >= count,
    () => `${count} x ${what}; had ${times(server, pattern)}`,
    ms,
  );
}

/** Starts a server, and whatever happens leaves nothing of it. What it throws is a verdict too. */
export async function withFaults(
  kind: Kind,
  options: Partial<ServerOptions>,
  test: (server: Server) => Promise<Verdict>,
): Promise<Verdict> {
  let server: Server | undefined;
  try {
    const { threads = 1, args = [], ...others } = options;
    server = await Server.start({ app: kind.app, chdir: FOLDER, ...others, args: [...kind.args(threads), ...args] });
    await server.waitForLog(/Started: all workers are ready/);
    const verdict = await test(server);
    if (!server.hasExited) await server.stop();
    return verdict;
  } catch (error) {
    const log = server === undefined ? '' : `\n${server.output.slice(-3000)}`;
    return { figures: '', wrong: [`${error instanceof Error ? error.message : error}${log}`] };
  } finally {
    server?.destroy();
  }
}
