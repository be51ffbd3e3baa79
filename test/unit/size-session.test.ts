// The decisions of `nunicorn size`, on simulated servers whose best setting follows from the maths.
import { strict as assert } from 'node:assert';
import { describe, it } from 'node:test';
import { nameOf, stepsBetween } from '../../src/size/cell.ts';
import { kneeThreads, kneeWorkers } from '../../src/size/model.ts';
import { Session, type SessionOptions } from '../../src/size/session.ts';
import { conclude, type Verdict } from '../../src/size/verdict.ts';
import { type SimulatedApp, SimulatedBench } from '../helpers/simulated-bench.ts';

async function size(app: SimulatedApp, more: Partial<SessionOptions> = {}) {
  const bench = new SimulatedBench(app);
  const limits = { cores: app.cores, ...more.limits };
  const options: SessionOptions = {
    kind: app.kind ?? 'python',
    budgetMs: 60_000,
    slo: undefined,
    base: { fronts: 1, preload: false },
    compareGunicorn: false,
    seed: 1,
    ...more,
    limits,
  };
  const findings = await new Session(bench, options, () => {}, new AbortController().signal).run();
  return { findings, verdict: conclude(findings, limits), bench };
}

function show(verdict: Verdict): string {
  return `${verdict.kind}: ${verdict.recommended && nameOf(verdict.recommended.cell)}: ${verdict.because}`;
}

const APPS: Readonly<Record<string, SimulatedApp>> = {
  'waits much, one core': { lockedMs: 5, freeMs: 0, waitMs: 20, frontMs: 0.2, cores: 1, convoy: 0.01 },
  'waits much, two cores': { lockedMs: 5, freeMs: 0, waitMs: 20, frontMs: 0.2, cores: 2, convoy: 0.01 },
  'only computes, one core': { lockedMs: 4, freeMs: 0, waitMs: 0, frontMs: 0.2, cores: 1, convoy: 0.01 },
  'only computes, four cores': { lockedMs: 4, freeMs: 0, waitMs: 0, frontMs: 0.2, cores: 4, convoy: 0.01 },
  'event loop that waits, two cores': {
    kind: 'async',
    ...{ lockedMs: 2, freeMs: 0, waitMs: 30, frontMs: 0.01, cores: 2 },
  },
  'event loop with work in other threads, four cores': {
    kind: 'async',
    ...{ lockedMs: 3, freeMs: 3, waitMs: 0, frontMs: 0.01, cores: 4 },
  },
  'pool of Node threads that compute and wait, two cores': {
    kind: 'pool',
    ...{ lockedMs: 0, freeMs: 5, waitMs: 10, frontMs: 0.05, cores: 2 },
  },
  'computes outside the lock': { lockedMs: 1, freeMs: 9, waitMs: 0, frontMs: 0.2, cores: 2, convoy: 0.01 },
};

describe('finds the setting that the maths give, within one step', () => {
  for (const [name, app] of Object.entries(APPS)) {
    for (const seed of [1, 2]) {
      it(`${name}, seed ${seed}`, async () => {
        const { verdict, findings } = await size({ ...app, noise: 0.02, seed });
        const costs = {
          kind: 'python' as const,
          blockedMs: 0,
          ...app,
          generatorMs: 0,
          workerMb: 30,
          threadMb: 0.1,
          baseMb: 30,
        };
        const workers = kneeWorkers(costs, app.cores);
        const threads = kneeThreads(costs, workers, app.cores);
        const found = verdict.recommended?.cell;
        assert(found !== undefined, show(verdict));
        const cells = findings.cells.map(
          ({ cell, capacity, trials }) =>
            `${nameOf(cell)} ${capacity.map((w) => w.perSecond.toFixed(0))} [${trials.map((t) => `${t.perSecond.toFixed(0)}${t.within ? '+' : '-'}`)}]`,
        );
        const text = `${show(verdict)}; expected ${workers}x${threads}; costs ${JSON.stringify(findings.costs)}\n${cells.join('\n')}`;
        assert(Math.abs(found.workers - workers) <= 1, text);
        assert(stepsBetween(found.threads, threads) <= 1, text);
      });
    }
  }
});

describe('says how it is', () => {
  it('too noisy, when the same setting measured again differs much', async () => {
    const { verdict } = await size({ ...(APPS['waits much, one core'] as SimulatedApp), noise: 0.3 });
    assert.equal(verdict.kind, 'too noisy to say', show(verdict));
    assert.notDeepEqual(verdict.toDo, []);
  });

  it('too noisy, when others use the cores', async () => {
    const { verdict } = await size({ ...(APPS['waits much, one core'] as SimulatedApp), others: 0.4 });
    assert.equal(verdict.kind, 'too noisy to say', show(verdict));
    assert.match(verdict.because, /other programs used 40 %/);
  });

  it('no difference found, when workers and threads do the same, and takes what costs less', async () => {
    const { verdict } = await size({ lockedMs: 4, freeMs: 0, waitMs: 0, frontMs: 0.2, cores: 1 });
    assert.equal(verdict.kind, 'no difference found', show(verdict));
    assert.deepEqual(verdict.recommended?.cell.workers, 1);
  });

  it('SLO not met, when one request alone takes longer than it allows', async () => {
    const { verdict } = await size(
      { lockedMs: 5, freeMs: 0, waitMs: 100, frontMs: 0.2, cores: 1 },
      { slo: { percentile: 99, ms: 50 } },
    );
    assert.equal(verdict.kind, 'SLO not met', show(verdict));
    assert.equal(verdict.recommended, undefined);
  });

  it('what 2 x cores + 1 gives, and why it was not measured where it does not fit', async () => {
    const app: SimulatedApp = { lockedMs: 5, freeMs: 0, waitMs: 20, frontMs: 0.2, cores: 1, workerMb: 200 };
    const roomy = await size(app);
    assert(roomy.verdict.rule !== undefined && 'cell' in roomy.verdict.rule, show(roomy.verdict));
    assert.equal(roomy.verdict.rule.cell.workers, 3);
    const cells = roomy.findings.cells.map((found) =>
      found.why === '2 x cores + 1' ? { ...found, capacity: [], trials: [], reference: [] } : found,
    );
    assert.deepEqual(conclude({ ...roomy.findings, cells }, { cores: 1 }).rule, {
      because: 'its turn did not come before the end',
    });
    const tight = await size(app, { limits: { cores: 1, memoryMb: 600 } });
    assert(tight.verdict.rule !== undefined && 'because' in tight.verdict.rule, show(tight.verdict));
    assert.match(tight.verdict.rule.because, /needs about 630 MB/);
  });
});

