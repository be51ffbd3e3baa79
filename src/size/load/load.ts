/**
 * One load on one server. Open-loop: requests start when the schedule says so, whether or not earlier ones were answered,
 * and latency counts from the intended start. A server that stalls therefore shows the stall in every request that should
 * have begun meanwhile (no coordinated omission). Closed: a fixed number of requests is always under way; that measures what
 * a server can do at most, and its latency is queueing.
 */

import { createConnection, type Socket } from 'node:net';
import { createHistogram, performance, type RecordableHistogram } from 'node:perf_hooks';
import { type Response, ResponseReader } from './response.ts';

/** What is asked for, and how often beside the others. */
export interface PlannedRequest {
  /** As it goes over the wire, head and body, in latin-1. */
  readonly text: string;
  readonly weight: number;
  /** The right answer's status, and its length if it is always the same: all else counts as a failure. */
  readonly status: number;
  readonly bodyBytes?: number;
}

export type Arrivals =
  | { readonly kind: 'constant' | 'poisson'; readonly perSecond: number }
  | { readonly kind: 'closed'; readonly inFlight: number };

export interface LoadOptions {
  readonly host: string;
  readonly port: number;
  readonly requests: readonly PlannedRequest[];
  readonly arrivals: Arrivals;
  readonly durationMs: number;
  /** Before that: requests of the same load that are not counted, while code compiles and connections open. */
  readonly warmUpMs: number;
  /** Connections held open at most; a request that finds none free waits, and the wait counts as latency. */
  readonly connections: number;
  /** False: a new connection for each request. */
  readonly keepAlive: boolean;
  readonly timeoutMs: number;
  /** How long answers are waited for after the window; what has none by then counts as timed out. Undefined: `timeoutMs`. */
  readonly lastAnswersMs?: number;
  /** Turn the event loop while waiting for a near start. Exact to 0.1 ms, but it takes the whole core it runs on. */
  readonly spin: boolean;
  /** Of the random numbers: the same seed gives the same arrivals and the same order of requests. */
  readonly seed: number;
}

export interface Latency {
  readonly meanMs: number;
  readonly p50Ms: number;
  readonly p90Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** What may become of a request, in words. */
const FAILURES = {
  connect: 'no connection',
  cut: 'the connection ended before the answer',
  'not-http': 'the answer was not HTTP',
  status: 'another status than the first answer',
  body: 'another length than the first answer',
  timeout: 'no answer in time',
} as const;

export type Failure = keyof typeof FAILURES;

/** Everything counts from the end of the warm-up on. */
export interface LoadResult {
  /** Requests whose intended start was in the window. */
  readonly intended: number;
  /** Of these: answered as planned, at whatever time. */
  readonly answered: number;
  /** Good answers of the whole load, with the warm-up and what came after the window. */
  readonly answeredInAll: number;
  /** Good answers that came within the window, whenever their requests had begun. The throughput is this over the window. */
  readonly completed: number;
  readonly failures: Readonly<Record<Failure, number>>;
  /** Length of the window. */
  readonly seconds: number;
  /** Of the answered ones, from the intended start. */
  readonly latency: Latency;
  /** How late the generator itself was in starting requests. More than a fraction of `latency` spoils the run. */
  readonly late: Latency;
  /** Requests under way, averaged over the window: L of Little's law, counted independently of the latencies. */
  readonly meanInFlight: number;
  /** Requests that found no connection free. */
  readonly waited: number;
  /** CPU time that the generator used, as a share of one core. */
  readonly generatorCpu: number;
}

/** `12 failed (another length than the first answer)`, one for each kind of failure that there was. */
export function failuresIn(loads: readonly Pick<LoadResult, 'failures'>[]): readonly string[] {
  return Object.entries(FAILURES).flatMap(([kind, what]) => {
    const count = loads.reduce((sum, { failures }) => sum + failures[kind as Failure], 0);
    return count > 0 ? [`${count} failed (${what})`] : [];
  });
}

const NS_PER_MS = 1e6;
/** Node's timers count whole milliseconds and may be one late: nearer starts are waited for by turning the loop. */
const TURN_WITHIN_MS = 1.5;
const TIMEOUT_CHECK_MS = 100;
/** Without spinning: starts that are nearer than this begin at once, up to half a timer's tick early. */
const EARLY_MS = 0.5;

export function runLoad(options: LoadOptions): Promise<LoadResult> {
  return new Load(options).run();
}

interface Connection {
  readonly socket: Socket;
  readonly reader: ResponseReader;
  /** What is asked for on it now; undefined when idle. */
  asked: PlannedRequest | undefined;
  /** In `performance.now()` milliseconds. */
  intendedAt: number;
  sentAt: number;
}

interface Waiting {
  readonly request: PlannedRequest;
  readonly intendedAt: number;
}

class Load {
  readonly #options: LoadOptions;
  readonly #pick: () => PlannedRequest;
  readonly #random: () => number;
  readonly #latency = createHistogram();
  readonly #late = createHistogram();
  readonly #failures: Record<Failure, number> = { connect: 0, cut: 0, 'not-http': 0, status: 0, body: 0, timeout: 0 };
  readonly #open = new Set<Connection>();
  /** First in, first out, so that every connection is used in turn. */
  readonly #idle: Connection[] = [];
  readonly #waiting: Waiting[] = [];
  #timedFrom = 0;
  #endsAt = 0;
  #begun = 0;
  #settled = 0;
  #intended = 0;
  #answered = 0;
  #answeredInAll = 0;
  #completed = 0;
  #waited = 0;
  #inFlight = 0;
  /** Sum of requests under way times ms, within the window, up to `#areaAt`. */
  #area = 0;
  #areaAt = 0;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#random = randomOf(options.seed);
    this.#pick = picker(options.requests, this.#random);
  }

