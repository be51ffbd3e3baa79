// Debian's Prometheus scrapes nunicorn, under load and through restarts of its processes.
import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { METRICS } from '../../src/metrics/table.ts';
import { Admin } from '../helpers/admin.ts';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { freePort } from '../helpers/ports.ts';
import { isAlive } from '../helpers/processes.ts';
import { withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const skip = !NUNICORN_RUNS;
const LONG_MS = 60_000;

interface Answer {
  readonly data?: {
    readonly result?: readonly { readonly metric: { job?: string }; readonly value: [number, string] }[];
  };
}

/** Runs a Prometheus that scrapes the admin server each second. `ask` gives the value of a query, NaN if there is none. */
async function withPrometheus(
  admin: Admin,
  run: (ask: (query: string) => Promise<number>) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'prometheus-'));
  const port = await freePort();
  const config = join(folder, 'prometheus.yml');
  const target = `static_configs: [{ targets: ['localhost:${admin.port}'] }]`;
  writeFileSync(config, `global: { scrape_interval: 1s }\nscrape_configs: [{ job_name: nunicorn, ${target} }]\n`);
  const storage = [`--storage.tsdb.path=${folder}/data`, `--web.listen-address=127.0.0.1:${port}`];
  const child = spawn('prometheus', [`--config.file=${config}`, ...storage], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  try {
    await run(async (query) => {
      const url = `http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(query)}`;
      const answer = await fetch(url)
        .then((response) => response.json() as Promise<Answer>)
        .catch((): Answer => ({}));
      return Number(answer.data?.result?.[0]?.value[1] ?? Number.NaN);
    });
  } finally {
    child.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  }
}

it('has as many requests as were sent, while workers are recycled', { skip }, async () => {
  const admin = await Admin.choose();
  const args = [...admin.args, '--max-requests', '50', '--min-worker-lifetime', '0'];
  await withServer({ app: 'pathology.faults:application', args, workers: 2, threads: 2 }, async (server) => {
    await withPrometheus(admin, async (ask) => {
      const answered = 'sum(nunicorn_requests_total{outcome="answered"})';
      await until(async () => (await ask(answered)) > 0, 'the first scrape', LONG_MS);
      const before = (await admin.scrape()).get('nunicorn_request_duration_seconds_count') ?? 0;
      const load = new Load({ address: server.address, clients: 4, keepAlive: true });
      await load.more(600);
      const outcomes = await load.stop();
      const sent = [...outcomes.values()].reduce((sum, count) => sum + count, 0);
      assert.deepEqual([...outcomes.keys()], ['200'], load.describe());
      await until(
        async () => (await ask(answered)) === before + sent,
        () => `${before + sent} requests`,
        LONG_MS,
      );
      assert.equal(await ask('sum(nunicorn_worker_requests_total)'), before + sent);
      assert((await ask('sum(nunicorn_worker_exits_total{reason="max_requests"})')) > 0);
      assert.equal(await ask('count(count by (worker) (nunicorn_worker_requests_total))'), 2);
      assert.equal(await ask('sum(resets(nunicorn_worker_requests_total[5m]))'), 0);
      // Of all the time that threads were there, some were busy, and never more than all.
      const busy = await ask('nunicorn_busy_seconds_total / nunicorn_slot_seconds_total');
      assert(busy > 0 && busy <= 1, `${busy} of the threads were busy`);
    });
  });
});

it('sees no counter go back: HUP, a killed front, USR2', { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: 'pathology.faults:application', args: admin.args, workers: 2 }, async (server) => {
    await withPrometheus(admin, async (ask) => {
      const counted = 'sum(nunicorn_requests_total)';
      const restarts = 'nunicorn_front_restarts_total';
      await until(async () => (await ask(counted)) > 0, 'the first scrape', LONG_MS);
      const load = new Load({ address: server.address, clients: 3, keepAlive: false });
      const goesOn = async (): Promise<void> => {
        // A scrape between two masters finds nobody, and then there is no value.
        const before = await until(() => ask(counted), 'a value', LONG_MS);
        await until(async () => (await ask(counted)) > before, 'requests that are counted', LONG_MS);
      };
      await goesOn();
      const hupFrom = server.log.length;
      server.kill('SIGHUP');
      await server.waitForLog(/Reloaded: all workers are ready/, { from: hupFrom, ms: LONG_MS });
      await goesOn();
      const [front] = server.fronts();
      assert(front !== undefined);
      process.kill(front, 'SIGKILL');
      await until(async () => (await ask(restarts)) === 1, 'another front', LONG_MS);
      await goesOn();
      const upgradeFrom = server.log.length;
      server.kill('SIGUSR2');
      await server.waitForLog(/Started: all workers are ready/, { from: upgradeFrom, ms: LONG_MS });
      const next = Number(/new master is pid (\d+)/.exec(server.log)?.[1]);
      server.kill('SIGTERM');
      await until(() => !isAlive(server.pid), 'the end of the old master', LONG_MS);
      await goesOn();
      await load.stop();
      const counters = Object.entries(METRICS).flatMap(([name, { kind }]) => {
        if (kind === 'counter') return name === 'nunicorn_gil_wait_seconds_total' ? [] : [name];
        return kind === 'histogram' ? [`${name}_bucket`, `${name}_sum`] : [];
      });
      for (const name of counters) assert.equal(await ask(`sum(resets(${name}[10m]))`), 0, name);
      const gilWait = await ask('sum(resets(nunicorn_gil_wait_seconds_total[10m]))');
      assert(Number.isNaN(gilWait) || gilWait === 0, 'not measured everywhere');
      assert.equal(await ask(restarts), 1, 'told by the new master');
      process.kill(next, 'SIGTERM');
      await until(() => !isAlive(next), 'the end of the new master', LONG_MS);
    });
  });
});
