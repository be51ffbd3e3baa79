import { strict as assert } from 'node:assert';
import { describe, it } from 'node:test';
import type { Cell } from '../../src/size/cell.ts';
import {
  type Costs,
  capacity,
  erlangC,
  kneeThreads,
  kneeWorkers,
  loopCosts,
  memoryMb,
  poolCosts,
  requestCosts,
  responseP99Ms,
  waitP99Ms,
} from '../../src/size/model.ts';
import { byCost, planCells } from '../../src/size/plan.ts';
import { estimateRates, gain, rateSearch, type Trial } from '../../src/size/rate-search.ts';
import { defaultSlo, isWithin, parseSlo } from '../../src/size/slo.ts';
import { median, pooledVariation, quantile } from '../../src/size/statistics.ts';

const COSTS: Costs = {
  kind: 'python',
  blockedMs: 0,
  lockedMs: 5,
  freeMs: 0,
  waitMs: 20,
  frontMs: 0.2,
  generatorMs: 0,
  workerMb: 40,
  threadMb: 1,
  baseMb: 30,
};

function cell(workers: number, threads: number): Cell {
  return { server: 'nunicorn', workers, threads, fronts: 1, preload: false };
}

describe('capacity', () => {
  it('is the least of four bounds, and says which', () => {
    assert.deepEqual(capacity(COSTS, cell(1, 2), 4), { perSecond: 80, limit: 'threads' });
    assert.deepEqual(capacity(COSTS, cell(1, 8), 4), { perSecond: 200, limit: 'lock' });
    assert.equal(capacity(COSTS, cell(4, 8), 1).limit, 'cores');
    assert.deepEqual(capacity({ ...COSTS, frontMs: 10 }, cell(4, 8), 8), { perSecond: 100, limit: 'fronts' });
  });

  it('has its knee at 1 + Z / C threads for one worker, and as many workers as cores for what only computes', () => {
    assert.equal(kneeThreads({ ...COSTS, frontMs: 0 }, 1, 4), 5);
    assert.equal(kneeWorkers(COSTS, 1), 1);
    assert.equal(kneeWorkers(COSTS, 4), 4);
    assert.equal(kneeThreads({ ...COSTS, waitMs: 0, frontMs: 0 }, 4, 4), 1);
  });

  it('needs fewer workers than cores where the lock is released', () => {
    const hashing = { ...COSTS, lockedMs: 1, freeMs: 9, waitMs: 0, frontMs: 0 };
    assert.equal(kneeWorkers(hashing, 4), 1);
    assert.equal(kneeThreads(hashing, 1, 4), 4);
  });
});

describe('capacity of a Node app', () => {
  const loops: Costs = { ...COSTS, kind: 'async', lockedMs: 2, waitMs: 500, frontMs: 0 };

  it('under async is bound by event loops and cores, never by how many requests wait', () => {
    assert.deepEqual(capacity(loops, cell(1, 1), 4), { perSecond: 500, limit: 'lock' });
    assert.deepEqual(capacity(loops, cell(8, 1), 4), { perSecond: 2000, limit: 'cores' });
    assert.equal(kneeWorkers(loops, 4), 4);
    assert.equal(kneeThreads(loops, 4, 4), 1);
  });

  it('needs more event loops than cores where they stand still in synchronous calls', () => {
    assert.equal(kneeWorkers({ ...loops, blockedMs: 4 }, 2), 6);
  });

  it('under gthread is bound by threads, then by cores, and by the main thread of each worker', () => {
    const pool: Costs = { ...COSTS, kind: 'pool', lockedMs: 0, freeMs: 5, waitMs: 5, frontMs: 0.5 };
    assert.deepEqual(capacity(pool, cell(1, 2), 4), { perSecond: 200, limit: 'threads' });
    assert.equal(capacity(pool, cell(1, 16), 4).limit, 'cores');
    assert.deepEqual(capacity({ ...pool, freeMs: 0.1, waitMs: 0 }, cell(1, 16), 4), {
      perSecond: 2000,
      limit: 'fronts',
    });
    assert.equal(kneeWorkers(pool, 4), 1);
    assert.equal(kneeThreads(pool, 1, 4), 8);
  });

  it('has a p99 of waiting for an event loop, and of all that a request takes', () => {
    const alone = responseP99Ms(loops, cell(2, 1), 4, 1);
    assert.equal(alone, 502);
    assert(responseP99Ms(loops, cell(2, 1), 4, 900) > 510);
  });
});

