import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { type AppMetric, AppMetrics, MAX_GONE_SERIES } from '../../src/metrics/app-metrics.ts';

const ORDERS = { name: 'orders_total', kind: 'counter', help: 'Orders.', labels: ['user'] } as const;

test('labels that take ever other values fill the memory of workers that are gone up to a limit, and that is told', () => {
  const told: string[] = [];
  const metrics = new AppMetrics((name) => told.push(name));
  const ofWorker = (serial: number): AppMetric => ({
    ...ORDERS,
    series: Array.from({ length: 1000 }, (_, user) => [[`user ${serial}-${user}`], 1] as const),
  });
  for (let serial = 1; serial <= 20; serial++) {
    metrics.heard(serial, [ofWorker(serial), { ...ORDERS, name: 'all_total', labels: [], series: [[[], 1]] }]);
    metrics.ended(serial);
  }
  assert.deepEqual(told, ['orders_total']);
  const [orders, all] = metrics.metrics();
  assert.equal(orders?.samples.length, MAX_GONE_SERIES);
  assert.equal(all?.samples[0]?.value, 20);
  // What is kept goes on, and what a worker that lives counts is shown.
  metrics.heard(21, [ofWorker(1)]);
  assert.equal(metrics.metrics()[0]?.samples[0]?.value, 2);
  metrics.heard(22, [ofWorker(22)]);
  assert.equal(metrics.metrics()[0]?.samples.length, MAX_GONE_SERIES + 1000);
});