describe('keeps to the limits', () => {
  it('never recommends more slots than there are database connections', async () => {
    const { verdict, bench } = await size(APPS['waits much, two cores'] as SimulatedApp, {
      limits: { cores: 2, databaseConnections: 6 },
    });
    const { workers = 0, threads = 0 } = verdict.recommended?.cell ?? {};
    assert(workers * threads >= 4 && workers * threads <= 6, show(verdict));
    for (const name of bench.measured)
      assert(
        name
          .split('x')
          .map(Number)
          .reduce((a, b) => a * b) <= 6,
        name,
      );
  });

  it('takes no worker that the memory has no room for', async () => {
    const app: SimulatedApp = { ...(APPS['only computes, four cores'] as SimulatedApp), workerMb: 200 };
    const { verdict } = await size(app, { limits: { cores: 4, memoryMb: 600 } });
    assert.equal(verdict.recommended?.cell.workers, 2, show(verdict));
  });

  it('ends within its budget, with something to say', async () => {
    for (const budgetMs of [10_000, 15_000, 60_000, 180_000]) {
      const { findings, verdict } = await size(APPS['waits much, one core'] as SimulatedApp, { budgetMs });
      assert(findings.usedMs <= budgetMs + 100, `${findings.usedMs} of ${budgetMs}`);
      assert.equal(findings.interrupted, false);
      assert.notEqual(verdict.kind, 'not enough measured', show(verdict));
    }
  });

  it('begins no window that its budget has no room for, however slow the application is', async () => {
    const slow: SimulatedApp = { lockedMs: 5, freeMs: 0, waitMs: 450, frontMs: 0.2, cores: 2 };
    for (const budgetMs of [5000, 10_000, 20_000]) {
      const { findings } = await size(slow, { budgetMs, compareGunicorn: true });
      assert(findings.usedMs <= budgetMs + 100, `${findings.usedMs} of ${budgetMs}`);
    }
  });
});

it('measures at least two settings past the knee', async () => {
  const { findings } = await size(APPS['waits much, one core'] as SimulatedApp);
  const past = findings.cells.filter(
    ({ cell, capacity }) => cell.workers === 1 && cell.threads > 5 && capacity.length > 0,
  );
  assert(past.length >= 2, past.map(({ cell }) => nameOf(cell)).join());
});

it('takes more event loops than cores where they stand still in synchronous calls', async () => {
  const app = { kind: 'async', lockedMs: 4, blockedMs: 8, freeMs: 0, waitMs: 0, frontMs: 0.01, cores: 1 } as const;
  const { verdict, findings } = await size(app);
  assert(Math.abs((findings.costs?.blockedMs ?? 0) - 8) < 1, JSON.stringify(findings.costs));
  assert((verdict.recommended?.cell.workers ?? 0) >= 3, show(verdict));
});

it('climbs to the best setting when the prediction was wrong', async () => {
  // With threads in each other's way the knee lies earlier than the costs of a single thread say.
  const { verdict, findings } = await size({
    lockedMs: 5,
    freeMs: 0,
    waitMs: 60,
    frontMs: 0.2,
    cores: 2,
    convoy: 0.15,
  });
  const best = Math.max(
    ...findings.cells.map(({ capacity }) => Math.max(0, ...capacity.map(({ perSecond }) => perSecond))),
  );
  assert((verdict.recommended?.perSecond ?? 0) > 0.75 * best, show(verdict));
});

it('goes on without a setting that does not start', async () => {
  const { verdict, findings } = await size({ ...(APPS['waits much, one core'] as SimulatedApp), mostSlots: 5 });
  assert(findings.cells.some(({ failed }) => failed?.includes('exit code 3')));
  assert.deepEqual([verdict.recommended?.cell.workers, verdict.recommended?.cell.threads], [1, 5], show(verdict));
});

it('gives what is there when it is stopped', async () => {
  const app = APPS['waits much, one core'] as SimulatedApp;
  const bench = new SimulatedBench(app);
  const abort = new AbortController();
  const options: SessionOptions = {
    kind: app.kind ?? 'python',
    budgetMs: 60_000,
    slo: undefined,
    limits: { cores: 1 },
    base: { fronts: 1, preload: false },
    compareGunicorn: false,
    seed: 1,
  };
  const session = new Session(
    bench,
    options,
    (progress) => {
      if (progress.kind === 'phase' && progress.phase === 'search') abort.abort();
    },
    abort.signal,
  );
  const findings = await session.run();
  assert(findings.interrupted);
  assert(findings.cells.length > 3);
  assert.equal(conclude(findings, { cores: 1 }).kind, 'not enough measured');
});
