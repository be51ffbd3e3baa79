/**
 * `npm run bench:metrics`: what counting costs a request, whether the figures are true after some minutes of a real Prometheus,
 * and how long health checks take while every worker hangs. Writes bench/results/metrics.md.
 * `--rounds 8 --slices 2 --soak 120`: some 8 minutes. `--only stuck,costs,truths` prints these and writes nothing.
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { killAll } from '../programs.ts';
import { ROOT } from '../servers.ts';
import { costs } from './costs.ts';
import { stuck } from './stuck.ts';
import { truths } from './truths.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '8' },
    slices: { type: 'string', default: '2' },
    soak: { type: 'string', default: '120' },
    only: { type: 'string' },
  },
});

const PARTS = {
  stuck,
  costs: () => costs({ rounds: Number(values.rounds), slices: Number(values.slices) }),
  truths: () => truths(Number(values.soak)),
};

try {
  const wanted = values.only?.split(',') ?? Object.keys(PARTS);
  const parts: string[] = [];
  for (const [name, part] of Object.entries(PARTS)) if (wanted.includes(name)) parts.push(...(await part()));
  const load = loadavg().map((figure) => figure.toFixed(0));
  const made = `Made by \`npm run bench:metrics\` with ${availableParallelism()} processors; load averages at the end: ${load.join(', ')}.`;
  const text = ['# Metrics: what they cost and whether they are true', '', made, '', ...parts].join('\n').trimEnd();
  if (values.only === undefined) writeFileSync(join(ROOT, 'bench', 'results', 'metrics.md'), `${text}\n`);
  console.log(text);
} finally {
  killAll();
}