  async run(): Promise<LoadResult> {
    const timeouts = setInterval(() => this.#checkTimeouts(), TIMEOUT_CHECK_MS);
    const start = performance.now();
    this.#timedFrom = start + this.#options.warmUpMs;
    this.#endsAt = this.#timedFrom + this.#options.durationMs;
    this.#areaAt = start;
    let cpuFrom = process.cpuUsage();
    const warm = setTimeout(() => {
      cpuFrom = process.cpuUsage();
    }, this.#options.warmUpMs);
    const { arrivals } = this.#options;
    if (arrivals.kind === 'closed') await this.#keep(arrivals.inFlight);
    else await this.#schedule(start, arrivals);
    clearTimeout(warm);
    const cpu = process.cpuUsage(cpuFrom);
    const { timeoutMs, lastAnswersMs = timeoutMs } = this.#options;
    const giveUp = performance.now() + lastAnswersMs + 2 * TIMEOUT_CHECK_MS;
    while (this.#settled < this.#begun && performance.now() < giveUp) await sleep(1);
    clearInterval(timeouts);
    this.#advance(performance.now());
    // Whatever has no end by now has waited for longer than it may.
    const ended = Object.values(this.#failures).reduce((sum, count) => sum + count, this.#answered);
    this.#failures.timeout += this.#intended - ended;
    for (const connection of this.#open) connection.socket.destroy();
    const { durationMs } = this.#options;
    return {
      intended: this.#intended,
      answered: this.#answered,
      answeredInAll: this.#answeredInAll,
      completed: this.#completed,
      failures: this.#failures,
      seconds: durationMs / 1000,
      latency: toLatency(this.#latency),
      late: toLatency(this.#late),
      meanInFlight: this.#area / durationMs,
      waited: this.#waited,
      generatorCpu: (cpu.user + cpu.system) / 1000 / durationMs,
    };
  }

  #counts(intendedAt: number): boolean {
    return intendedAt >= this.#timedFrom && intendedAt < this.#endsAt;
  }

  /** Keeps so many requests under way until the window ends: each answer begins the next (see `#finish`). */
  async #keep(inFlight: number): Promise<void> {
    for (let i = 0; i < inFlight; i++) this.#begin(performance.now());
    await sleep(this.#options.warmUpMs + this.#options.durationMs);
  }

  #schedule(start: number, arrivals: Extract<Arrivals, { kind: 'constant' | 'poisson' }>): Promise<void> {
    const gapMs = 1000 / arrivals.perSecond;
    const next = arrivals.kind === 'constant' ? () => gapMs : () => -Math.log(1 - this.#random()) * gapMs;
    const early = this.#options.spin ? 0 : EARLY_MS;
    let intendedAt = start + (arrivals.kind === 'constant' ? 0 : next());
    return new Promise((done) => {
      const turn = (): void => {
        const now = performance.now();
        while (intendedAt <= now + early && intendedAt < this.#endsAt) {
          if (this.#counts(intendedAt)) this.#late.record(toNs(now - intendedAt));
          this.#begin(intendedAt);
          intendedAt += next();
        }
        if (intendedAt >= this.#endsAt) {
          setTimeout(done, Math.max(0, this.#endsAt - performance.now()));
          return;
        }
        const waitMs = intendedAt - performance.now();
        if (this.#options.spin && waitMs < TURN_WITHIN_MS) setImmediate(turn);
        else setTimeout(turn, Math.floor(this.#options.spin ? waitMs - 1 : waitMs));
      };
      turn();
    });
  }

  #begin(intendedAt: number): void {
    this.#advance(performance.now());
    this.#begun++;
    this.#inFlight++;
    if (this.#counts(intendedAt)) this.#intended++;
    const request = this.#pick();
    const idle = this.#idle.shift();
    if (idle !== undefined) this.#send(idle, request, intendedAt);
    else if (this.#open.size < this.#options.connections) this.#connect(request, intendedAt);
    else {
      this.#waited++;
      this.#waiting.push({ request, intendedAt });
    }
  }

  #send(connection: Connection, request: PlannedRequest, intendedAt: number): void {
    connection.asked = request;
    connection.intendedAt = intendedAt;
    connection.sentAt = performance.now();
    connection.socket.write(request.text, 'latin1');
  }

  #connect(request: PlannedRequest, intendedAt: number): void {
    const socket = createConnection({ host: this.#options.host, port: this.#options.port, noDelay: true });
    const reader = new ResponseReader();
    const connection: Connection = { socket, reader, asked: request, intendedAt, sentAt: performance.now() };
    this.#open.add(connection);
    let connected = false;
    socket.on('connect', () => {
      connected = true;
      // A connection that timed out while it was being made has nothing left to ask.
      if (connection.asked !== undefined) this.#send(connection, connection.asked, connection.intendedAt);
    });
    socket.on('data', (data) => {
      try {
        const response = connection.reader.push(data);
        if (response !== undefined) this.#finish(connection, response);
      } catch {
        this.#fail(connection, 'not-http');
      }
    });
    socket.on('end', () => {
      const response = connection.reader.end();
      if (response !== undefined) this.#finish(connection, response);
    });
    socket.on('error', () => {
      // 'close' follows and counts.
    });
    socket.on('close', () => this.#fail(connection, connected ? 'cut' : 'connect'));
  }

  #finish(connection: Connection, response: Response): void {
    const { asked, intendedAt } = connection;
    if (asked === undefined) return;
    const now = performance.now();
    const wrong =
      response.status !== asked.status
        ? 'status'
        : asked.bodyBytes !== undefined && response.bodyBytes !== asked.bodyBytes
          ? 'body'
          : undefined;
    this.#settle(connection, now);
    if (wrong !== undefined) {
      if (this.#counts(intendedAt)) this.#failures[wrong]++;
    } else {
      this.#answeredInAll++;
      if (now >= this.#timedFrom && now < this.#endsAt) this.#completed++;
      if (this.#counts(intendedAt)) {
        this.#answered++;
        this.#latency.record(toNs(now - intendedAt));
      }
    }
    if (this.#options.keepAlive && response.keepAlive) this.#release(connection);
    else this.#drop(connection);
    this.#again(now);
  }

  /** In a closed load each end is the beginning of another. */
  #again(now: number): void {
    if (this.#options.arrivals.kind === 'closed' && now < this.#endsAt) this.#begin(now);
  }

  #settle(connection: Connection, now: number): void {
    this.#advance(now);
    this.#inFlight--;
    this.#settled++;
    connection.asked = undefined;
  }

  /** Brings the area under "requests under way" up to now, within the window. */
  #advance(now: number): void {
    const from = Math.max(this.#areaAt, this.#timedFrom);
    const to = Math.min(now, this.#endsAt);
    if (to > from) this.#area += this.#inFlight * (to - from);
    this.#areaAt = now;
  }

  #release(connection: Connection): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#idle.push(connection);
    else this.#send(connection, next.request, next.intendedAt);
  }

  #fail(connection: Connection, failure: Failure): void {
    const { asked, intendedAt } = connection;
    if (asked !== undefined) {
      if (this.#counts(intendedAt)) this.#failures[failure]++;
      this.#settle(connection, performance.now());
    }
    this.#drop(connection);
    // A server that refuses connections is asked again a little later, not in a loop that eats the core.
    if (asked !== undefined) setTimeout(() => this.#again(performance.now()), 10);
  }

  #drop(connection: Connection): void {
    if (!this.#open.delete(connection)) return;
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
    connection.socket.destroy();
    const next = this.#waiting.shift();
    if (next !== undefined) this.#connect(next.request, next.intendedAt);
  }

  #checkTimeouts(): void {
    const oldest = performance.now() - this.#options.timeoutMs;
    for (const connection of this.#open)
      if (connection.asked !== undefined && connection.sentAt < oldest) this.#fail(connection, 'timeout');
  }
}

/** mulberry32: small, fast, good enough for arrivals. Gives numbers from 0 up to, not with, 1. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function picker(requests: readonly PlannedRequest[], random: () => number): () => PlannedRequest {
  const [first] = requests;
  if (first === undefined) throw new Error('a load needs a request');
  if (requests.length === 1) return () => first;
  const total = requests.reduce((sum, { weight }) => sum + weight, 0);
  return () => {
    let at = random() * total;
    for (const request of requests) {
      at -= request.weight;
      if (at < 0) return request;
    }
    return first;
  };
}

function toNs(ms: number): number {
  return Math.max(1, Math.round(ms * NS_PER_MS));
}

function toLatency(histogram: RecordableHistogram): Latency {
  const none = histogram.count === 0;
  const ms = (percentile: number): number => (none ? 0 : histogram.percentile(percentile) / NS_PER_MS);
  return { meanMs: none ? 0 : histogram.mean / NS_PER_MS, p50Ms: ms(50), p90Ms: ms(90), p99Ms: ms(99), maxMs: ms(100) };
}

function sleep(ms: number): Promise<void> {
  return new Promise((wake) => setTimeout(wake, ms));
}
