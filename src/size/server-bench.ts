/** The bench that measures real servers: starts them under the limits, puts the generator's load on them, reads /proc. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { EXIT, NunicornError } from '../errors.ts';
import { type Cell, nameOf, slotsOf } from './cell.ts';
import { Generator } from './generator.ts';
import type { Imposed } from './impose.ts';
import type { Kind } from './kind.ts';
import type { Arrivals, LoadOptions, LoadResult, PlannedRequest } from './load/load.ts';
import { coresBusyNs, cpuNsOf, memoryInfoMb, type Process, readTree } from './proc.ts';
import { type Command, ServerUnderTest, type Used } from './server.ts';
import { type Bench, type Calibration, CellError, type CellMemory, type Window } from './session.ts';
import { requestText, type TrafficEntry } from './traffic.ts';

export interface ServerBenchOptions {
  readonly imposed: Imposed;
  readonly entries: readonly TrafficEntry[];
  /** For the Host header; undefined: the address itself. */
  readonly host: string | undefined;
  /** Further header lines, `Name: value`. */
  readonly headers: readonly string[];
  readonly warmUpMs: number;
  /** A request that takes longer counts as a failure. */
  readonly timeoutMs: number;
  /** When the budget is over, in `performance.now()` milliseconds: nothing is waited for that takes longer. */
  readonly endsAt: number;
  readonly kind: Kind;
  /** How to start a server, without the limits; `counts`: it is to tell its metrics at `adminSocket`. */
  readonly command: (cell: Cell, port: number, counts: boolean) => Command;
  readonly adminSocket: (port: number) => string;
  /** Ends what would wait long: the start of a server. */
  readonly signal?: AbortSignal;
  /** Something that the user should know of what was asked for. */
  readonly note: (text: string) => void;
}

const HOST = '127.0.0.1';
/** Event loops take as many as come. */
const CONNECTIONS = { python: 512, pool: 512, async: 4096 } as const;
/** Under way for each event loop while it is warmed: compiling takes some hundred requests. */
const WARM_PER_LOOP = 16;
const BARE_SERVER = join(import.meta.dirname, 'load', 'bare-server.js');
const IDLE_WATCH_MS = 300;
/** Connections open and code compiles before a window counts. */
const LEAD_MS = 60;
const ASK_MS = 30_000;
/** Waited for in any case: an answer, and those that are under way at the end of a window. */
const LEAST_WAIT_MS = 500;
/** Of the memory that is free now, for servers that are kept running so that windows of several cells can take turns. */
const POOL_SHARE = 0.5;
const MOST_SERVERS = 16;

export class ServerBench implements Bench {
  readonly #options: ServerBenchOptions;
  readonly #generator: Generator;
  /** Least recently used first. */
  readonly #pool = new Map<string, ServerUnderTest>();
  #planned: readonly PlannedRequest[] | undefined;
  #poolMb = 0;

  constructor(options: ServerBenchOptions) {
    this.#options = options;
    options.imposed.stepAside();
    this.#generator = new Generator(options.imposed.generator);
    this.#poolMb = POOL_SHARE * memoryInfoMb('MemAvailable');
  }

  now(): number {
    return performance.now();
  }

  /** What is asked for, once the application has been looked at. */
  get planned(): readonly PlannedRequest[] {
    return this.#planned ?? [];
  }

