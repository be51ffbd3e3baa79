/** bench/results/size.md. Pure. */
import { median } from '../../src/size/statistics.ts';
import type { Grid, Known, Part, Prediction, Rate, Results, Run } from './results.ts';

/** Of the measured throughput: how far a prediction before the knee may be off. */
const PREDICTION_WITHIN = 0.15;
/** Load average up to which the machine counts as idle. */
const QUIET = 0.5;

export function toMarkdown({ machine, synthetic, noise, prediction, django }: Results): string {
  return [
    '# How often nunicorn size is right',
    '',
    `Made by \`npm run bench:size\` from size.json beside it.${machine === undefined ? '' : ` ${machine}.`}`,
    '',
    ...(synthetic === undefined ? [] : syntheticLines(synthetic)),
    ...(prediction === undefined ? [] : predictionLines(prediction)),
    ...(noise === undefined ? [] : noiseLines(noise)),
    ...(django === undefined ? [] : djangoLines(django)),
  ].join('\n');
}

function syntheticLines(part: Part<Run>): string[] {
  const right = part.items.filter((run) => run.right).length;
  return [
    '## Applications of known cost',
    '',
    `Within one step of the setting that follows from the maths: **${right} of ${part.items.length}** (meant: at least nine tenths).`,
    '',
    ...origin(part, true),
    ...table(part.items),
  ];
}

function noiseLines(part: Part<Run>): string[] {
  const said = part.items.filter(({ kind }) => kind === 'too noisy to say').length;
  return [
    '## Beside a noise maker',
    '',
    `"Too noisy to say": **${said} of ${part.items.length}** (meant: at least nine tenths).`,
    '',
    ...origin(part, false),
    ...table(part.items),
  ];
}

function predictionLines(part: Part<readonly Prediction[]>): string[] {
  const all = part.items.flat();
  const errors = all.map(({ predicted, measured }) => Math.abs(predicted / measured - 1));
  const within = errors.filter((error) => error <= PREDICTION_WITHIN).length;
  if (errors.length === 0) return [];
  return [
    '## Predicted throughput before the knee',
    '',
    `Within 15 % of the measured: **${within} of ${errors.length}** settings (meant: all); median error ${percent(median(errors))}, worst ${percent(Math.max(...errors))}.`,
    '',
    ...origin(part, true),
    '| C, G, Z ms | setting | predicted/s | measured/s | off by |',
    '| --- | --- | --- | --- | --- |',
    ...all.map(
      ({ known, name, predicted, measured }) =>
        `| ${costs(known)} | ${name} | ${predicted.toFixed(0)} | ${measured.toFixed(0)} | ${percent(predicted / measured - 1)} |`,
    ),
    '',
  ];
}

function djangoLines(part: Part<Grid>): string[] {
  const [grid] = part.items;
  if (grid === undefined) return [];
  const { recommended, best, share, seconds, gridSeconds, cells, rematch } = grid;
  return [
    '## The Django example against an exhaustive grid',
    '',
    `Recommended in ${Math.round(seconds)} s: ${recommended}. The whole grid of ${cells.length} cells took ${Math.round(gridSeconds)} s; measured again, its leaders and the recommended cell carry ${rates(rematch)}: the recommended one **${percent(share)}** of the best, ${best} (meant: at least 95 %, in a fifth of the time).`,
    '',
    ...origin(part, true),
    '| cell | requests/s within p99<300ms |',
    '| --- | --- |',
    ...[...cells]
      .sort((a, b) => (b.perSecond ?? 0) - (a.perSecond ?? 0))
      .map(({ name, perSecond }) => `| ${name} | ${perSecond === undefined ? '' : Math.round(perSecond)} |`),
    '',
  ];
}

function rates(cells: readonly Rate[]): string {
  return cells.map(({ name, perSecond }) => `${name} ${Math.round(perSecond ?? 0)}/s`).join(', ');
}

function origin({ at, load, budgetS }: Part<unknown>, meantQuiet: boolean): string[] {
  const before = load === null ? '' : `, load average ${load.toFixed(1)} before it`;
  const busy =
    meantQuiet && (load ?? 0) > QUIET ? ' **The machine was busy: to be measured again on a quiet one.**' : '';
  return [`${at} UTC, ${budgetS} s for each sizing${before}.${busy}`, ''];
}

function table(runs: readonly Run[]): string[] {
  return [
    '| C, G, Z ms | cores | expected | recommended | verdict | repeated differ by | others used | s |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ...runs.map(
      ({ known, expected, got, kind, right, variation, othersShare, seconds }) =>
        `| ${costs(known)} | ${known.cpus} | ${expected} | ${got}${right ? '' : ' (off)'} | ${kind} | ${variation === null ? '' : percent(variation)} | ${percent(othersShare)} | ${Math.round(seconds)} |`,
    ),
    '',
  ];
}

function costs({ app, lockedMs, freeMs, waitMs }: Known): string {
  return `${lockedMs}, ${freeMs}, ${waitMs}${app === 'node' ? ' (Node)' : ''}`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(Math.abs(share) < 0.095 ? 1 : 0)} %`;
}
