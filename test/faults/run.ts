/**
 * Everything that goes wrong with an app and a server, under load, with a tally of every client's outcome.
 *
 *   npm run faults                   for Python; ends within ten minutes, done or not
 *   npm run faults:node              for Node apps under async and gthread, at less length; ends within ten minutes
 *   npm run soak                     what only time shows: a Django app that leaks, a thousand recycles; ends within 40 minutes
 *   npm run soak -- --minutes 60     the Django app for an hour
 *   npm run faults -- HUP 'kill -9'  only the scenarios whose names contain one of these words
 *   npm run faults -- --times 10 HUP ten times as many, in ten times the limit
 */
import { parseArgs } from 'node:util';
import { crashing } from './crashing.ts';
import { hanging } from './hanging.ts';
import { killing } from './killing.ts';
import { type Kind, NODE_ASYNC, NODE_GTHREAD, PYTHON } from './kinds.ts';
import { replacing } from './replacing.ts';
import { of, type Scenario, type Verdict } from './scenario.ts';
import { soaking } from './soaking.ts';

const LIMIT_MINUTES = 10;
/** Of a soak, beside the time of the Django app. */
const SOAK_LIMIT_MINUTES = 30;

interface Suite {
  readonly scenarios: readonly Scenario[];
  readonly limitMinutes: number;
}

const [name, ...rest] = process.argv.slice(2);
const { values, positionals: words } = parseArgs({
  args: rest,
  allowPositionals: true,
  options: { [name === 'soak' ? 'minutes' : 'times']: { type: 'string' } },
});
const scale = positive(values.times, 1);
const { scenarios, limitMinutes } = suite();

function suite(): Suite {
  switch (name) {
    case 'python':
      return { scenarios: faults(PYTHON), limitMinutes: LIMIT_MINUTES * scale };
    case 'node':
      return { scenarios: [...faults(NODE_ASYNC), ...faults(NODE_GTHREAD)], limitMinutes: LIMIT_MINUTES * scale };
    case 'soak': {
      const minutes = positive(values.minutes, 10);
      return { scenarios: soaking(minutes), limitMinutes: SOAK_LIMIT_MINUTES + minutes };
    }
    default:
      throw new Error(`python, node or soak, not ${name}`);
  }
}

function positive(text: string | boolean | undefined, standard: number): number {
  if (text === undefined) return standard;
  const value = Number(text);
  if (value > 0) return value;
  throw new Error(`not a number above 0: ${text}`);
}

function faults(kind: Kind): readonly Scenario[] {
  return [replacing, killing, crashing, hanging].flatMap((scenariosOf) =>
    scenariosOf(kind).map((scenario) => of(kind, scenario)),
  );
}

const verdicts: { readonly name: string; readonly verdict: Verdict; readonly seconds: number }[] = [];
const chosen = scenarios.filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)));
if (chosen.length === 0) {
  const names = scenarios.map(({ name }) => `  ${name}`).join('\n');
  console.error(`no scenario has ${words.map((word) => `'${word}'`).join(' or ')} in its name; there are\n${names}`);
  process.exit(2);
}
console.log(`${chosen.length} of ${scenarios.length} scenarios, ${limitMinutes} minutes at most`);
setTimeout(() => {
  console.log(`FAIL ${chosen[verdicts.length]?.name}: not done within the ${limitMinutes} minutes of all`);
  finish();
}, limitMinutes * 60_000);

for (const { name, run } of chosen) {
  const start = performance.now();
  const verdict = await run(scale);
  const seconds = (performance.now() - start) / 1000;
  verdicts.push({ name, verdict, seconds });
  console.log(`${verdict.wrong.length === 0 ? 'ok  ' : 'FAIL'} ${name} (${seconds.toFixed(0)} s): ${verdict.figures}`);
  for (const one of verdict.wrong) console.log(`     ${one}`);
}
finish();

/** Ends the process, and with it the servers. */
function finish(): never {
  const good = verdicts.filter(({ verdict }) => verdict.wrong.length === 0).length;
  const width = Math.max(...verdicts.map(({ name }) => name.length));
  console.log('');
  for (const { name, verdict, seconds } of verdicts) {
    const state = verdict.wrong.length === 0 ? 'ok' : 'FAIL';
    console.log(`${name.padEnd(width)}  ${seconds.toFixed(0).padStart(4)} s  ${state.padEnd(4)}  ${verdict.figures}`);
  }
  console.log(`\n${good} of ${chosen.length} hold`);
  process.exit(good === chosen.length && good > 0 ? 0 : 1);
}
