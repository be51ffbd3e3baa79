/** The report as one page that needs nothing else: no script, no font, no network. Pure. */

import { WORDS } from './kind.ts';
import type { CellReport, RateInfo, Report } from './report.ts';
import { showSlo } from './slo.ts';
import { configFile, configLines, costText, kindOf, mb, ms, perSecond, settingText } from './terminal.ts';
import { percent } from './verdict.ts';

export function toHtml(report: Report): string {
  const title = `nunicorn size: ${report.app}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${text(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
${[head(report), answer(report), maps(report), curves(report), predictions(report), memory(report), cells(report), remarks(report), origin(report)].join('\n')}
</main>
</body>
</html>
`;
}

const STYLE = `
:root { --paper: #fbfbf9; --card: #ffffff; --ink: #1c2024; --soft: #60676f; --line: #dcdfe3; --hue: #1f6feb; --warm: #c2410c; --good: #18794e;
  --s1: #1f6feb; --s2: #c2410c; --s3: #18794e; --s4: #8e4ec6; --s5: #8a6d00; --s6: #60676f; }
@media (prefers-color-scheme: dark) { :root { --paper: #131517; --card: #1b1e21; --ink: #e9ebed; --soft: #9ba3ab; --line: #33383d; --hue: #6ea8fe; --warm: #ff9f6b; --good: #5bd197;
  --s1: #6ea8fe; --s2: #ff9f6b; --s3: #5bd197; --s4: #cf9bf5; --s5: #e2c04c; --s6: #9ba3ab; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 22px; margin: 0 0 2px; }
h2 { font-size: 16px; margin: 0 0 4px; }
p { margin: 4px 0; }
.soft { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin-top: 16px; overflow-x: auto; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr)); gap: 0 16px; }
.pair > section { margin-top: 16px; }
.big { font-size: 26px; font-weight: 650; line-height: 1.25; margin: 2px 0 6px; }
.kind { display: inline-block; border: 1px solid currentColor; border-radius: 99px; padding: 0 10px; font-size: 13px; color: var(--good); }
.kind.warn { color: var(--warm); }
pre { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; overflow-x: auto; font: 13px/1.5 ui-monospace, monospace; margin: 8px 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 10px 0 0; }
dt { color: var(--soft); } dd { margin: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.list { width: 100%; font-size: 13.5px; }
.list th { text-align: right; font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--line); padding: 4px 6px; vertical-align: bottom; }
.list td { text-align: right; border-bottom: 1px solid var(--line); padding: 4px 6px; white-space: nowrap; }
.list th:first-child, .list td:first-child, .list th:last-child, .list td:last-child { text-align: left; }
.list td:last-child { white-space: normal; color: var(--soft); min-width: 200px; }
.list tr.best td:not(:last-child) { font-weight: 650; }
.heat { margin-top: 8px; }
.heat th { font-weight: 500; color: var(--soft); font-size: 12.5px; padding: 3px 8px; }
.heat td { width: 66px; min-width: 58px; height: 40px; text-align: center; font-size: 13.5px; border: 2px solid var(--card); border-radius: 6px; }
.heat td.none { color: var(--line); }
.heat td.best { outline: 2px solid var(--ink); outline-offset: -3px; font-weight: 700; }
svg { display: block; width: 100%; height: auto; margin-top: 8px; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .axis { stroke: var(--line); } svg .slo { stroke: var(--warm); stroke-dasharray: 5 4; } svg .mark { stroke: var(--warm); stroke-width: 2.5; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 13px; margin-top: 6px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
ul { margin: 6px 0 0; padding-left: 20px; }
@media (max-width: 640px) { main { padding: 16px 12px 40px; } section { padding: 14px; } dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; }
  svg { min-width: 480px; } svg.wide { min-width: 760px; } pre { white-space: pre-wrap; overflow-wrap: anywhere; } }
`;

function head({ app, at, traffic, limits, machine, usedMs, interrupted, slo, sloGiven }: Report): string {
  const paths = traffic.map(({ path }) => path);
  const what = paths.length <= 4 ? paths.join(', ') : `${paths.slice(0, 3).join(', ')} and ${paths.length - 3} more`;
  const imposed = limits.cpu === 'none' ? '' : `, imposed by ${limits.cpu}`;
  const memoryText =
    limits.memoryMb === undefined ? '' : ` and ${mb(limits.memoryMb)}${limits.memory === 'watched' ? ', watched' : ''}`;
  return `<h1>${text(app)}</h1>
<p class="soft">${text(what)} · ${text(showSlo(slo))}${sloGiven ? '' : ' (not given: ten times an unhindered request)'} · ${limits.cores} of ${machine.cores} cores${imposed}${memoryText} · ${text(at.slice(0, 16).replace('T', ' '))} UTC, ${interrupted ? 'stopped after' : 'in'} ${Math.round(usedMs / 1000)} s</p>`;
}

