// An app's own metrics beside nunicorn's: nunicorn_worker.metrics, and the official prometheus_client.
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { Admin, wentBack } from '../helpers/admin.ts';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { isAlive } from '../helpers/processes.ts';
import { withServer } from '../helpers/server.ts';

const APP = 'metrics_app:application';
const skip = !NUNICORN_RUNS;

it("an app's metrics are added up over workers, and go on when these are replaced", { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, args: admin.args, workers: 2, threads: 2 }, async (server) => {
    const order = async (stock: number): Promise<string> => (await server.get(`/order?${stock}`)).text();
    const pids = new Set<string>();
    let orders = 0;
    await until(async () => {
      for (const pid of await Promise.all([order(++orders), order(++orders)])) pids.add(pid);
      return pids.size === 2;
    }, 'both workers to have an order');
    const check = async (): Promise<ReadonlyMap<string, number>> => {
      for (const [sample, value] of Object.entries({
        'shop_orders_total{kind="book"}': orders,
        shop_price_euros_count: orders,
        shop_price_euros_sum: 15 * orders,
        'shop_price_euros_bucket{le="10"}': 0,
        'shop_price_euros_bucket{le="20"}': orders,
        'visits_total{page="order"}': orders,
        'size_bucket{le="2.0"}': orders,
        size_count: orders,
      }))
        await admin.reaches(sample, value);
      return admin.scrape();
    };
    const before = await check();
    assert.equal(before.get('shop_stock'), orders, 'the most that a worker has');
    assert.equal(before.get('busy'), 2);
    const checked = spawnSync('promtool', ['check', 'metrics'], {
      input: (await admin.get('/metrics')).text(),
      encoding: 'utf8',
    });
    assert.equal(checked.status, 0, `${checked.stdout}${checked.stderr}`);
    const openmetrics = (await admin.get('/metrics', 'Accept: application/openmetrics-text\r\n')).text();
    assert.match(openmetrics, /# TYPE shop_orders counter\n/);
    assert.match(openmetrics, /# TYPE visits counter\n/);
    assert.equal(openmetrics.match(/# EOF/g)?.length, 1);

    const from = server.log.length;
    server.kill('SIGHUP');
    await server.waitForLog(/Reloaded: all workers are ready/, { from });
    await until(() => [...pids].every((pid) => !server.workers().includes(Number(pid))), 'the old workers to go');
    const after = await check();
    const counted = (name: string): boolean => /^(shop|visits|size)_/.test(name);
    assert.deepEqual(wentBack(new Map([...before].filter(([name]) => counted(name))), after), []);
    assert.equal(after.get('shop_stock') ?? 0, 0, 'no worker has said what is in stock');
    orders++;
    await order(3);
    await check();
  });
});

it('the folder of prometheus_client is the one that the user names, and begins empty', { skip }, async () => {
  const admin = await Admin.choose();
  const folder = mkdtempSync(join(tmpdir(), 'prometheus-'));
  writeFileSync(join(folder, 'counter_1.db'), 'of an earlier run');
  try {
    const env = { PROMETHEUS_MULTIPROC_DIR: folder };
    await withServer({ app: APP, args: admin.args, env }, async (server) => {
      await server.get('/order?1');
      await admin.reaches('visits_total{page="order"}', 1);
      assert.ok(readdirSync(folder).some((name) => /^counter_\d+\.db$/.test(name)));
      assert.ok(!readdirSync(folder).includes('counter_1.db'));
      // What a worker that was killed had counted stays, though its files do not.
      await server.get('/exit').catch(() => {});
      await until(() => readdirSync(folder).length > 0, 'files');
      await admin.reaches('visits_total{page="order"}', 1);
      await until(async () => {
        await admin.scrape();
        return readdirSync(folder).includes('counter_dead.db');
      }, 'the files of the dead worker to be one');
      await admin.reaches('visits_total{page="order"}', 1);
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('Python processes may print', { skip }, async () => {
  const admin = await Admin.choose();
  const files = { 'site/sitecustomize.py': 'print("watched", flush=True)\n' };
  await withServer({ app: APP, args: admin.args, files, env: { PYTHONPATH: '{home}/site' } }, async (server) => {
    await server.get('/order?1');
    assert.equal((await admin.scrape()).get('visits_total{page="order"}'), 1);
    assert.doesNotMatch(server.log, /cannot be read/);
  });
});

it("an app's counters go on at USR2", { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, args: admin.args }, async (server) => {
    for (let i = 0; i < 3; i++) await server.get('/order?1');
    await admin.reaches('shop_orders_total{kind="book"}', 3);
    await admin.reaches('visits_total{page="order"}', 3);
    const from = server.log.length;
    server.kill('SIGUSR2');
    await server.waitForLog(/Started: all workers are ready/, { from });
    const next = Number(/new master is pid (\d+)/.exec(server.log)?.[1]);
    server.kill('SIGTERM');
    await until(() => !isAlive(server.pid), 'the end of the old master');
    await admin.answersFrom(next);
    await server.get('/order?1');
    await admin.reaches('shop_orders_total{kind="book"}', 4);
    await admin.reaches('shop_price_euros_count', 4);
    await admin.reaches('visits_total{page="order"}', 4);
    // The files of the old master's worker are one with those that are gone.
    await admin.reaches('busy', 1);
    process.kill(next, 'SIGTERM');
    await until(() => !isAlive(next), 'the end of the new master');
  });
});

it("an app's counters go on over USR2 and the way back", { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, args: admin.args }, async (server) => {
    let orders = 0;
    const order = async (): Promise<void> => {
      await server.get('/order?1');
      orders++;
      for (const counter of ['shop_orders_total{kind="book"}', 'visits_total{page="order"}'])
        await admin.reaches(counter, orders);
    };
    await order();
    const workers = server.workers();
    const from = server.log.length;
    server.kill('SIGUSR2');
    await server.waitForLog(/Started: all workers are ready/, { from });
    const next = Number(/new master is pid (\d+)/.exec(server.log)?.[1]);
    server.kill('SIGWINCH');
    await admin.answersFrom(next);
    await until(() => !workers.some(isAlive), 'the old worker to go');
    await order();
    const reloadFrom = server.log.length;
    server.kill('SIGHUP');
    await server.waitForLog(/Reloaded: all workers are ready/, { from: reloadFrom });
    process.kill(next, 'SIGTERM');
    await until(() => !isAlive(next), 'the end of the new master');
    await admin.answersFrom(server.pid);
    await order();
    await admin.reaches('busy', 1);
  });
});
