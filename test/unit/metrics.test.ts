import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, mock, test } from 'node:test';
import { formatOf } from '../../src/metrics/admin-server.ts';
import { backlogOf } from '../../src/metrics/backlog.ts';
import { BOUNDS_MS, FRONT_AT, FrontCounters, HISTOGRAM_CELLS, OUTCOME, WORKER_AT } from '../../src/metrics/counters.ts';
import { METRICS_DOC, metricsPage } from '../../src/metrics/docs.ts';
import { expose } from '../../src/metrics/exposition.ts';
import { MasterMetrics } from '../../src/metrics/master-metrics.ts';
import { percentiles, Recent } from '../../src/metrics/recent.ts';
import { ofCodeClass, ofOutcome, type Present, samplesOf } from '../../src/metrics/samples.ts';
import { METRICS } from '../../src/metrics/table.ts';
import { betweenSamplesMs, intervalMs, ThreadSampler, waitsAt } from '../../src/metrics/thread-times.ts';
import { difference, Totals } from '../../src/metrics/totals.ts';
import type { ServerView } from '../../src/metrics/view.ts';
import { REASONS } from '../../src/policy/reasons.ts';
import { checkAdmin } from '../../src/settings/admin.ts';
import type { Settings } from '../../src/settings/table.ts';
import { SILENT_LOG } from '../helpers/silent-log.ts';

function reportOf(counters: FrontCounters): {
  cells: number[];
  workers: { number: number; cells: number[]; processes: never[] }[];
} {
  return {
    cells: Array.from(counters.cells),
    workers: Array.from(counters.workers, ([number, cells]) => ({ number, cells: Array.from(cells), processes: [] })),
  };
}