function answer(report: Report): string {
  const { verdict, recommendation, runnerUp, cheapest, rule, referencePerSecond } = report;
  const kind = kindOf(report);
  const warn = verdict.kind === 'best' || verdict.kind === 'no difference found' ? '' : ' warn';
  const badge = `<span class="kind${warn}">${text(verdict.kind)}</span>`;
  const toDo = verdict.toDo.map((line) => `<p>${text(line)}</p>`).join('');
  if (recommendation === undefined) return `<section>${badge}<p>${text(verdict.because)}</p>${toDo}</section>`;
  const facts: [string, string][] = [['carries', carried(recommendation)]];
  if (runnerUp !== undefined) facts.push(['runner-up', `${runnerUp.name}: ${carried(runnerUp)}`]);
  if (cheapest !== undefined)
    facts.push([`cheapest that keeps the SLO at ${perSecond(referencePerSecond)}`, cheapest.name]);
  if (rule !== undefined)
    facts.push([
      '2 x cores + 1',
      'because' in rule ? `nothing measured: ${rule.because}` : `${rule.name}: ${carried(rule)}`,
    ]);
  return `<section>
${badge}
<p class="big">${warn === '' ? '' : 'If you must choose now: '}${text(settingText(recommendation, kind, ' × '))}</p>
<p>${text(verdict.because)}</p>${toDo}
<dl>${facts.map(([name, value]) => `<dt>${text(name)}</dt><dd>${text(value)}</dd>`).join('')}</dl>
<pre>${text(recommendation.command)}</pre>
<p class="soft">or in ${configFile(kind)}</p>
<pre>${configLines(recommendation, kind).map(text).join('\n')}</pre>
</section>`;
}

function carried({ perSecond: rate, interval, memoryMb }: RateInfo): string {
  return `${perSecond(rate)} within the SLO (95 %: ${perSecond(interval.low)} to ${perSecond(interval.high)})${memoryMb === undefined ? '' : `, ${mb(memoryMb)}`}`;
}

/** Only what lies on the grid: nunicorn, without the variants. */
function onGrid({ cells: all }: Report): readonly CellReport[] {
  const fronts = Math.min(...all.map(({ cell }) => cell.fronts));
  const preload = all[0]?.cell.preload ?? false;
  return all.filter(({ cell }) => cell.server === 'nunicorn' && cell.fronts === fronts && cell.preload === preload);
}

function maps(report: Report): string {
  const rate = heat(report, ({ capacity }) => capacity, perSecond, false);
  const latency = heat(report, ({ reference }) => reference?.p99Ms, ms, true);
  return `<div class="pair">
<section><h2>Full speed</h2><p class="soft">requests per second, workers × threads, whatever the latency</p>${rate}</section>
<section><h2>p99 at ${text(perSecond(report.referencePerSecond))}</h2><p class="soft">the same rate for all; empty: overloaded or not measured</p>${latency}</section>
</div>`;
}

function heat(
  report: Report,
  select: (cell: CellReport) => number | undefined,
  show: (value: number) => string,
  logarithmic: boolean,
): string {
  const grid = onGrid(report);
  const workers = [...new Set(grid.map(({ cell }) => cell.workers))].sort((a, b) => a - b);
  const threads = [...new Set(grid.map(({ cell }) => cell.threads))].sort((a, b) => a - b);
  const scale = logarithmic ? Math.log : (value: number): number => value;
  const values = grid.flatMap((cell) => {
    const value = select(cell);
    return value === undefined ? [] : [scale(value)];
  });
  const [least, most] = [logarithmic ? Math.min(...values) : 0, Math.max(...values)];
  const rows = workers.map((w) => {
    const cellsOfRow = threads.map((t) => {
      const found = grid.find(({ cell }) => cell.workers === w && cell.threads === t);
      const value = found === undefined ? undefined : select(found);
      if (found === undefined || value === undefined) return '<td class="none">·</td>';
      const share = most === least ? 0.5 : (scale(value) - least) / (most - least);
      // Never so strong that the text would need another colour.
      const strength = Math.round(6 + 50 * share);
      const colour = `color-mix(in oklab, var(${logarithmic ? '--warm' : '--hue'}) ${strength}%, var(--card))`;
      const best = found.name === report.recommendation?.name ? ' class="best"' : '';
      return `<td${best} style="background:${colour}" title="${text(found.name)}">${text(show(value))}</td>`;
    });
    return `<tr><th>${w}</th>${cellsOfRow.join('')}</tr>`;
  });
  return `<table class="heat"><tr><th>workers \\ threads</th>${threads.map((t) => `<th>${t}</th>`).join('')}</tr>${rows.join('')}</table>`;
}

