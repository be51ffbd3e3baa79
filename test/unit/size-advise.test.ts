import { strict as assert } from 'node:assert';
import { describe, it } from 'node:test';
import type { Status } from '../../src/metrics/status.ts';
import { adviceText } from '../../src/size/advise.ts';
import { type AdviceContext, type AdviceInput, advise } from '../../src/size/advise-rules.ts';

const MB = 1024 * 1024;

interface Figures {
  readonly workers: number;
  readonly threads: number;
  readonly perSecond: number;
  readonly busy: number;
  readonly cpu: number;
  readonly io: number;
  readonly gilWait?: number;
  readonly cpuWait?: number;
  readonly queueP99?: number;
  readonly errors?: number;
  readonly pssMb?: number;
  readonly requests?: number;
}

function status(f: Figures): AdviceInput {
  const mean = f.cpu + f.io + (f.gilWait ?? 0) + (f.cpuWait ?? 0);
  return {
    settings: { workers: f.workers, threads: f.threads, preload: false },
    workers: Array.from({ length: f.workers }, (_, i) => ({
      number: i + 1,
      state: 'ready',
      age: 1000,
      requests: 5000,
      memory: { pss: (f.pssMb ?? 60) * MB, rss: null },
    })),
    recent: {
      seconds: 60,
      requestsPerSecond: f.perSecond,
      errorRatio: f.errors ?? 0,
      utilization: f.busy,
      queueTime: { p50: 0, p99: f.queueP99 ?? 0 },
      appTime: { mean, p99: 3 * mean },
      perRequest: { cpu: f.cpu, gilWait: f.gilWait ?? 0, cpuWait: f.cpuWait ?? 0, io: f.io },
    },
    totals: { requests: f.requests ?? 10_000 },
  };
}

function changes(figures: Figures, context: Partial<AdviceContext> = {}): string {
  return advise(status(figures), { cores: 4, ...context })
    .map(({ change }) => change)
    .join('; ');
}

describe('advice from a running server', () => {
  it('more threads, up to the knee, when slots are used up by waiting', () => {
    assert.match(changes({ workers: 2, threads: 2, perSecond: 80, busy: 0.95, cpu: 0.005, io: 0.04 }), /Run 2 x 4 /);
  });

  it('more workers when the application computes and processors are free', () => {
    assert.match(changes({ workers: 2, threads: 1, perSecond: 90, busy: 0.9, cpu: 0.02, io: 0 }), /Run 3 x 1 /);
  });

  it('one thread more, where it has use for it, when few are busy and requests wait all the same', () => {
    const bursts = { perSecond: 10, busy: 0.4, queueP99: 0.05 };
    assert.match(changes({ ...bursts, workers: 1, threads: 1, cpu: 0.001, io: 0.05 }), /^Run 1 x 2 /);
    assert.match(changes({ ...bursts, workers: 2, threads: 1, cpu: 0.04, io: 0 }), /^Run 3 x 1 /);
    assert.match(
      changes({ ...bursts, workers: 2, threads: 1, cpu: 0.04, io: 0 }, { memoryLimit: 180 * MB }),
      /^Give the server more memory: 3 x 1 /,
    );
  });

  it('no number helps when the processors are full', () => {
    assert.match(
      changes({ workers: 4, threads: 2, perSecond: 190, busy: 0.95, cpu: 0.02, io: 0.01, queueP99: 0.1 }),
      /more processors, or make the application cheaper/,
    );
  });

  it('fewer threads and more workers when threads wait for the lock and processors are free', () => {
    assert.match(
      changes({ workers: 1, threads: 8, perSecond: 60, busy: 0.5, cpu: 0.015, io: 0.02, gilWait: 0.03 }),
      /more workers with fewer threads: 2 x 4/,
    );
  });

  it('fewer workers when more is ready to run than processors can', () => {
    assert.match(
      changes({ workers: 9, threads: 1, perSecond: 150, busy: 0.4, cpu: 0.01, io: 0, cpuWait: 0.01 }, { cores: 2 }),
      /fewer workers/,
    );
  });

  it('others, when a request waits for a processor that this server does not use', () => {
    assert.match(
      changes({ workers: 1, threads: 2, perSecond: 40, busy: 0.5, cpu: 0.005, io: 0.01, cpuWait: 0.02 }, { cores: 2 }),
      /what else runs/,
    );
  });

  it('takes the status as the admin server gives it', () => {
    const input = (given: Status): AdviceInput => given;
    assert.equal(typeof input, 'function');
  });

  it('fewer workers when nearly all are idle', () => {
    assert.match(
      changes({ workers: 8, threads: 1, perSecond: 5, busy: 0.03, cpu: 0.01, io: 0.01 }),
      /1 worker will do instead of/,
    );
  });

  it('errors before numbers', () => {
    const [first] = advise(
      status({ workers: 1, threads: 1, perSecond: 50, busy: 0.9, cpu: 0.001, io: 0.01, errors: 0.3 }),
      {
        cores: 2,
      },
    );
    assert.match(first?.change ?? '', /error log/);
  });

  it('recycling when memory grows with requests', () => {
    const figures = { workers: 2, threads: 2, perSecond: 50, busy: 0.3, cpu: 0.005, io: 0.01, requests: 11_000 };
    const earlier = { seconds: 20, pss: new Map([1, 2].map((number) => [number, 55 * MB])), requests: 10_000 };
    assert.match(changes(figures, { earlier }), /--max-requests \d+ --max-requests-jitter \d+/);
    const steady = { ...earlier, pss: new Map([1, 2].map((number) => [number, 60 * MB])) };
    assert.equal(changes(figures, { earlier: steady }), '');
  });

  it('memory, when the workers that the load needs do not fit', () => {
    assert.match(
      changes(
        { workers: 2, threads: 1, perSecond: 90, busy: 0.9, cpu: 0.02, io: 0, pssMb: 400 },
        { memoryLimit: 1024 * MB },
      ),
      /more memory/,
    );
  });

  it('nothing, when all has room; and nothing on thin evidence, which it says', () => {
    const calm: Figures = { workers: 2, threads: 4, perSecond: 50, busy: 0.4, cpu: 0.005, io: 0.02 };
    assert.equal(changes(calm), '');
    assert.match(adviceText(status(calm), [], 4), /Nothing to change/);
    const few = status({ ...calm, perSecond: 0.5, busy: 1 });
    assert.deepEqual(advise(few, { cores: 4 }), []);
    assert.match(adviceText(few, [], 4), /No advice: 30 requests in the last 60 s are too few/);
    const single = status({ ...calm, workers: 1, threads: 1 });
    assert.match(adviceText(single, [], 1), /^1 worker x 1 thread on 1 processor: /);
  });
});
