/**
 * An open-loop load generator: requests start when the schedule says so, whether or not earlier ones were answered,
 * and latency counts from the intended start. A server that stalls therefore shows the stall in every request that
 * should have begun meanwhile (no coordinated omission).
 */

import { createConnection, type Socket } from 'node:net';
import { createHistogram, performance, type RecordableHistogram } from 'node:perf_hooks';
import { type Response, ResponseReader } from './response.ts';

export interface OpenLoopOptions {
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly requestsPerSecond: number;
  readonly durationMs: number;
  /** Before that: requests at the same rate that count but are not timed, while code compiles and connections open. */
  readonly warmUpMs: number;
  /** Connections held open at most; a request that finds none free waits, and the wait counts as latency. */
  readonly connections: number;
  /** False: a new connection for each request. */
  readonly keepAlive: boolean;
  /** A 200 with another length is counted as an error. */
  readonly bodyBytes?: number;
  readonly timeoutMs: number;
}

export interface Latency {
  readonly p50Ms: number;
  readonly p90Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export type Failure = 'connect' | 'cut' | 'not-http' | 'status' | 'body' | 'timeout';

export interface OpenLoopResult {
  readonly intended: number;
  /** Answered with 200 and the whole body. */
  readonly answered: number;
  readonly failures: Readonly<Record<Failure, number>>;
  readonly seconds: number;
  readonly latency: Latency;
  /** How late the generator itself was in starting requests. More than a fraction of `latency` spoils the run. */
  readonly late: Latency;
  /** Requests that found no connection free. */
  readonly waited: number;
}

const NS_PER_MS = 1e6;
/** Node's timers count whole milliseconds and may be one late: nearer starts are waited for by turning the loop. */
const TURN_WITHIN_MS = 1.5;
const TIMEOUT_CHECK_MS = 100;

export function runOpenLoop(options: OpenLoopOptions): Promise<OpenLoopResult> {
  return new OpenLoop(options).run();
}

class OpenLoop {
  readonly #options: OpenLoopOptions;
  readonly #request: string;
  readonly #latency = createHistogram();
  readonly #late = createHistogram();
  readonly #failures: Record<Failure, number> = { connect: 0, cut: 0, 'not-http': 0, status: 0, body: 0, timeout: 0 };
  readonly #open = new Set<Connection>();
  /** First in, first out, so that every connection is used in turn. */
  readonly #idle: Connection[] = [];
  /** Intended starts of the requests that found no connection free. */
  readonly #waiting: number[] = [];
  #timedFrom = 0;
  #intended = 0;
  #answered = 0;
  #waited = 0;

  constructor(options: OpenLoopOptions) {
    this.#options = options;
    this.#request =
      `GET ${options.path} HTTP/1.1\r\nHost: ${options.host}:${options.port}\r\n` +
      `${options.keepAlive ? '' : 'Connection: close\r\n'}\r\n`;
  }