interface Point {
  readonly x: number;
  readonly y: number;
}

const WIDTH = 1000;
const HEIGHT = 320;
const LEFT = 64;
const BOTTOM = 40;
const TOP = 12;
const RIGHT = 16;

/** Axes of a chart whose `y` is logarithmic, and where values lie in it. */
function chart(xMost: number, yLeast: number, yMost: number, labels: readonly [string, string]) {
  const x = (value: number): number => LEFT + (value / xMost) * (WIDTH - LEFT - RIGHT);
  const up = (value: number): number => Math.log(value / yLeast) / Math.log(yMost / yLeast);
  const y = (value: number): number => HEIGHT - BOTTOM - up(value) * (HEIGHT - BOTTOM - TOP);
  const axes = [
    ...round(xMost).map(
      (tick) => `<text x="${x(tick).toFixed(1)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${tick}</text>`,
    ),
    ...decades(yLeast, yMost).map(
      (tick) =>
        `<line class="axis" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(tick).toFixed(1)}" y2="${y(tick).toFixed(1)}"/><text x="${LEFT - 8}" y="${(y(tick) + 4).toFixed(1)}" text-anchor="end">${tick}</text>`,
    ),
    `<text x="${WIDTH - RIGHT}" y="${HEIGHT - 6}" text-anchor="end">${text(labels[0])}</text>`,
    `<text x="4" y="${TOP}">${text(labels[1])}</text>`,
  ].join('');
  return {
    x,
    y,
    wrap: (inner: string, name: string) =>
      `<svg class="wide" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${text(name)}">${axes}${inner}</svg>`,
  };
}

/** Ticks from 0 on: 1, 2 or 5 times a power of ten, about five of them. */
function round(most: number): number[] {
  const raw = most / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= raw) ?? 10) * power;
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => Number((i * step).toPrecision(6)));
}

function decades(least: number, most: number): number[] {
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power++)
    for (const factor of [1, 2, 5]) {
      const tick = factor * 10 ** power;
      if (tick >= least && tick <= most) ticks.push(Number(tick.toPrecision(3)));
    }
  return ticks;
}

function curves(report: Report): string {
  const searched = report.cells
    .map((cell) => {
      const own = cell.trials.map(({ perSecond: x, p99Ms: y }) => ({ x, y }));
      const reference = cell.reference === undefined ? [] : [{ x: cell.reference.perSecond, y: cell.reference.p99Ms }];
      return { cell, points: [...reference, ...own].filter(({ y }) => y > 0).sort((a, b) => a.x - b.x) };
    })
    .filter(({ cell }) => cell.trials.length > 0)
    .slice(0, 6);
  const all = searched.flatMap(({ points }) => points);
  if (all.length === 0) return '';
  const { slo } = report;
  const yLeast = Math.min(...all.map(({ y }) => y), slo.ms) / 1.3;
  const yMost = Math.max(...all.map(({ y }) => y), slo.ms) * 1.3;
  const { x, y, wrap } = chart(Math.max(...all.map((point) => point.x)) * 1.05, yLeast, yMost, [
    'requests per second',
    'p99, ms',
  ]);
  const lines = searched.map(({ cell, points }, i) => series(points, i, x, y, cell.name)).join('');
  const limit =
    slo.percentile === 99
      ? `<line class="slo" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(slo.ms).toFixed(1)}" y2="${y(slo.ms).toFixed(1)}"/><text x="${LEFT + 6}" y="${(y(slo.ms) - 6).toFixed(1)}">${text(showSlo(slo))}</text>`
      : '';
  return `<section><h2>Latency against rate</h2><p class="soft">each dot is one open-loop window; latency counts from the intended start of a request</p>${wrap(limit + lines, 'p99 against requests per second')}${legend(searched.map(({ cell }) => cell.name))}</section>`;
}

