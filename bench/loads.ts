/** Puts one load on one server, with wrk, our own generators and nginx, all on the load cores. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LoadOptions, LoadResult } from '../src/size/load/load.ts';
import type { BurstOptions, BurstResult } from './load/burst.ts';
import { Program, runToEnd } from './programs.ts';
import { ROOT } from './servers.ts';

export interface Target {
  readonly port: number;
  readonly path: string;
  /** Of the right answer, if it is always the same. */
  readonly bodyBytes: number | undefined;
  readonly cores: string | undefined;
}

/** What a load saw from outside. */
export interface Outcome {
  readonly requests: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** What went wrong, in words; empty in a good run. */
  readonly remarks: readonly string[];
  /** How late our generator started requests, 99th percentile. */
  readonly lateP99Ms?: number;
  /** Duration of each burst. */
  readonly trialMs?: readonly number[];
}

const HOST = '127.0.0.1';
const TIMEOUT_MS = 5000;
const WARM_UP_MS = 300;
/** Of the measured p99: beyond it the window says more about the machine than about the server. */
const MAX_LATE_SHARE = 0.25;
/** A server that takes longer than this for a burst on average gets fewer of them. */
const BURST_BUDGET_MS = 700;
/** Beyond the planned time of a load, before it is killed. */
const GRACE_MS = 15_000;
const WRK_SCRIPT = join(ROOT, 'bench', 'load', 'wrk.lua');
/** V8's own threads share the generator's only core: compiling there made 1 % of requests start 1.5 ms late, without 0.1. */
const GENERATOR_FLAGS = ['--no-opt', '--always-sparkplug', '--single-threaded-gc'];
const GENERATOR = join(import.meta.dirname, 'load', 'main.js');

interface WrkReport {
  readonly requests: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly connect: number;
  readonly read: number;
  readonly write: number;
  readonly status: number;
  readonly timeout: number;
}

export interface FullSpeed {
  readonly connections: number;
  readonly seconds: number;
  readonly newConnections?: boolean | undefined;
  readonly postBytes?: number | undefined;
}

export async function fullSpeed(target: Target, load: FullSpeed): Promise<Outcome> {
  const { connections, seconds, newConnections, postBytes } = load;
  const command = [
    ...['wrk', '-t', '1', '-c', `${connections}`, '-d', `${Math.ceil(seconds)}s`, '--timeout', `${TIMEOUT_MS / 1000}s`],
    ...(newConnections ? ['-H', 'Connection: close'] : []),
    ...['-s', WRK_SCRIPT, `http://${HOST}:${target.port}${target.path}`, '--', `${postBytes ?? 0}`],
  ];
  const output = await runToEnd(command, { cores: target.cores, timeoutMs: seconds * 1000 + GRACE_MS });
  const json = /^JSON (.*)$/m.exec(output)?.[1];
  if (json === undefined) throw new Error(`wrk said ${output}`);
  const report = JSON.parse(json) as WrkReport;
  return {
    requests: report.requests - report.status,
    seconds: report.seconds,
    p50Ms: report.p50Ms,
    p99Ms: report.p99Ms,
    remarks: inWords({
      connect: report.connect,
      read: report.read,
      write: report.write,
      'status above 399': report.status,
      timeout: report.timeout,
    }),
  };
}

export async function constantRate(
  target: Target,
  load: {
    readonly perSecond: number;
    readonly connections: number;
    readonly seconds: number;
    /** False: starts are kept to half a millisecond only, but the server has the cores for itself. */
    readonly spin?: boolean;
  },
): Promise<Outcome> {
  const options: LoadOptions = {
    host: HOST,
    port: target.port,
    requests: [
      {
        text: `GET ${target.path} HTTP/1.1\r\nHost: ${HOST}:${target.port}\r\n\r\n`,
        weight: 1,
        status: 200,
        ...(target.bodyBytes === undefined ? {} : { bodyBytes: target.bodyBytes }),
      },
    ],
    arrivals: { kind: 'constant', perSecond: load.perSecond },
    durationMs: load.seconds * 1000,
    warmUpMs: WARM_UP_MS,
    connections: load.connections,
    keepAlive: true,
    timeoutMs: TIMEOUT_MS,
    spin: load.spin ?? true,
    seed: 1,
  };
  const result = await generate<LoadResult>('open-loop', options, target, load.seconds);
  return {
    requests: result.answered,
    seconds: result.seconds,
    p50Ms: result.latency.p50Ms,
    p99Ms: result.latency.p99Ms,
    remarks: [...inWords(result.failures), ...lateness(result)],
    lateP99Ms: result.late.p99Ms,
  };
}