  async run(): Promise<OpenLoopResult> {
    const timeouts = setInterval(() => this.#checkTimeouts(), TIMEOUT_CHECK_MS);
    const start = performance.now();
    this.#timedFrom = start + this.#options.warmUpMs;
    await this.#schedule(start);
    const giveUp = performance.now() + this.#options.timeoutMs + 2 * TIMEOUT_CHECK_MS;
    while (this.#settled() < this.#intended && performance.now() < giveUp) await sleep(1);
    clearInterval(timeouts);
    // Only what waited for a connection to the end is left here: the rest was answered, failed or timed out.
    this.#failures.timeout += this.#intended - this.#settled();
    for (const connection of this.#open) connection.socket.destroy();
    return {
      intended: this.#intended,
      answered: this.#answered,
      failures: this.#failures,
      seconds: (performance.now() - start) / 1000,
      latency: toLatency(this.#latency),
      late: toLatency(this.#late),
      waited: this.#waited,
    };
  }

  #schedule(start: number): Promise<void> {
    const gapMs = 1000 / this.#options.requestsPerSecond;
    const total = Math.round((this.#options.warmUpMs + this.#options.durationMs) / gapMs);
    return new Promise((done) => {
      const turn = (): void => {
        const now = performance.now();
        for (; this.#intended < total; this.#intended++) {
          const intendedAt = start + this.#intended * gapMs;
          if (intendedAt > now) break;
          if (intendedAt >= this.#timedFrom) this.#late.record(toNs(now - intendedAt));
          this.#begin(intendedAt);
        }
        const waitMs = start + this.#intended * gapMs - performance.now();
        if (this.#intended === total) done();
        else if (waitMs < TURN_WITHIN_MS) setImmediate(turn);
        else setTimeout(turn, Math.floor(waitMs - 1));
      };
      turn();
    });
  }

  #begin(intendedAt: number): void {
    const idle = this.#idle.shift();
    if (idle !== undefined) this.#send(idle, intendedAt);
    else if (this.#open.size < this.#options.connections) this.#connect(intendedAt);
    else {
      this.#waited++;
      this.#waiting.push(intendedAt);
    }
  }

  #send(connection: Connection, intendedAt: number): void {
    connection.intendedAt = intendedAt;
    connection.sentAt = performance.now();
    connection.socket.write(this.#request, 'latin1');
  }

  #connect(intendedAt: number): void {
    const socket = createConnection({ host: this.#options.host, port: this.#options.port, noDelay: true });
    const connection: Connection = { socket, reader: new ResponseReader(), intendedAt, sentAt: performance.now() };
    this.#open.add(connection);
    let connected = false;
    socket.on('connect', () => {
      connected = true;
      // A connection that timed out while it was being made has nothing left to ask.
      if (connection.intendedAt !== undefined) this.#send(connection, connection.intendedAt);
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
    if (connection.intendedAt === undefined) return;
    const { bodyBytes } = this.#options;
    if (response.status !== 200) this.#failures.status++;
    else if (bodyBytes !== undefined && response.bodyBytes !== bodyBytes) this.#failures.body++;
    else {
      this.#answered++;
      if (connection.intendedAt >= this.#timedFrom)
        this.#latency.record(toNs(performance.now() - connection.intendedAt));
    }
    connection.intendedAt = undefined;
    if (this.#options.keepAlive && response.keepAlive) this.#release(connection);
    else this.#drop(connection);
  }

  #release(connection: Connection): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#idle.push(connection);
    else this.#send(connection, next);
  }

  #fail(connection: Connection, failure: Failure): void {
    if (connection.intendedAt !== undefined) this.#failures[failure]++;
    connection.intendedAt = undefined;
    this.#drop(connection);
  }

  #drop(connection: Connection): void {
    if (!this.#open.delete(connection)) return;
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
    connection.socket.destroy();
    const next = this.#waiting.shift();
    if (next !== undefined) this.#connect(next);
  }

  #checkTimeouts(): void {
    const oldest = performance.now() - this.#options.timeoutMs;
    for (const connection of this.#open)
      if (connection.intendedAt !== undefined && connection.sentAt < oldest) this.#fail(connection, 'timeout');
  }

  #settled(): number {
    return Object.values(this.#failures).reduce((sum, count) => sum + count, this.#answered);
  }
}

interface Connection {
  readonly socket: Socket;
  readonly reader: ResponseReader;
  /** Of the request in flight, in `performance.now()` milliseconds; undefined when idle. */
  intendedAt: number | undefined;
  sentAt: number;
}

function toNs(ms: number): number {
  return Math.max(1, Math.round(ms * NS_PER_MS));
}

function toLatency(histogram: RecordableHistogram): Latency {
  const ms = (percentile: number): number => (histogram.count === 0 ? 0 : histogram.percentile(percentile) / NS_PER_MS);
  return { p50Ms: ms(50), p90Ms: ms(90), p99Ms: ms(99), maxMs: ms(100) };
}

function sleep(ms: number): Promise<void> {
  return new Promise((wake) => setTimeout(wake, ms));
}