/** Numbers from 0 to 1, the same in each run: mulberry32. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function newTotals(): Totals {
  return new Totals(1000, HISTOGRAM_CELLS);
}

const PRESENT: Present = {
  version: '1',
  utilization: 0.5,
  queueDepth: 0,
  queueLimit: 1,
  connections: 0,
  slots: { idle: 1, busy: 0, reserved: 0, draining: 0, stuck: 0, lost: 0 },
  workers: [
    {
      number: 1,
      serial: 1,
      pid: 1,
      state: 'ready',
      stuck: false,
      reason: 'boot',
      ageMs: 1000,
      bootMs: 5,
      reached: [],
      served: 0,
      memory: { rss: 1, pss: 1 },
      startedAt: 1999,
    },
  ],
  masterCpuMs: 1,
  masterMemory: { rss: 1, pss: 1 },
  moldMemory: { rss: 1, pss: 1 },
  clientsProcess: 'front',
  clientsMemory: { rss: 1, pss: 1 },
  cowSaved: 1,
  backlog: 0,
};

describe('counters of a front', () => {
  test('a request counts by the class of its status and its outcome', () => {
    const counters = new FrontCounters();
    const totals = newTotals();
    counters.requestOver(200, OUTCOME.answered, 1);
    counters.requestOver(404, OUTCOME.answered, 1);
    counters.requestOver(504, OUTCOME.timeout, 1);
    counters.requestOver(0, OUTCOME.client_left, 1);
    counters.requestOver(999, OUTCOME.answered, 1);
    totals.merge(1, reportOf(counters));
    assert.equal(ofCodeClass(totals, '2xx'), 1);
    assert.equal(ofCodeClass(totals, '5xx'), 1);
    assert.equal(ofCodeClass(totals, 'none'), 2);
    assert.equal(ofOutcome(totals, 'answered'), 3);
    assert.equal(ofOutcome(totals, 'client_left'), 1);
  });

  test('a duration falls into the first bucket whose bound it does not exceed', () => {
    const counters = new FrontCounters();
    for (const bound of BOUNDS_MS) counters.requestOver(200, OUTCOME.answered, bound);
    counters.requestOver(200, OUTCOME.answered, 1e9);
    const buckets = counters.cells.subarray(FRONT_AT.whole, FRONT_AT.whole + BOUNDS_MS.length + 1);
    assert.deepEqual(Array.from(buckets), new Array(BOUNDS_MS.length + 1).fill(1));
  });

  test('the cells of a front do not overlap', () => {
    const starts = Object.values(FRONT_AT);
    assert.equal(new Set(starts).size, starts.length);
    const counters = new FrontCounters();
    counters.requestOver(599, OUTCOME.cut, 1e9);
    counters.add(FRONT_AT.connections);
    assert.equal(counters.cells[FRONT_AT.connections], 1);
    assert.equal(counters.cells[FRONT_AT.queue], 0);
  });
});

describe('totals', () => {
  test('add up over fronts, and go on over the death of one', () => {
    const totals = newTotals();
    const first = new FrontCounters();
    first.requestOver(200, OUTCOME.answered, 1);
    first.answered(first.worker(1), 0, 2, 3);
    totals.merge(1, reportOf(first));
    totals.merge(1, reportOf(first));
    assert.equal(ofOutcome(totals, 'answered'), 1, 'the same report twice counts once');
    totals.frontEnded(1);
    const second = new FrontCounters();
    second.requestOver(200, OUTCOME.answered, 1);
    second.answered(second.worker(1), 0, 2, 3);
    totals.merge(1, reportOf(second));
    totals.merge(2, reportOf(second));
    assert.equal(ofOutcome(totals, 'answered'), 3);
    assert.equal(totals.overWorkers(WORKER_AT.requests), 3);
    assert.equal(totals.overWorkers(WORKER_AT.busyMs), 9);
  });

  test('are handed to the next master, which may have counted already', () => {
    const before = newTotals();
    const counters = new FrontCounters();
    counters.requestOver(200, OUTCOME.answered, 1);
    counters.answered(counters.worker(3), 0, 2, 3);
    before.merge(1, reportOf(counters));
    before.count('spawns', 'boot');
    before.threads.set(3, { cpuMs: 1, cpuWaitMs: 2, gilWaitMs: 3, ioMs: 4 });
    before.slotMs = 7;
    const after = new Totals(2000, HISTOGRAM_CELLS);
    after.count('spawns', 'boot');
    after.threads.set(3, { cpuMs: 1, cpuWaitMs: 1, gilWaitMs: null, ioMs: 1 });
    assert.equal(after.restore(JSON.parse(JSON.stringify(before.snapshot()))), true);
    assert.equal(after.restore({ ...before.snapshot(), layout: 'of another version' }), false);
    assert.equal(ofOutcome(after, 'answered'), 1);
    assert.equal(after.worker(3)[WORKER_AT.busyMs], 3);
    assert.equal(after.spawns.get('boot'), 2);
    assert.deepEqual(after.threads.get(3), { cpuMs: 2, cpuWaitMs: 3, gilWaitMs: 3, ioMs: 5 });
    assert.equal(after.slotMs, 7);
    assert.equal(after.startedAt, 1000);
    // What comes later is what is more.
    const first = before.snapshot();
    counters.requestOver(200, OUTCOME.answered, 1);
    before.merge(1, reportOf(counters));
    after.restore(difference(before.snapshot(), first));
    assert.equal(ofOutcome(after, 'answered'), 2);
    assert.equal(after.worker(3)[WORKER_AT.busyMs], 3);
    assert.deepEqual(after.threads.get(3), { cpuMs: 2, cpuWaitMs: 3, gilWaitMs: 3, ioMs: 5 });
  });
});

describe('the last seconds', () => {
  test('rates, utilisation and time for each request are those of the window', () => {
    const totals = newTotals();
    const recent = new Recent();
    const counters = new FrontCounters();
    const second = (time: number): void => {
      for (let i = 0; i < 10; i++) {
        counters.requestOver(i === 0 ? 500 : 200, OUTCOME.answered, 25);
        counters.answered(counters.worker(1), 5, 20, 20);
      }
      counters.cells[FRONT_AT.reservedMs] = time / 10;
      totals.merge(1, reportOf(counters));
      totals.slotMs += 1000;
      const before = totals.threads.get(1) ?? { cpuMs: 0, cpuWaitMs: 0, gilWaitMs: 0, ioMs: 0 };
      totals.threads.set(1, { ...before, cpuMs: before.cpuMs + 50, gilWaitMs: (before.gilWaitMs ?? 0) + 30 });
      recent.keep(totals, time);
    };
    for (let at = 0; at <= 60; at++) second(at * 1000);
    const status = recent.status(totals, 60_000);
    assert.equal(status.seconds, 15);
    assert.equal(status.requestsPerSecond, 10);
    assert.equal(status.errorRatio, 0.1);
    assert.ok(Math.abs(status.utilization - 0.3) < 1e-9, 'busy and kept in reserve');
    const close = (one: number | null | undefined, other: number): void => {
      assert(one !== null && one !== undefined && Math.abs(one - other) < 1e-9, `${one} is not ${other}`);
    };
    close(status.perRequest?.cpu, 0.005);
    close(status.perRequest?.gilWait, 0.003);
    close(status.perRequest?.io, 0.012);
    assert((status.latency?.p50 ?? 0) > 0.02 && (status.latency?.p50 ?? 0) <= 0.03);
  });

  test('percentiles of nothing are not known', () => {
    assert.equal(percentiles(new Float64Array(HISTOGRAM_CELLS), 0), null);
  });
});

describe('exposition', () => {
  const totals = newTotals();
  const counters = new FrontCounters();
  counters.requestOver(200, OUTCOME.answered, 12);
  counters.answered(counters.worker(1), 0, 2, 3);
  totals.merge(1, reportOf(counters));
  totals.threads.set(1, { cpuMs: 1, cpuWaitMs: 1, gilWaitMs: 1, ioMs: 1 });

  test('every metric of the table has a value, with the labels that the table says', () => {
    const samples = samplesOf(totals, PRESENT);
    assert.deepEqual([...samples.keys()].sort(), Object.keys(METRICS).sort());
    for (const [name, list] of samples) {
      for (const { labels } of list) {
        const keys = Object.keys(labels).filter((key) => key !== 'le');
        assert.deepEqual(keys, [...METRICS[name].labels], name);
      }
    }
  });

  test('names end as their kind and unit ask for', () => {
    for (const [name, { kind }] of Object.entries(METRICS)) {
      assert.match(name, /^nunicorn_[a-z_]+$/);
      assert.equal(name.endsWith('_total'), kind === 'counter', name);
      // In OpenMetrics a counter's family has the name without the ending.
      assert(kind !== 'counter' || !Object.hasOwn(METRICS, name.replace(/_total$/, '')), name);
    }
  });

  test('both formats say the same', async () => {
    const samples = samplesOf(totals, PRESENT);
    const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    const prometheus = await expose(samples, [], '', 'prometheus');
    const openmetrics = await expose(samples, [], '', 'openmetrics');
    assert.deepEqual(lines(prometheus), lines(openmetrics));
    assert.match(openmetrics, /# TYPE nunicorn_requests counter\n/);
    assert(openmetrics.endsWith('# EOF\n'));
    assert.match(prometheus, /nunicorn_requests_total\{code_class="2xx",outcome="answered"\} 1\n/);
    assert.match(prometheus, /nunicorn_request_duration_seconds_bucket\{le="0\.01"\} 0\n.*le="0\.015"\} 1\n/);
  });

  test('as many series after 1,000 recycles as before', () => {
    const before = samplesOf(totals, PRESENT);
    const count = (samples: typeof before): number => [...samples.values()].reduce((sum, list) => sum + list.length, 0);
    for (const reason of Object.keys(REASONS)) {
      for (let serial = 0; serial < 1000; serial++) {
        totals.count('spawns', reason as keyof typeof REASONS);
        totals.count('exits', reason as keyof typeof REASONS);
      }
    }
    const workers = PRESENT.workers.map((worker) => ({ ...worker, serial: 1001, pid: 4711 }));
    assert.equal(count(samplesOf(totals, { ...PRESENT, workers })), count(before));
  });

  test('docs/metrics.md is what the table says (npm run docs)', () => {
    assert.equal(readFileSync(METRICS_DOC, 'utf8'), metricsPage());
  });
});

describe('the status', () => {
  test('a wall clock that is set does not change how long the server is up', async () => {
    const view: ServerView = {
      version: '1',
      setup: () => ({ loaded: { app: 'app', settings: {} as Settings }, sockets: [], python: null }),
      workers: () => [],
      workerCount: () => 0,
      reloads: () => 0,
      fronts: () => [],
      moldPids: () => [],
      askWorkers: async () => {},
      prometheusFolder: () => null,
      askFronts: async () => [],
    };
    const metrics = new MasterMetrics(view, SILENT_LOG);
    const inTenDays = Date.now() + 10 * 86_400_000;
    const clock = mock.method(Date, 'now', () => inTenDays);
    try {
      const { uptime } = (await metrics.status()).server;
      assert(uptime > 0 && uptime < 3600, String(uptime));
    } finally {
      clock.mock.restore();
      metrics.close();
    }
  });
});

describe('the admin server', () => {
  test('a scraper gets the format it prefers', () => {
    assert.equal(formatOf(undefined), 'prometheus');
    assert.equal(formatOf('*/*'), 'prometheus');
    assert.equal(formatOf('application/openmetrics-text; version=1.0.0'), 'openmetrics');
    const prometheus =
      'application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1';
    assert.equal(formatOf(prometheus), 'openmetrics');
    assert.equal(formatOf('text/plain;q=0.9, application/openmetrics-text;q=0.1'), 'prometheus');
  });

  test('an address that others can reach needs a token', () => {
    for (const bind of ['0.0.0.0:9100', '192.168.1.7:9100', '[::]:9100', ':9100', 'example.org:9100']) {
      assert.throws(() => checkAdmin(bind, null), /is refused.*--admin-token/, bind);
      checkAdmin(bind, 'secret');
    }
    for (const bind of ['127.0.0.1:9100', '127.8.8.8:9100', '[::1]:9100', 'localhost:9100', 'unix:/run/admin.sock'])
      checkAdmin(bind, null);
    checkAdmin(null, null);
  });
});

