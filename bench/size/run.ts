/**
 * `npm run bench:size`: how often `nunicorn size` is right. Applications of known cost, whose best setting follows from the maths;
 * predicted against measured throughput; the same applications beside a noise maker; and the Django example against an exhaustive
 * grid. Writes bench/results/size.md and size.json after each item, so that nothing is lost when it is stopped.
 */
import { availableParallelism, cpus, loadavg } from 'node:os';
import { commandLine, pick, positive } from '../command-line.ts';
import { toMarkdown } from './page.ts';
import { application, django, predict, sizeOnce, WAITING, withNoise } from './parts.ts';
import { type Part, type Results, type Run, readResults, writeResults } from './results.ts';

const PARTS = ['synthetic', 'prediction', 'noise', 'django'] as const;
type Name = (typeof PARTS)[number];

const USAGE = `  --part a,b                ${PARTS.join(',')}
  --continue                go on where it was stopped
  --runs N                  20, of 'synthetic'
  --noise-runs N            10
  --budget S                40, of each sizing
  --noise-budget S          20
  --prediction-budget S     30
  --django-budget S         60`;

const options = commandLine(
  'bench:size',
  USAGE,
  {
    part: { type: 'string' },
    continue: { type: 'boolean', default: false },
    runs: { type: 'string', default: '20' },
    'noise-runs': { type: 'string', default: '10' },
    budget: { type: 'string', default: '40' },
    'noise-budget': { type: 'string', default: '20' },
    'prediction-budget': { type: 'string', default: '30' },
    'django-budget': { type: 'string', default: '60' },
  },
  (values) => ({
    parts: pick('part', values.part, PARTS),
    continue: values.continue,
    runs: positive('runs', values.runs),
    noiseRuns: positive('noise-runs', values['noise-runs']),
    budgetS: positive('budget', values.budget),
    noiseBudgetS: positive('noise-budget', values['noise-budget']),
    predictionBudgetS: positive('prediction-budget', values['prediction-budget']),
    djangoBudgetS: positive('django-budget', values['django-budget']),
  }),
);
/** Before anything of ours ran. */
const loadBefore = loadavg()[0] ?? 0;
const results: Results = readResults();
results.machine = `${cpus()[0]?.model ?? 'unknown'}, ${availableParallelism()} cores, Node ${process.versions.node}`;
for (const part of options.parts) await work(part);
console.log(`\n${toMarkdown(results)}`);

function work(part: Name): Promise<void> {
  switch (part) {
    case 'synthetic':
      return items(part, options.runs, options.budgetS, async (i, budgetS) => said(sizeOnce(application(i), budgetS)));
    case 'noise':
      return withNoise(() =>
        items(part, options.noiseRuns, options.noiseBudgetS, async (i, budgetS) =>
          said(sizeOnce(application(i), budgetS)),
        ),
      );
    case 'prediction':
      return items(part, WAITING.length, options.predictionBudgetS, async (i, budgetS) => {
        const known = WAITING[i];
        if (known === undefined) throw new Error(`there is no application ${i}`);
        const found = await predict(known, budgetS);
        return [
          found,
          found.map((each) => `${each.name} ${(each.predicted / each.measured - 1).toFixed(2)}`).join(', '),
        ];
      });
    case 'django':
      return items(part, 1, options.djangoBudgetS, async (_, budgetS) => {
        const grid = await django(budgetS);
        return [grid, `${grid.recommended}, best of the grid ${grid.best}: ${(100 * grid.share).toFixed(0)} %`];
      });
  }
}

function said(run: Run): [Run, string] {
  const { known, kind, got, expected, right } = run;
  return [
    run,
    `${known.app} C ${known.lockedMs} G ${known.freeMs} Z ${known.waitMs} on ${known.cpus}: ${kind}, ${got} (expected ${expected})${right ? '' : '  <-'}`,
  ];
}

/** Does `count` items, or what is missing of them, and writes the results after each. */
async function items<T>(
  part: Name,
  count: number,
  budgetS: number,
  make: (i: number, budgetS: number) => Promise<[T, string]>,
): Promise<void> {
  const known = results[part] as Part<T> | undefined;
  const from = options.continue && known !== undefined ? known.items.length : 0;
  const head = {
    at: new Date().toISOString().slice(0, 16).replace('T', ' '),
    load: loadBefore,
    budgetS,
  };
  let done: readonly T[] = from === 0 ? [] : (known?.items ?? []);
  const startedAt = performance.now();
  for (let i = from; i < count; i++) {
    const [item, line] = await make(i, budgetS);
    done = [...done, item];
    Object.assign(results, { [part]: { ...(from === 0 ? head : known), items: done } });
    writeResults(results, toMarkdown(results));
    const each = (performance.now() - startedAt) / (i + 1 - from);
    const left = Math.round((each * (count - i - 1)) / 1000);
    console.log(`${part} ${i + 1}/${count}: ${line}${left > 0 ? `; ${left} s left of this part` : ''}`);
  }
}
