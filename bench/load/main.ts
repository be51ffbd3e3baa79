/** The generators as a process of their own: `main.js open-loop|burst OPTIONS_AS_JSON`, the result as JSON on stdout. */

import { runLoad } from '../../src/size/load/load.ts';
import { runBurst } from './burst.ts';

const [kind, options] = process.argv.slice(2);
if ((kind !== 'open-loop' && kind !== 'burst') || options === undefined)
  throw new Error('usage: main.js open-loop|burst OPTIONS_AS_JSON');
const result = kind === 'open-loop' ? await runLoad(JSON.parse(options)) : await runBurst(JSON.parse(options));
process.stdout.write(`${JSON.stringify(result)}\n`);
