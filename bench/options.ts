/** The command line of the benchmark. */

import { parseArgs } from 'node:util';
import { SITES } from './cases.ts';
import { SERVERS } from './servers.ts';

const QUICK_SERVERS = 'nunicorn,gunicorn-sync,gunicorn-gthread,node-http';
const CASES = SITES.flatMap(({ cases }) => cases.map(({ id }) => id));

const OPTIONS = {
  cases: { type: 'string' },
  servers: { type: 'string' },
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  quick: { type: 'boolean', default: false },
  out: { type: 'string' },
  'server-cores': { type: 'string' },
  'load-cores': { type: 'string' },
  render: { type: 'string' },
  help: { type: 'boolean', default: false },
} as const;

export const options = readOptions();

export const USAGE = `npm run bench -- [options]
  --cases a,b         ${CASES.join(',')}
  --servers a,b       ${Object.keys(SERVERS).join(',')}
  --rounds N          5
  --seconds S         2, of each window
  --quick             2 rounds of 1 s windows with ${QUICK_SERVERS}: for a look
  --out NAME          bench/results/NAME.md and .json ('latest' for a whole run, else 'partial')
  --server-cores C    as taskset takes them
  --load-cores C
  --render NAME       write NAME.md anew from NAME.json, measure nothing`;

function readOptions() {
  try {
    const { values } = parseArgs({ options: OPTIONS });
    return {
      cases: pick('cases', values.cases, CASES),
      servers: pick('servers', values.servers ?? (values.quick ? QUICK_SERVERS : undefined), Object.keys(SERVERS)),
      rounds: positive('rounds', values.rounds ?? (values.quick ? '2' : '5')),
      seconds: positive('seconds', values.seconds ?? (values.quick ? '1' : '2')),
      quick: values.quick,
      out: values.out,
      serverCores: values['server-cores'],
      loadCores: values['load-cores'],
      render: values.render,
      help: values.help,
      /** Only a whole run may replace the published page. */
      whole: !values.quick && values.cases === undefined && values.servers === undefined,
    } as const;
  } catch (error) {
    console.error(`npm run bench: ${error instanceof Error ? error.message : error}; see npm run bench -- --help`);
    process.exit(2);
  }
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} takes a whole number from 1, not ${text}`);
  return value;
}

function pick(name: string, text: string | undefined, known: readonly string[]): ReadonlySet<string> {
  const wanted = text?.split(',') ?? known;
  const unknown = wanted.filter((each) => !known.includes(each));
  if (unknown.length > 0) throw new Error(`--${name}: no ${unknown.join(', ')}; there are ${known.join(', ')}`);
  return new Set(wanted);
}