function series(
  points: readonly Point[],
  i: number,
  x: (v: number) => number,
  y: (v: number) => number,
  name: string,
): string {
  const colour = `var(--s${(i % 6) + 1})`;
  const at = points.map((point) => `${x(point.x).toFixed(1)},${y(point.y).toFixed(1)}`);
  const dots = points.map(
    (point) =>
      `<circle cx="${x(point.x).toFixed(1)}" cy="${y(point.y).toFixed(1)}" r="4" fill="${colour}"><title>${text(name)}: ${text(ms(point.y))} at ${text(perSecond(point.x))}</title></circle>`,
  );
  return `<polyline points="${at.join(' ')}" fill="none" stroke="${colour}" stroke-width="1.5" opacity="0.45"/>${dots.join('')}`;
}

function legend(names: readonly string[]): string {
  return `<div class="legend">${names.map((name, i) => `<span><i style="background:var(--s${(i % 6) + 1})"></i>${text(name)}</span>`).join('')}</div>`;
}

function predictions(report: Report): string {
  const own = report.cells.filter(({ cell }) => cell.server === 'nunicorn');
  const rates = own.flatMap(({ name, predicted, capacity }) =>
    capacity === undefined ? [] : [{ name, measured: capacity, predicted: predicted.perSecond }],
  );
  if (rates.length === 0) return '';
  const latencies = own.flatMap(({ name, reference }) =>
    reference === undefined ? [] : [{ name, measured: reference.p99Ms, predicted: reference.predictedP99Ms }],
  );
  const error = report.predictionError;
  const words =
    error === null
      ? 'bounds from the costs of one request; past the knee they promise more than threads can do'
      : `before the knee off by ${percent(error.median)} (median of ${error.cells}); past it the bounds promise more than threads can do`;
  return `<div class="pair">
<section><h2>Full speed: prediction beside measurement</h2><p class="soft">${text(words)}</p>${beside(rates, perSecond)}</section>
${latencies.length === 0 ? '' : `<section><h2>p99 at ${text(perSecond(report.referencePerSecond))}: prediction beside measurement</h2><p class="soft">predicted: one request, and the wait for a free slot, the lock or a core (Erlang C)</p>${beside(latencies, ms)}</section>`}
</div>`;
}

const ROW = 24;

/** A bar for what was measured, a mark for what was predicted. */
function beside(
  rows: readonly { readonly name: string; readonly measured: number; readonly predicted: number | null }[],
  show: (value: number) => string,
): string {
  const known = rows.flatMap(({ measured, predicted }) => [measured, predicted]).filter((value) => value !== null);
  const most = Math.max(...known);
  const [from, room] = [90, 290];
  const x = (value: number): number => from + (value / most) * room;
  const lines = [...rows]
    .sort((a, b) => b.measured - a.measured)
    .map(({ name, measured, predicted }, i) => {
      const top = i * ROW;
      const mark =
        predicted === null
          ? ''
          : `<line class="mark" x1="${x(predicted).toFixed(1)}" x2="${x(predicted).toFixed(1)}" y1="${top + 1}" y2="${top + 23}"/>`;
      const words = `${show(measured)}, predicted ${predicted === null ? 'overload' : show(predicted)}`;
      return `<text x="${from - 8}" y="${top + 17}" text-anchor="end">${text(name)}</text><rect x="${from}" y="${top + 4}" width="${(x(measured) - from).toFixed(1)}" height="17" rx="3" fill="var(--hue)" opacity="0.45"/>${mark}<text x="${from + room + 10}" y="${top + 17}">${text(words)}</text>`;
    });
  return `<svg viewBox="0 0 560 ${rows.length * ROW}" role="img" aria-label="measured and predicted, for each setting">${lines.join('')}</svg>`;
}

