/** Simultaneous requests, each on its own new connection: how long until the last one is answered? */

import { createConnection } from 'node:net';
import { performance } from 'node:perf_hooks';
import { ResponseReader } from '../../src/size/load/response.ts';

export interface BurstOptions {
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly requests: number;
  readonly trials: number;
  readonly timeoutMs: number;
  /** No trial is begun after this. */
  readonly limitMs: number;
}

export interface BurstResult {
  /** Per trial: until the last answer came. */
  readonly trialMs: readonly number[];
  readonly failures: number;
}

export async function runBurst(options: BurstOptions): Promise<BurstResult> {
  const trialMs: number[] = [];
  let failures = 0;
  const end = performance.now() + options.limitMs;
  while (trialMs.length < options.trials && performance.now() < end) {
    const start = performance.now();
    const answers = await Promise.all(Array.from({ length: options.requests }, () => request(options)));
    trialMs.push(performance.now() - start);
    failures += answers.filter((ok) => !ok).length;
  }
  return { trialMs, failures };
}

function request({ host, port, path, timeoutMs }: BurstOptions): Promise<boolean> {
  return new Promise((resolve) => {
    const reader = new ResponseReader();
    const socket = createConnection({ host, port, noDelay: true });
    const finish = (status: number | undefined): void => {
      resolve(status === 200);
      socket.destroy();
    };
    socket.setTimeout(timeoutMs, () => finish(undefined));
    socket.on('connect', () => socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`));
    socket.on('data', (data) => {
      try {
        const response = reader.push(data);
        if (response !== undefined) finish(response.status);
      } catch {
        finish(undefined);
      }
    });
    socket.on('end', () => finish(reader.end()?.status));
    socket.on('error', () => finish(undefined));
    socket.on('close', () => finish(undefined));
  });
}
