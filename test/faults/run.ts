/**
 * `npm run faults`: everything that goes wrong with an app and a server, under load, with a tally of every client's outcome: for
 * Python, and at less length for Node apps under async and gthread. Twenty minutes at most. `npm run soak`: the same ten times as
 * long. Words behind `--` select scenarios by name, which begins with the kind: `npm run faults -- 'Node gthread'`.
 */
import { crashing } from './crashing.ts';
import { hanging } from './hanging.ts';
import { killing } from './killing.ts';
import { NODE_ASYNC, NODE_GTHREAD, PYTHON } from './kinds.ts';
import { replacing } from './replacing.ts';
import type { Scenario, Verdict } from './scenario.ts';

const LIMIT_MS = 20 * 60_000;
const SOAK_SCALE = 10;

const words = process.argv.slice(2).filter((word) => word !== '--soak');
const scale = process.argv.includes('--soak') ? SOAK_SCALE : 1;
const scenarios: readonly Scenario[] = [PYTHON, NODE_ASYNC, NODE_GTHREAD]
  .flatMap((kind) =>
    [replacing, killing, crashing, hanging]
      .flatMap((scenariosOf) => scenariosOf(kind))
      .map(({ name, run }) => ({ name: kind.name + name, run: (times: number) => run(times * kind.scale) })),
  )
  .filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)));

const limit = setTimeout(() => {
  console.log(`not done within ${(LIMIT_MS * scale) / 60_000} minutes`);
  process.exit(1);
}, LIMIT_MS * scale);

const verdicts: { readonly name: string; readonly verdict: Verdict; readonly seconds: number }[] = [];
for (const { name, run } of scenarios) {
  const start = performance.now();
  const verdict = await run(scale);
  const seconds = (performance.now() - start) / 1000;
  verdicts.push({ name, verdict, seconds });
  console.log(`${verdict.wrong.length === 0 ? 'ok  ' : 'FAIL'} ${name} (${seconds.toFixed(0)} s): ${verdict.figures}`);
  for (const one of verdict.wrong) console.log(`     ${one}`);
}
clearTimeout(limit);

const failed = verdicts.filter(({ verdict }) => verdict.wrong.length > 0);
const width = Math.max(...verdicts.map(({ name }) => name.length));
console.log('');
for (const { name, verdict, seconds } of verdicts) {
  const state = verdict.wrong.length === 0 ? 'ok' : 'FAIL';
  console.log(`${name.padEnd(width)}  ${seconds.toFixed(0).padStart(4)} s  ${state.padEnd(4)}  ${verdict.figures}`);
}
console.log(`\n${verdicts.length - failed.length} of ${verdicts.length} hold`);
process.exit(failed.length === 0 && verdicts.length > 0 ? 0 : 1);