function memory(report: Report): string {
  const rows = report.cells
    .flatMap(({ name, memoryMb, memoryAfterRequests }) =>
      memoryMb === undefined ? [] : [{ name, mb: memoryMb, after: memoryAfterRequests ?? 0 }],
    )
    .sort((a, b) => a.mb - b.mb);
  if (rows.length === 0) return '';
  const limit = report.limits.memoryMb;
  const most = Math.max(...rows.map((row) => row.mb), limit ?? 0) * 1.05;
  const height = rows.length * 24 + 24;
  const width = (value: number): number => (value / most) * 760;
  const bars = rows.map(
    (row, i) =>
      `<text x="150" y="${i * 24 + 17}" text-anchor="end">${text(row.name)}</text><rect x="160" y="${i * 24 + 4}" width="${width(row.mb).toFixed(1)}" height="17" rx="3" fill="var(--hue)" opacity="${row.name === report.recommendation?.name ? 1 : 0.45}"/><text x="${(166 + width(row.mb)).toFixed(1)}" y="${i * 24 + 17}">${text(mb(row.mb))}</text>`,
  );
  const line =
    limit === undefined
      ? ''
      : `<line class="slo" x1="${160 + width(limit)}" x2="${160 + width(limit)}" y1="0" y2="${height - 14}"/><text x="${154 + width(limit)}" y="${height - 2}" text-anchor="end">limit ${text(mb(limit))}</text>`;
  const after = Math.min(...rows.map((row) => row.after));
  return `<section><h2>Memory</h2><p class="soft">PSS of master, fronts and workers together, each after at least ${after} requests</p><svg class="wide" viewBox="0 0 1000 ${height}" role="img" aria-label="memory of each setting">${bars.join('')}${line}</svg></section>`;
}

function cells(report: Report): string {
  const order = [...report.cells].sort(
    (a, b) => (b.carried?.perSecond ?? 0) - (a.carried?.perSecond ?? 0) || (b.capacity ?? 0) - (a.capacity ?? 0),
  );
  const rows = order.map((cell) => {
    const notes = [
      cell.why,
      ...cell.remarks,
      ...(cell.failed === undefined ? [] : [`failed: ${cell.failed.split('\n')[0]}`]),
    ];
    const columns = [
      cell.name,
      cell.memoryMb === undefined ? '' : mb(cell.memoryMb),
      cell.cell.server === 'gunicorn' ? '' : perSecond(cell.predicted.perSecond),
      perSecond(cell.capacity),
      cell.reference === undefined ? '' : ms(cell.reference.p50Ms),
      cell.reference === undefined ? '' : ms(cell.reference.p99Ms),
      cell.carried === undefined
        ? ''
        : `${perSecond(cell.carried.perSecond)} (${perSecond(cell.carried.interval.low)} to ${perSecond(cell.carried.interval.high)})`,
      cell.workerMs === undefined ? '' : `${ms(cell.workerMs)} + ${ms(cell.frontMs ?? 0)}`,
      notes.join('; '),
    ];
    const best = cell.name === report.recommendation?.name ? ' class="best"' : '';
    return `<tr${best}>${columns.map((value) => `<td>${text(value)}</td>`).join('')}</tr>`;
  });
  const heads = [
    'workers x threads',
    'memory',
    'predicted',
    'full speed',
    'p50',
    'p99',
    `within ${showSlo(report.slo)}`,
    'CPU worker + front',
    'notes',
  ];
  return `<section><h2>Every setting</h2><table class="list"><tr>${heads.map((value) => `<th>${text(value)}</th>`).join('')}</tr>${rows.join('')}</table></section>`;
}

function remarks({ remarks: own, leftOut, variation, othersShare }: Report): string {
  const lines = [
    ...own,
    ...leftOut.map(({ name, because }) => `${name} was not measured: ${because}`),
    ...(variation === null ? [] : [`Repeated measurements differ by ${percent(variation)} (standard deviation).`]),
    `Other programs used ${percent(othersShare)} of the server's cores (median over all windows).`,
  ];
  return `<section><h2>What else there is to know</h2><ul>${lines.map((line) => `<li>${text(line)}</li>`).join('')}</ul></section>`;
}

function origin({ machine, costs, nunicorn, argv }: Report): string {
  const facts: [string, string][] = [
    ['machine', `${machine.cpu}, ${machine.cores} cores, ${mb(machine.memoryMb)}, ${machine.system}`],
    [
      'programs',
      `nunicorn ${nunicorn}, Node ${machine.node}${machine.python === null ? '' : `, Python ${machine.python}`}`,
    ],
    ['command', `nunicorn size ${argv.join(' ')}`],
  ];
  if (costs !== undefined)
    facts.unshift(
      ['a request', costText(costs)],
      [
        'memory',
        `worker ${mb(costs.workerMb)}${costs.kind === 'async' ? '' : `, further thread ${mb(costs.threadMb)}`}, ${WORDS[costs.kind].base} ${mb(costs.baseMb)}`,
      ],
    );
  return `<section><h2>Measured</h2><dl>${facts.map(([name, value]) => `<dt>${text(name)}</dt><dd>${text(value)}</dd>`).join('')}</dl></section>`;
}

function text(value: string): string {
  return value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