export async function burst(target: Target, requests: number, trials: number): Promise<Outcome> {
  const limitMs = trials * BURST_BUDGET_MS;
  const options: BurstOptions = {
    host: HOST,
    port: target.port,
    path: target.path,
    requests,
    trials,
    timeoutMs: TIMEOUT_MS,
    limitMs,
  };
  const { trialMs, failures } = await generate<BurstResult>('burst', options, target, options.limitMs / 1000);
  const sorted = [...trialMs].sort((a, b) => a - b);
  return {
    requests: requests * trialMs.length - failures,
    seconds: trialMs.reduce((sum, ms) => sum + ms, 0) / 1000,
    p50Ms: sorted[Math.floor(sorted.length / 2)] ?? 0,
    p99Ms: sorted.at(-1) ?? 0,
    remarks: inWords({ request: failures }),
    trialMs,
  };
}

/** Runs `work` with nginx in front of the port, configured with nothing but `proxy_pass`; `work` gets nginx's port. */
export async function behindNginx<T>(target: Target, work: (throughNginx: Target) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'nunicorn-bench-nginx-'));
  const port = await freePort();
  writeFileSync(
    join(folder, 'nginx.conf'),
    `daemon off; pid ${folder}/pid; error_log stderr error; worker_processes 1;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
  server { listen ${HOST}:${port}; location / { proxy_pass http://${HOST}:${target.port}; } }
}
`,
  );
  const nginx = new Program(['nginx', '-p', folder, '-e', 'stderr', '-c', join(folder, 'nginx.conf')], {
    cores: target.cores,
  });
  try {
    await untilAnswered(port, target.path, nginx);
    return await work({ ...target, port });
  } finally {
    await nginx.stop();
    rmSync(folder, { recursive: true });
  }
}

/** The body of the first 200, asked for until the program is up. */
export async function untilAnswered(port: number, path: string, program: Program): Promise<string> {
  let last = 'no answer';
  for (const deadline = Date.now() + 30_000; Date.now() < deadline && !program.exited; await sleep(50)) {
    try {
      const response = await fetch(`http://${HOST}:${port}${path}`, { headers: { connection: 'close' } });
      const body = await response.text();
      if (response.status === 200) return body;
      last = `status ${response.status}`;
    } catch (error) {
      last = String(error);
    }
  }
  throw new Error(`not up: ${last}; it wrote: ${lastLine(program.stderr || program.stdout) ?? 'nothing'}`);
}

function lastLine(text: string): string | undefined {
  return text
    .split('\n')
    .map((line) => line.trim())
    .findLast((line) => line !== '');
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((listening) => server.listen(0, HOST, listening));
  const address = server.address();
  await new Promise((closed) => server.close(closed));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

async function generate<Result>(
  kind: 'open-loop' | 'burst',
  options: LoadOptions | BurstOptions,
  target: Target,
  seconds: number,
): Promise<Result> {
  const command = [process.execPath, ...GENERATOR_FLAGS, GENERATOR, kind, JSON.stringify(options)];
  const output = await runToEnd(command, { cores: target.cores, timeoutMs: seconds * 1000 + GRACE_MS });
  return JSON.parse(output) as Result;
}

function lateness({ late, latency }: LoadResult): string[] {
  const spoils = late.p99Ms > latency.p99Ms * MAX_LATE_SHARE;
  return spoils ? [`generator ${late.p99Ms.toFixed(1)} ms late at p99`] : [];
}

function inWords(counts: Readonly<Record<string, number>>): string[] {
  return Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([what, count]) => `${count} x ${what}`);
}
