/** The options of `npm run bench`. */

import { SITES } from './cases.ts';
import { commandLine, pick, positive } from './command-line.ts';
import { SERVERS } from './servers.ts';

const QUICK_SERVERS = 'nunicorn,gunicorn-sync,gunicorn-gthread,node-http';
const CASES = SITES.flatMap(({ cases }) => cases.map(({ id }) => id));

const USAGE = `  --cases a,b         ${CASES.join(',')}
  --servers a,b       ${Object.keys(SERVERS).join(',')}
  --rounds N          5
  --seconds S         2, of each window; the Django page's are twice as long
  --quick             2 rounds of 1 s windows with ${QUICK_SERVERS}: for a look
  --out NAME          bench/results/NAME.md and .json ('latest' for a whole run, else 'partial')
  --server-cores C    as taskset takes them
  --load-cores C
  --render NAME       write NAME.md anew from NAME.json, measure nothing`;

export const options = commandLine(
  'bench',
  USAGE,
  {
    cases: { type: 'string' },
    servers: { type: 'string' },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    quick: { type: 'boolean', default: false },
    out: { type: 'string' },
    'server-cores': { type: 'string' },
    'load-cores': { type: 'string' },
    render: { type: 'string' },
  },
  (values) => ({
    cases: pick('cases', values.cases, CASES),
    servers: pick('servers', values.servers ?? (values.quick ? QUICK_SERVERS : undefined), Object.keys(SERVERS)),
    rounds: positive('rounds', values.rounds ?? (values.quick ? '2' : '5')),
    seconds: positive('seconds', values.seconds ?? (values.quick ? '1' : '2')),
    quick: values.quick,
    out: values.out,
    serverCores: values['server-cores'],
    loadCores: values['load-cores'],
    render: values.render,
    /** Only a whole run may replace the published page. */
    whole: !values.quick && values.cases === undefined && values.servers === undefined,
  }),
);
