/**
 * `npm run bench:size`: how often `nunicorn size` is right. Applications of known cost, whose best setting follows from the maths;
 * predicted against measured throughput; the same applications beside a noise maker; and the Django example against an exhaustive
 * grid. Writes bench/results/size.md and size.json after each item, so that nothing is lost when it is stopped.
 *
 *   npm run bench:size -- [--part synthetic,prediction,noise,django] [--continue] [--runs 20] [--noise-runs 10] [--budget 40]
 *     [--noise-budget 20] [--prediction-budget 30] [--django-budget 60]
 */
import { availableParallelism, cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { toMarkdown } from './page.ts';
import { application, django, predict, sizeOnce, WAITING, withNoise } from './parts.ts';
import { type Part, type Results, type Run, readResults, writeResults } from './results.ts';

const PARTS = ['synthetic', 'prediction', 'noise', 'django'] as const;
type Name = (typeof PARTS)[number];

const { values } = parseArgs({
  options: {
    part: { type: 'string', default: PARTS.join(',') },
    continue: { type: 'boolean', default: false },
    runs: { type: 'string', default: '20' },
    'noise-runs': { type: 'string', default: '10' },
    budget: { type: 'string', default: '40' },
    'noise-budget': { type: 'string', default: '20' },
    'prediction-budget': { type: 'string', default: '30' },
    'django-budget': { type: 'string', default: '60' },
  },
});

const wanted = values.part.split(',');
const unknown = wanted.find((name) => !PARTS.some((part) => part === name));
if (unknown !== undefined) {
  console.error(`--part ${unknown}: there are ${PARTS.join(', ')}`);
  process.exit(2);
}
/** Before anything of ours ran. */
const loadBefore = loadavg()[0] ?? 0;
const results: Results = readResults();
results.machine = `${cpus()[0]?.model ?? 'unknown'}, ${availableParallelism()} cores, Node ${process.versions.node}`;
for (const part of PARTS) if (wanted.includes(part)) await work(part);
console.log(`\n${toMarkdown(results)}`);

function work(part: Name): Promise<void> {
  switch (part) {
    case 'synthetic':
      return items(part, Number(values.runs), Number(values.budget), async (i, budgetS) =>
        said(sizeOnce(application(i), budgetS)),
      );
    case 'noise':
      return withNoise(() =>
        items(part, Number(values['noise-runs']), Number(values['noise-budget']), async (i, budgetS) =>
          said(sizeOnce(application(i), budgetS)),
        ),
      );
    case 'prediction':
      return items(part, WAITING.length, Number(values['prediction-budget']), async (i, budgetS) => {
        const known = WAITING[i];
        if (known === undefined) throw new Error(`there is no application ${i}`);
        const found = await predict(known, budgetS);
        return [
          found,
          found.map((each) => `${each.name} ${(each.predicted / each.measured - 1).toFixed(2)}`).join(', '),
        ];
      });
    case 'django':
      return items(part, 1, Number(values['django-budget']), async (_, budgetS) => {
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
  const from = values.continue && known !== undefined ? known.items.length : 0;
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
