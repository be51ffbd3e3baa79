/** Prints what the calls that a request makes to count itself take, in microseconds of processor time. */
import { now } from '../../src/clock.ts';
import type { Slot } from '../../src/dispatch/dispatcher.ts';
import type { Exchange } from '../../src/front/exchange.ts';
import { FrontMetrics } from '../../src/front/front-metrics.ts';
import { median } from '../../src/size/statistics.ts';

const CALLS = 1_000_000;
const ROUNDS = 9;

type Attached = Parameters<FrontMetrics['answered']>[1];

const metrics = new FrontMetrics(1, null);
const attached = Array.from({ length: 4 }, (_, at) => ({ address: { serial: at, number: at + 1 } }) as Attached);
// As far as they are looked at. A body, so that nothing is left out; times of all sizes, so that no branch is foreseen.
const requests = Array.from({ length: 1024 }, (_, at) => {
  const tookMs = 2 ** (Math.random() * 12 - 2);
  const queuedAt = now() - tookMs;
  const exchange = {
    status: 200 + 100 * (at % 4),
    outcome: 0,
    body: Buffer.alloc(1),
    startedAt: queuedAt - 1,
    queuedAt,
  };
  const slot = { runningSince: queuedAt + tookMs / 3, requests: [exchange] };
  return { exchange: exchange as unknown as Exchange, slot: slot as unknown as Slot<Exchange>, appUs: tookMs * 700 };
});

function count(calls: number): void {
  for (let call = 0; call < calls; call++) {
    const request = requests[call % requests.length];
    const worker = attached[call % attached.length];
    if (request === undefined || worker === undefined) continue;
    metrics.read(request.exchange);
    metrics.answered(request.slot, worker, request.appUs, now());
    metrics.over(request.exchange);
  }
}

function usedUs(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

count(CALLS);
const each = Array.from({ length: ROUNDS }, () => {
  const before = usedUs();
  count(CALLS);
  return (usedUs() - before) / CALLS;
});
process.stdout.write(`${median(each)}\n`);