describe('the predicted p99', () => {
  it('is that of one request where nothing is waited for, and endless where the load exceeds what a setting carries', () => {
    assert.equal(responseP99Ms(COSTS, cell(1, 10), 1, 1), 25);
    assert.equal(responseP99Ms(COSTS, cell(1, 1), 1, 60), Number.POSITIVE_INFINITY);
  });

  it('does not fall any more with threads that wait for the same lock or core', () => {
    assert(responseP99Ms(COSTS, cell(1, 8), 1, 150) > 35);
    assert.equal(responseP99Ms(COSTS, cell(1, 8), 1, 150), responseP99Ms(COSTS, cell(1, 32), 1, 150));
  });
});

describe('Erlang C', () => {
  it('gives the mean waits of the published table: 8 slots of 50 ms, one queue', () => {
    for (const [busy, meanWaitMs] of [
      [0.5, 0.74],
      [0.7, 5.64],
      [0.8, 14.3],
      [0.9, 43.9],
    ] as const) {
      const wait = (erlangC(8, 8 * busy) * 50) / (8 * (1 - busy));
      assert(Math.abs(wait - meanWaitMs) < 0.01 * meanWaitMs + 0.01, `${wait} at ${busy}`);
    }
  });

  it('is certain waiting where the load exceeds the slots, and endless at p99', () => {
    assert.equal(erlangC(2, 2), 1);
    assert.equal(waitP99Ms(2, 100, 30, 1), Number.POSITIVE_INFINITY);
    assert.equal(waitP99Ms(10, 1, 10, 1), 0);
  });
});

describe('costs of a request', () => {
  const window = { perSecond: 40, workerMs: 5, loopMs: 0, frontMs: 0.2, generatorMs: 0, delayMs: 0 };

  it('waiting is what is left of the time of a slot', () => {
    const costs = requestCosts(window, undefined, 1);
    assert.equal(costs.waitMs, 20);
    assert.equal(costs.lockedMs, 5);
  });

  it('time in which no core was free is not waiting', () => {
    assert.equal(requestCosts({ ...window, delayMs: 15 }, undefined, 1).waitMs, 5);
  });

  it('a worker that uses more than one core computes outside the lock', () => {
    const one = { ...window, perSecond: 100, workerMs: 10 };
    const costs = requestCosts(one, { ...one, perSecond: 300, frontMs: 0 }, 8);
    assert(Math.abs(costs.lockedMs - 10 / 3) < 0.01, JSON.stringify(costs));
    assert(Math.abs(costs.freeMs - 20 / 3) < 0.01);
    assert.equal(requestCosts(one, { ...one, perSecond: 98 }, 8).freeMs, 0);
  });

  it('of threads that share no lock are all theirs', () => {
    const { lockedMs, freeMs, waitMs } = poolCosts(window);
    assert.deepEqual([lockedMs, freeMs, waitMs], [0, 5, 20]);
  });

  it('of an event loop: what it computes, what it stands still for, and what is waited for beside it', () => {
    const alone = { ...window, loopMs: 4 };
    const full = { ...window, perSecond: 200, loopMs: 4 };
    const { lockedMs, blockedMs, freeMs, waitMs } = loopCosts(alone, full, { busyMs: 10, loopMs: 4, delayMs: 1 });
    assert.deepEqual([lockedMs, blockedMs, freeMs, waitMs], [4, 5, 1, 15]);
    // Busy for hardly longer than it computes: no synchronous calls.
    assert.equal(loopCosts(alone, full, { busyMs: 4.3, loopMs: 4, delayMs: 0 }).blockedMs, 0);
  });
});

describe('the plan', () => {
  it('holds the control, the knee, two settings past it and the rule of thumb', () => {
    const { cells } = planCells(COSTS, { cores: 1 }, { fronts: 1, preload: false }, 12);
    const names = cells.map(({ cell: { workers, threads } }) => `${workers}x${threads}`);
    for (const name of ['1x1', '1x5', '3x1']) assert(names.includes(name), `${name} in ${names}`);
    assert(cells.filter(({ why }) => why === 'past the knee').length >= 2);
    assert(cells.length <= 12);
  });

  it('of event loops holds workers only', () => {
    const { cells } = planCells({ ...COSTS, kind: 'async' }, { cores: 2 }, { fronts: 1, preload: false }, 12);
    assert.deepEqual(new Set(cells.map(({ cell: { threads } }) => threads)), new Set([1]));
    const workers = cells.map(({ cell }) => cell.workers).sort((a, b) => a - b);
    assert.deepEqual(workers, [1, 2, 3, 4, 5]);
    assert(cells.filter(({ why }) => why === 'past the knee').length >= 2);
  });

  it('leaves out what does not fit, and says why', () => {
    const { cells, leftOut } = planCells(COSTS, { cores: 4, memoryMb: 200 }, { fronts: 1, preload: false }, 14);
    for (const planned of cells) assert(memoryMb(COSTS, planned.cell) <= 170);
    assert.match(
      leftOut.find(({ why }) => why === '2 x cores + 1')?.because ?? '',
      /needs about 390 MB, more than 85 % of 200 MB/,
    );
  });

  it('orders by memory, then processes, then threads', () => {
    const order = [cell(2, 1), cell(1, 5), cell(1, 4)].sort(byCost(COSTS));
    assert.deepEqual(order, [cell(1, 4), cell(1, 5), cell(2, 1)]);
  });
});

