/** Writes docs/metrics.md from the table of metrics: `npm run docs`. */
import { realpathSync, writeFileSync } from 'node:fs';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { METRICS } from './table.ts';

export function metricsPage(): string {
  const rows = Object.entries(METRICS).map(([name, metric]) => {
    const { kind, labels, help, when } = { when: undefined, ...metric };
    const only = when === undefined ? '' : ` Only: ${when}.`;
    return `| \`${name}\` | ${kind} | ${labels.map((label) => `\`${label}\``).join(', ')} | ${help}${only} |`;
  });
  return `${HEAD}\n| Name | Kind | Labels | Meaning |\n| --- | --- | --- | --- |\n${rows.join('\n')}\n`;
}

const HEAD = `# Metrics

Made from the table in \`src/metrics/table.ts\` by \`npm run docs\`. Shown at \`/metrics\` of \`--admin-bind\`, as Prometheus text or
OpenMetrics, whichever the scraper prefers. What each is good for, and how to ask Prometheus for it, is in
[deploying.md](deploying.md#metrics).

Labels are of few values, known from the start: \`worker\` is a number from 1 to N that a worker hands on to its replacement,
never a process id. No counter goes back while the server runs: not when workers are recycled, not at a reload, and a front
that is killed takes at most its last second with it.
`;

export const METRICS_DOC = fileURLToPath(new URL('../../../docs/metrics.md', import.meta.url));

if (argv[1] !== undefined && realpathSync(argv[1]) === fileURLToPath(import.meta.url))
  writeFileSync(METRICS_DOC, metricsPage());