  async calibrate(ms: number): Promise<Calibration> {
    const busy = this.#watch();
    await sleep(IDLE_WATCH_MS);
    const idle = busy();
    const [file = '', ...args] = this.#options.imposed.server([process.execPath, BARE_SERVER]);
    const child: ChildProcess = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    try {
      const [port] = await once(child.stdout ?? child, 'data');
      const requests = [{ text: requestText({ path: '/', weight: 1 }, HOST, []), weight: 1, status: 200 }];
      const load = (durationMs: number): Promise<LoadResult> =>
        this.#generator.run({
          ...this.#load(Number(String(port)), requests, { kind: 'closed', inFlight: 16 }, durationMs),
        });
      await load(ms / 2);
      const { completed, seconds } = await load(ms / 2);
      return { generatorPerSecond: completed / seconds, othersShare: idle.othersShare };
    } finally {
      child.kill('SIGKILL');
    }
  }

  async start(cell: Cell): Promise<void> {
    const name = nameOf(cell);
    const running = this.#pool.get(name);
    if (running !== undefined) {
      running.check();
      this.#pool.delete(name);
      this.#pool.set(name, running);
      return;
    }
    const server = await this.#boot(cell, false);
    this.#pool.set(name, server);
    await this.#warm(server);
    await this.#evict(name);
  }

  async #boot(cell: Cell, counts: boolean): Promise<ServerUnderTest> {
    const port = await freePort();
    const command = this.#options.command(cell, port, counts);
    const words = this.#options.imposed.server(command.words);
    const { signal } = this.#options;
    return ServerUnderTest.start(cell, port, { ...command, words }, () => this.#answers(port), {
      ...(signal === undefined ? {} : { signal }),
      withinMs: this.#leftMs(),
      tell: (pid, runs) => this.#generator.guard(pid, runs),
    });
  }

  async #warm(server: ServerUnderTest): Promise<void> {
    const { cell, port } = server;
    this.#planned ??= await this.#look(port);
    const inFlight = this.#options.kind === 'async' ? WARM_PER_LOOP * cell.workers : 2 * slotsOf(cell);
    const load = this.#load(port, this.#requestsTo(cell), { kind: 'closed', inFlight }, this.#options.warmUpMs);
    const { answeredInAll } = await this.#generator.run(load);
    server.answered += answeredInAll;
  }

  async holding(
    cell: Cell,
    arrivals: Arrivals,
    ms: number,
  ): Promise<{ readonly busyMs: number; readonly window: Window }> {
    const server = await this.#boot(cell, true);
    try {
      const admin = this.#options.adminSocket(server.port);
      await this.#warm(server);
      const before = await busySeconds(admin);
      const window = await this.#window(server, arrivals, ms, 1);
      const after = await busySeconds(admin);
      return { busyMs: ((after - before) * 1000) / Math.max(1, window.load.answeredInAll), window };
    } finally {
      await server.stop();
    }
  }

  measure(cell: Cell, arrivals: Arrivals, ms: number, seed: number): Promise<Window> {
    return this.#window(this.#running(cell), arrivals, ms, seed);
  }

  async #window(server: ServerUnderTest, arrivals: Arrivals, ms: number, seed: number): Promise<Window> {
    const before = server.used();
    const throttledBefore = this.#options.imposed.throttledMs();
    const watch = this.#watch();
    const load = await this.#generator.run({
      ...this.#load(server.port, this.#requestsTo(server.cell), arrivals, ms),
      seed,
    });
    const { othersShare, generatorMs, elapsedMs } = watch();
    const throttled = this.#options.imposed.throttledMs() - throttledBefore;
    server.check();
    const after = server.used();
    server.answered += load.answeredInAll;
    const perAnswer = (part: keyof Used): number =>
      (after[part] - before[part]) / 1e6 / Math.max(1, load.answeredInAll);
    return {
      arrivals,
      load,
      perSecond: load.completed / load.seconds,
      workerMs: perAnswer('workersNs'),
      loopMs: perAnswer('loopNs'),
      frontMs: perAnswer('baseNs'),
      delayMs: perAnswer('delayNs'),
      generatorMs: this.#options.imposed.shared ? generatorMs / Math.max(1, load.answeredInAll) : 0,
      othersShare,
      throttledShare: throttled / elapsedMs,
    };
  }

  memory(cell: Cell): Promise<CellMemory> {
    return Promise.resolve(this.#running(cell).memory());
  }

  async close(): Promise<void> {
    this.#generator.stop();
    await Promise.all([...this.#pool.values()].map((server) => server.stop()));
    this.#pool.clear();
    this.#options.imposed.release();
  }

  #running(cell: Cell): ServerUnderTest {
    const server = this.#pool.get(nameOf(cell));
    if (server === undefined) throw new CellError('it is not running');
    server.check();
    return server;
  }

  /** Ends the servers that were not used for longest, once those that run need too much memory together. */
  async #evict(keep: string): Promise<void> {
    const weights = [...this.#pool].map(([name, server]) => {
      const { workersMb, baseMb } = server.memory();
      return { name, server, mb: workersMb + baseMb };
    });
    let total = weights.reduce((mb, each) => mb + each.mb, 0);
    for (const { name, server, mb } of weights) {
      if (name === keep || (total <= this.#poolMb && this.#pool.size <= MOST_SERVERS)) continue;
      this.#pool.delete(name);
      await server.stop();
      total -= mb;
    }
  }

  /** What was answered with was nunicorn's. Through Gunicorn it may be longer or shorter: an app may name its server. */
  #requestsTo({ server }: Cell): readonly PlannedRequest[] {
    if (server === 'nunicorn') return this.planned;
    return this.planned.map(({ text, weight, status }) => ({ text, weight, status }));
  }

  #load(port: number, requests: readonly PlannedRequest[], arrivals: Arrivals, durationMs: number): LoadOptions {
    return {
      host: HOST,
      port,
      requests,
      arrivals,
      durationMs,
      warmUpMs: LEAD_MS,
      connections: CONNECTIONS[this.#options.kind],
      keepAlive: true,
      timeoutMs: this.#options.timeoutMs,
      lastAnswersMs: Math.min(this.#options.timeoutMs, this.#leftMs(LEAD_MS + durationMs)),
      spin: !this.#options.imposed.shared,
      seed: 1,
    };
  }

  /** What the budget has left after so long. */
  #leftMs(afterMs = 0): number {
    return Math.max(LEAST_WAIT_MS, this.#options.endsAt - performance.now() - afterMs);
  }

  /** Watches who uses the server's cores, until the returned function is called. */
  #watch(): () => { readonly othersShare: number; readonly generatorMs: number; readonly elapsedMs: number } {
    const { imposed } = this.#options;
    const cores = imposed.serverCores;
    // Whoever we have started is ours. With cores of their own, this process and the generator are not on the server's.
    const apart = new Set(imposed.apart ? [process.pid, this.#generator.pid] : []);
    const now = (): { at: number; busyNs: number; oursNs: number; generatorNs: number } => {
      const tree: readonly Process[] = readTree(process.pid);
      const generator = tree.filter(({ pid }) => pid === this.#generator.pid);
      return {
        at: performance.now(),
        busyNs: coresBusyNs(cores),
        oursNs: cpuNsOf(tree.filter(({ pid }) => !apart.has(pid))),
        generatorNs: cpuNsOf(generator),
      };
    };
    const from = now();
    return () => {
      const to = now();
      const elapsedMs = to.at - from.at;
      const othersNs = to.busyNs - from.busyNs - (to.oursNs - from.oursNs);
      return {
        othersShare: Math.max(0, othersNs / 1e6 / elapsedMs / cores.size),
        generatorMs: (to.generatorNs - from.generatorNs) / 1e6,
        elapsedMs,
      };
    };
  }

  async #answers(port: number): Promise<boolean> {
    const { entries, headers, signal } = this.#options;
    const [first] = entries;
    if (first === undefined) return false;
    const waitMs = Math.min(ASK_MS, this.#leftMs());
    return (await ask(port, first.path, this.#host, headers, waitMs, signal)) !== undefined;
  }

  /** Every server has a port of its own; applications that check the name do not look at the port. */
  get #host(): string {
    return this.#options.host ?? HOST;
  }

  /** Asks for everything once or twice: what is the right answer, and is it always the same? */
  async #look(port: number): Promise<readonly PlannedRequest[]> {
    const { headers, entries, timeoutMs } = this.#options;
    const host = this.#host;
    const planned: PlannedRequest[] = [];
    for (const entry of entries) {
      const waitMs = Math.min(timeoutMs, this.#leftMs());
      const answer = await ask(port, entry.path, host, headers, waitMs);
      if (answer === undefined)
        throw new NunicornError(`${entry.path} was not answered within ${(waitMs / 1000).toFixed(1)} s`);
      if (answer.status >= 400) throw badStatus(entry.path, answer.status, host);
      if (answer.location !== undefined)
        this.#options.note(
          `${entry.path} is answered with ${answer.status} to ${answer.location}: what is measured is the redirect, not where it leads.`,
        );
      const again = await ask(port, entry.path, host, headers, Math.min(timeoutMs, this.#leftMs()));
      planned.push({
        text: requestText(entry, host, headers),
        weight: entry.weight,
        status: answer.status,
        ...(again?.bytes === answer.bytes ? { bodyBytes: answer.bytes } : {}),
      });
    }
    return planned;
  }
}

function badStatus(path: string, status: number, host: string): NunicornError {
  const hint =
    status === 400
      ? `. Django answers 400 to a Host that is not in ALLOWED_HOSTS (asked was ${host}): name one that is with --host`
      : status === 401 || status === 403
        ? ": give what the application wants to see with --header 'Name: value', such as a cookie"
        : '';
  return new NunicornError(
    `${path} is answered with ${status}: size needs a path that is answered with 2xx or 3xx${hint}`,
    EXIT.ERROR,
  );
}

/** How long the event loops of the server with this admin socket were busy so far. */
async function busySeconds(socketPath: string): Promise<number> {
  const asked = request({ socketPath, path: '/metrics', timeout: ASK_MS });
  asked.end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  const value = /^nunicorn_busy_seconds_total (\S+)$/m.exec(await text(response))?.[1];
  if (value === undefined) throw new CellError('its metrics do not tell how busy its event loop is');
  return Number(value);
}

/** With the headers of the load (`requestText`): an app may answer with what it was asked with. */
function ask(
  port: number,
  path: string,
  host: string,
  headers: readonly string[],
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<{ readonly status: number; readonly bytes: number; readonly location: string | undefined } | undefined> {
  return new Promise((resolve) => {
    const own = headers.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]);
    const asked = request({
      host: HOST,
      port,
      path,
      agent: false,
      timeout: timeoutMs,
      ...(signal === undefined ? {} : { signal }),
      headers: { host, 'user-agent': 'nunicorn-size', accept: '*/*', ...Object.fromEntries(own) },
    });
    asked.removeHeader('connection');
    asked.on('response', (response) => {
      let bytes = 0;
      response.on('data', (data: Buffer) => {
        bytes += data.length;
      });
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, bytes, location: response.headers.location }),
      );
      response.on('error', () => resolve(undefined));
    });
    asked.on('timeout', () => asked.destroy());
    asked.on('error', () => resolve(undefined));
    asked.end();
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, HOST);
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