describe('what the kernel tells', () => {
  test('the backlog is the receive queue of the sockets that listen', () => {
    const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000011 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F41 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 0100007F:1F40 0100007F:D431 01 00000000:000000FF 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0`;
    assert.equal(backlogOf(table, new Set([8000])), 17);
    assert.equal(backlogOf(table, new Set([8000, 8001])), 20);
    assert.equal(backlogOf(table, new Set([1])), null);
  });

  test('what samples say of waits is their length, though they are seldom while nothing runs', () => {
    const random = randomOf(7);
    for (const [waitMs, forMs] of [
      [2, 4e8],
      [50, 1e8],
      [3000, 2e7],
    ] as const) {
      let truth = 0;
      let estimate = 0;
      let moved = true;
      let waited = false;
      let [begins, ends] = [0, 0];
      for (let at = 0, elapsedMs = 0; at < forMs; at += elapsedMs) {
        while (at >= ends) {
          begins = ends - 1000 * Math.log(1 - random());
          ends = begins + 2 * waitMs * random();
          truth += ends - begins;
        }
        const waits = at >= begins;
        estimate += betweenSamplesMs(elapsedMs, waited, waits);
        elapsedMs = intervalMs(moved, 1, random());
        moved = waits || waited;
        waited = waits;
      }
      const ratio = estimate / truth;
      assert(Math.abs(ratio - 1) < 0.05, `waits of ${waitMs} ms: ${ratio}`);
    }
  });

  test('a thread waits for the lock if it sleeps at an address inside it', () => {
    const gil = 0x7ff174b4e6f0n;
    assert(waitsAt('202 0x7ff174b4e6f4 0x89 0x0 0x7ff1740ceae0 0x0 0xffffffff 0x7ff1740ce9b0 0x7ff1744a3f16\n', gil));
    assert(!waitsAt('202 0x7ff174b50000 0x89 0x0 0x7ff1740ceae0 0x0 0xffffffff 0x7ff1740ce9b0 0x7ff1744a3f16\n', gil));
    assert(!waitsAt('running\n', gil));
    assert(!waitsAt('', gil));
    assert(!waitsAt('202 0x7ff174b4e6f4 0x89', null));
  });

  test('a worker that has ended before it is looked at is not one that may not be looked at', (context) => {
    const { pid } = spawnSync(process.execPath, ['--version']);
    const unreadable = context.mock.fn();
    const sampler = new ThreadSampler(new Totals(0, HISTOGRAM_CELLS), unreadable);
    sampler.add({ serial: 1, number: 1, pid, threadIds: [pid], gilAddress: 4096n });
    assert.equal(unreadable.mock.callCount(), 0);
  });
});
