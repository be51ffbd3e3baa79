/**
 * `npm run bench:metrics`: what counting costs a request, whether the figures are true after some minutes of a real Prometheus,
 * and how long health checks take while every worker hangs. Writes bench/results/metrics.md.
 * Some 8 minutes.
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { commandLine, pick, positive } from '../command-line.ts';
import { killAll } from '../programs.ts';
import { ROOT } from '../servers.ts';
import { costs } from './costs.ts';
import { stuck } from './stuck.ts';
import { truths } from './truths.ts';

const PARTS = ['stuck', 'costs', 'truths'] as const;

const USAGE = `  --rounds N     8, of 'costs'
  --slices N     2
  --soak S       120, of 'truths'
  --only a,b     of ${PARTS.join(',')}: print these, write nothing`;

const options = commandLine(
  'bench:metrics',
  USAGE,
  {
    rounds: { type: 'string', default: '8' },
    slices: { type: 'string', default: '2' },
    soak: { type: 'string', default: '120' },
    only: { type: 'string' },
  },
  (values) => ({
    rounds: positive('rounds', values.rounds),
    slices: positive('slices', values.slices),
    soakS: positive('soak', values.soak),
    parts: pick('only', values.only, PARTS),
    write: values.only === undefined,
  }),
);

const MEASURES = { stuck, costs: () => costs(options), truths: () => truths(options.soakS) };

try {
  const parts: string[] = [];
  for (const part of options.parts) parts.push(...(await MEASURES[part]()));
  const load = loadavg().map((figure) => figure.toFixed(0));
  const made = `Made by \`npm run bench:metrics\` with ${availableParallelism()} processors; load averages at the end: ${load.join(', ')}.`;
  const text = ['# Metrics: what they cost and whether they are true', '', made, '', ...parts].join('\n').trimEnd();
  if (options.write) writeFileSync(join(ROOT, 'bench', 'results', 'metrics.md'), `${text}\n`);
  console.log(text);
} finally {
  killAll();
}
