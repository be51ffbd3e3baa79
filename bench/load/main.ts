/** The generators as a process of their own: `main.js open-loop|burst OPTIONS_AS_JSON`, the result as JSON on stdout. */

import { runBurst } from './burst.ts';
import { runOpenLoop } from './open-loop.ts';

const [kind, options] = process.argv.slice(2);
if ((kind !== 'open-loop' && kind !== 'burst') || options === undefined)
  throw new Error('usage: main.js open-loop|burst OPTIONS_AS_JSON');
const result = kind === 'open-loop' ? await runOpenLoop(JSON.parse(options)) : await runBurst(JSON.parse(options));
process.stdout.write(`${JSON.stringify(result)}\n`);
