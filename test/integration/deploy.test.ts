// What deploy/ offers: rules that fire when they should, metrics that exist, a dashboard that can be read.
import { strict as assert } from 'node:assert';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { promisify } from 'node:util';
import { METRICS, type MetricName } from '../../src/metrics/table.ts';
import { ROOT } from '../helpers/paths.ts';

const run = promisify(execFile);
const PROMETHEUS = join(ROOT, 'deploy', 'prometheus');
const DASHBOARD = join(ROOT, 'deploy', 'grafana', 'nunicorn.json');
const LIMIT = { timeout: 60_000 };

/** Names of metrics in a text, without the endings that a histogram's series have. */
function metricsIn(text: string): string[] {
  const names = text.match(/\bnunicorn_[a-z_]+/g) ?? [];
  return [...new Set(names.map((name) => name.replace(/_(bucket|count|sum)$/, '')))];
}

/** Each label of a metric that is asked for by its value, but for those that Prometheus and histograms add. */
function labelsIn(text: string): [metric: string, label: string][] {
  return [...text.matchAll(/\b(nunicorn_[a-z_]+)\{([^}]*)\}/g)].flatMap(([, name = '', labels = '']) =>
    [...labels.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)]
      .map(([, label = '']) => label)
      .filter((label) => !['instance', 'job', 'le'].includes(label))
      .map((label): [string, string] => [name.replace(/_(bucket|count|sum)$/, ''), label]),
  );
}

it('the alert rules are valid and fire as their tests say', async () => {
  await run('promtool', ['check', 'rules', join(PROMETHEUS, 'alerts.yml')], LIMIT);
  await run('promtool', ['test', 'rules', join(PROMETHEUS, 'alerts.test.yml')], LIMIT);
});

it('every alert has a test', () => {
  const tests = readFileSync(join(PROMETHEUS, 'alerts.test.yml'), 'utf8');
  const alerts = [...readFileSync(join(PROMETHEUS, 'alerts.yml'), 'utf8').matchAll(/alert: (\w+)/g)].map(
    ([, name]) => name,
  );
  assert.ok(alerts.length > 5);
  for (const alert of alerts) assert.ok(tests.includes(`alertname: ${alert}`), `${alert} has no test`);
});

it('the scrape configuration is one that Prometheus takes', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nt-deploy-'));
  try {
    for (const name of ['scrape.yml', 'alerts.yml'])
      writeFileSync(join(folder, name), readFileSync(join(PROMETHEUS, name)));
    await run('promtool', ['check', 'config', join(folder, 'scrape.yml')], LIMIT);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

for (const [name, path] of [
  ['the alerts', join(PROMETHEUS, 'alerts.yml')],
  ['the dashboard', DASHBOARD],
] as const) {
  it(`${name} ask for metrics that exist`, () => {
    const asked = metricsIn(readFileSync(path, 'utf8'));
    assert.ok(asked.length > 5);
    for (const metric of asked) assert.ok(Object.hasOwn(METRICS, metric), `${metric} is not in the table of metrics`);
    for (const [metric, label] of labelsIn(readFileSync(path, 'utf8')))
      assert.ok(METRICS[metric as MetricName].labels.includes(label), `${metric} has no label ${label}`);
  });
}

it('every expression of the dashboard is one that Prometheus understands', async () => {
  const { panels } = JSON.parse(readFileSync(DASHBOARD, 'utf8')) as {
    panels: readonly { readonly title: string; readonly targets?: readonly { readonly expr: string }[] }[];
  };
  const rules = panels.flatMap(({ targets = [] }, panel) =>
    targets.map(({ expr }, at) => ({
      record: `panel:${panel}:${at}`,
      expr: expr.replaceAll('$__rate_interval', '1m'),
    })),
  );
  assert.ok(rules.length > 20);
  const folder = mkdtempSync(join(tmpdir(), 'nt-dashboard-'));
  try {
    // YAML takes JSON.
    writeFileSync(join(folder, 'rules.yml'), JSON.stringify({ groups: [{ name: 'dashboard', rules }] }));
    await run('promtool', ['check', 'rules', join(folder, 'rules.yml')], LIMIT);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
