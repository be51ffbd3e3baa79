/**
 * For loads that one machine cannot make: the same requests as a k6 script, and what its summary says about the SLO. k6 counts a
 * request from when it is sent; where it could not send in time it says so (dropped iterations), and such a step is not counted as kept.
 */
import { NunicornError } from '../errors.ts';
import { type Slo, showSlo } from './slo.ts';
import { ms, perSecond } from './terminal.ts';
import type { TrafficEntry } from './traffic.ts';

/** Of the rate that is expected. */
const STEPS = [0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2];
const STEP_SECONDS = 30;
const PAUSE_SECONDS = 5;

export interface K6Step {
  readonly perSecond: number;
  readonly completedPerSecond: number;
  readonly p50Ms: number;
  readonly p90Ms: number;
  readonly p99Ms: number;
  readonly failedShare: number;
  readonly dropped: number;
}

export function k6Script(
  entries: readonly TrafficEntry[],
  host: string | undefined,
  headers: readonly string[],
  expectedPerSecond: number,
): string {
  const steps = STEPS.map((share) => Math.max(1, Math.round(share * expectedPerSecond)));
  const own = [...(host === undefined ? [] : [`Host: ${host}`]), ...headers];
  const pairs = own.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]);
  return `// Made by nunicorn size. Start the server with the setting to be measured on a machine of its own, then:
//   k6 run -e TARGET=http://SERVER:8000 THIS_FILE
//   nunicorn size --slo 'p99<300ms' --import nunicorn-k6.json
import http from 'k6/http';

const TARGET = __ENV.TARGET || 'http://127.0.0.1:8000';
const STEPS = ${JSON.stringify(steps)};
const SECONDS = ${STEP_SECONDS};
const REQUESTS = ${JSON.stringify(entries.map(({ path, weight }) => [path, weight]))};
const HEADERS = ${JSON.stringify(Object.fromEntries(pairs))};
const TOTAL = REQUESTS.reduce((sum, [, weight]) => sum + weight, 0);

const scenarios = {};
// A threshold makes k6 keep the figures of each step apart; these are always met.
const thresholds = {};
STEPS.forEach((rate, i) => {
  scenarios['s' + i] = {
    executor: 'constant-arrival-rate', rate, timeUnit: '1s', duration: SECONDS + 's', startTime: i * (SECONDS + ${PAUSE_SECONDS}) + 's',
    preAllocatedVUs: Math.max(10, rate), maxVUs: Math.max(100, 4 * rate),
  };
  thresholds['http_req_duration{scenario:s' + i + '}'] = ['max>=0'];
  thresholds['http_req_failed{scenario:s' + i + '}'] = ['rate>=0'];
  thresholds['http_reqs{scenario:s' + i + '}'] = ['count>=0'];
  thresholds['dropped_iterations{scenario:s' + i + '}'] = ['count>=0'];
});
export const options = { scenarios, thresholds, summaryTrendStats: ['med', 'p(90)', 'p(99)'] };

export default function () {
  let at = Math.random() * TOTAL;
  const [path] = REQUESTS.find(([, weight]) => (at -= weight) < 0) || REQUESTS[0];
  http.get(TARGET + path, { headers: HEADERS, redirects: 0, tags: { name: 'request' } });
}

export function handleSummary(data) {
  const of = (metric, i) => (data.metrics[metric + '{scenario:s' + i + '}'] || { values: {} }).values;
  const steps = STEPS.map((perSecond, i) => ({
    perSecond,
    completedPerSecond: (of('http_reqs', i).count || 0) / SECONDS,
    p50Ms: of('http_req_duration', i).med, p90Ms: of('http_req_duration', i)['p(90)'], p99Ms: of('http_req_duration', i)['p(99)'],
    failedShare: of('http_req_failed', i).rate || 0,
    dropped: of('dropped_iterations', i).count || 0,
  }));
  return { 'nunicorn-k6.json': JSON.stringify({ nunicornSize: 'k6', steps }, null, 2), stdout: 'wrote nunicorn-k6.json\\n' };
}
`;
}

/** @throws {NunicornError} if it is not what such a script writes */
export function readK6(json: string, file: string): readonly K6Step[] {
  try {
    const { nunicornSize, steps } = JSON.parse(json) as { nunicornSize: string; steps: K6Step[] };
    if (nunicornSize === 'k6' && Array.isArray(steps) && steps.every(({ p99Ms }) => typeof p99Ms === 'number'))
      return steps;
  } catch {
    // Said below.
  }
  throw new NunicornError(`${file} is not the summary of a k6 script that nunicorn size --export k6 has written`);
}

export function keeps(slo: Slo, step: K6Step): boolean {
  const at = { 50: step.p50Ms, 90: step.p90Ms, 99: step.p99Ms }[slo.percentile];
  return (
    at <= slo.ms && step.failedShare === 0 && step.dropped === 0 && step.completedPerSecond >= 0.98 * step.perSecond
  );
}

/** The steps as a table, and the highest rate up to which all of them keep the SLO. */
export function k6Text(slo: Slo, steps: readonly K6Step[], file: string): string {
  const kept = highestKept(slo, steps);
  const rows = steps.map((step) => {
    const odd = [
      ...(step.failedShare > 0 ? [`${(step.failedShare * 100).toFixed(2)} % failed`] : []),
      ...(step.dropped > 0 ? [`k6 could not start ${step.dropped} requests in time`] : []),
      ...(step.completedPerSecond < 0.98 * step.perSecond ? ['falls behind'] : []),
    ];
    return `${perSecond(step.perSecond).padStart(9)}  p50 ${ms(step.p50Ms)}, p99 ${ms(step.p99Ms)}${odd.length > 0 ? `  (${odd.join(', ')})` : ''}${keeps(slo, step) ? '' : '  not kept'}`;
  });
  const verdict =
    kept === undefined
      ? `${showSlo(slo)} is kept at no rate that was tried.`
      : `${showSlo(slo)} is kept up to ${perSecond(kept)}${kept === steps.at(-1)?.perSecond ? ', the highest that was tried' : ''}.`;
  return `${file}\n${rows.join('\n')}\n${verdict}\n`;
}

export function highestKept(slo: Slo, steps: readonly K6Step[]): number | undefined {
  const ordered = [...steps].sort((a, b) => a.perSecond - b.perSecond);
  const broken = ordered.findIndex((step) => !keeps(slo, step));
  return (broken === -1 ? ordered : ordered.slice(0, broken)).at(-1)?.perSecond;
}