describe('the search for a rate', () => {
  /** A cell that keeps the SLO up to `limit`, with windows that are wrong now and then. */
  function search(limit: number, capacityOfCell: number, windows: number, wrongAt: readonly number[] = []): Trial[] {
    const trials: Trial[] = [];
    for (let i = 0; i < windows; i++) {
      const { nextPerSecond } = rateSearch(capacityOfCell, trials);
      trials.push({
        perSecond: nextPerSecond,
        within: wrongAt.includes(i) ? nextPerSecond > limit : nextPerSecond <= limit,
      });
    }
    return trials;
  }

  it('closes in on the limit, also far below capacity', () => {
    for (const limit of [95, 80, 30]) {
      const trials = search(limit, 100, 14);
      assert(Math.abs((trials.at(-1)?.perSecond ?? 0) - limit) < 8, `${limit}: ${trials.map((t) => t.perSecond)}`);
    }
  });

  it('is not lost by a disturbed window', () => {
    const trials = search(80, 100, 12, [3]);
    assert(Math.abs((trials.at(-1)?.perSecond ?? 0) - 80) < 8);
  });

  it('tells cells apart that differ by a fifth, and not those that are the same', () => {
    const cellOf = (name: string, limit: number, size: number) => ({
      name,
      capacities: [size, size],
      trials: search(limit, size, 10),
    });
    const rates = estimateRates([cellOf('a', 90, 100), cellOf('b', 75, 83), cellOf('c', 91, 101)], 0.02);
    const [a, b, c] = ['a', 'b', 'c'].map((name) => rates.get(name));
    assert(a !== undefined && b !== undefined && c !== undefined);
    assert(Math.abs(a.perSecond - 90) < 6, String(a.perSecond));
    assert(gain(a, b).low > 0, JSON.stringify(gain(a, b)));
    const same = gain(a, c);
    assert(same.low < 0 && same.high > -0.05, JSON.stringify(same));
  });

  it('leaves out a cell that met the SLO nowhere', () => {
    assert.equal(
      estimateRates([{ name: 'a', capacities: [100], trials: [{ perSecond: 50, within: false }] }], 0.02).size,
      0,
    );
  });
});

describe('the SLO', () => {
  it('is read as people write it', () => {
    assert.deepEqual(parseSlo('p99<300ms'), { percentile: 99, ms: 300 });
    assert.deepEqual(parseSlo(' p90 <= 0.5 s '), { percentile: 90, ms: 500 });
    for (const wrong of ['p95<1s', '300ms', 'p99<300', 'p99<0ms'])
      assert.throws(() => parseSlo(wrong), /a percentile and a time/);
  });

  it('is ten times an unhindered request where none is given, at least 100 ms', () => {
    assert.deepEqual(defaultSlo(2), { percentile: 99, ms: 100 });
    assert.deepEqual(defaultSlo(47), { percentile: 99, ms: 500 });
  });

  it('is not kept by failures, nor by falling behind', () => {
    const latency = { meanMs: 10, p50Ms: 10, p90Ms: 10, p99Ms: 10, maxMs: 10 };
    const failures = { connect: 0, cut: 0, 'not-http': 0, status: 0, body: 0, timeout: 0 };
    const window = { latency, failures, intended: 1000, completed: 990, seconds: 1 };
    const slo = { percentile: 99, ms: 50 } as const;
    assert.equal(isWithin(slo, window), true);
    assert.equal(isWithin(slo, { ...window, completed: 900 }), false);
    assert.equal(isWithin(slo, { ...window, failures: { ...failures, status: 1 } }), false);
    assert.equal(isWithin(slo, { ...window, latency: { ...latency, p99Ms: 51 } }), false);
  });
});

describe('statistics', () => {
  it('quantiles are linear between neighbours', () => {
    assert.equal(median([3, 1, 2]), 2);
    assert.equal(quantile([0, 10], 0.25), 2.5);
    assert(Number.isNaN(median([])));
  });

  it('variation is that within groups, not between them', () => {
    assert.equal(
      pooledVariation([
        [100, 100],
        [500, 500],
      ]),
      0,
    );
    assert(Math.abs(pooledVariation([[90, 110], [100]]) - Math.sqrt(0.02)) < 1e-9);
    assert(Number.isNaN(pooledVariation([[1], [2]])));
  });
});
