// Seats and their workers, with processes that are none.
import { strict as assert } from 'node:assert';
import { mock, test } from 'node:test';
import type { WorkerProcess } from '../../src/master/app-kind.ts';
import { Workers, type WorkersOptions } from '../../src/master/workers.ts';
import { nothing, SILENT_LOG } from '../helpers/silent-log.ts';

const OPTIONS: WorkersOptions = {
  count: 1,
  stagger: false,
  gracefulTimeoutMs: 1000,
  bootTimeoutMs: 0,
  pingLimitMs: 0,
  recycling: {
    maxRequests: 0,
    maxRequestsJitter: 0,
    maxLifetimeMs: 0,
    maxLifetimeJitterMs: 0,
    minWorkerLifetimeMs: 0,
  },
};

const PROCESS: WorkerProcess = {
  pid: null,
  accepts: false,
  drain: nothing,
  leave: nothing,
  reopenLogs: nothing,
  ping: nothing,
  stacks: nothing,
  abort: nothing,
  kill: nothing,
};

interface Seen {
  readonly workers: Workers;
  /** Serials, as they were started. */
  readonly spawned: readonly number[];
  /** How the start, and reloads, have ended. */
  readonly outcomes: readonly string[];
}

function withWorkers(options: WorkersOptions, run: (seen: Seen) => void, process = PROCESS): void {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  try {
    const spawned: number[] = [];
    const outcomes: string[] = [];
    const handler = {
      startWorker: () => process,
      spawned: (serial: number) => void spawned.push(serial),
      ready: nothing,
      exited: nothing,
      bootFailed: nothing,
      allReady: () => void outcomes.push('all ready'),
      reloadFailed: () => void outcomes.push('failed'),
      allGone: nothing,
    };
    const workers = new Workers(options, handler, SILENT_LOG);
    workers.start();
    run({ workers, spawned, outcomes });
  } finally {
    mock.timers.reset();
  }
}

test('a reload waits for no worker that is to be started again later', () => {
  withWorkers(OPTIONS, ({ workers, spawned }) => {
    workers.ready(1);
    workers.ended(1, 3, null, false);
    mock.timers.tick(0);
    assert.deepEqual(spawned, [1], 'it waits');
    workers.reload(OPTIONS);
    mock.timers.tick(0);
    assert.deepEqual(spawned, [1, 2]);
    mock.timers.tick(60_000);
    assert.deepEqual(spawned, [1, 2], 'it was started once');
  });
});

test('a worker that has served enough while a reload fails is replaced all the same', () => {
  const options = { ...OPTIONS, recycling: { ...OPTIONS.recycling, maxRequests: 100 } };
  withWorkers(options, ({ workers, spawned }) => {
    workers.ready(1);
    workers.reload(options);
    assert.deepEqual(spawned, [1, 2]);
    workers.requestLimitReached(1);
    workers.served(1, 120);
    workers.ended(2, 3, null, false);
    const later = performance.now() + 1000; // another attempt waits for a moment
    const clock = mock.method(performance, 'now', () => later);
    mock.timers.tick(1000);
    clock.mock.restore();
    assert.deepEqual(spawned, [1, 2, 3]);
  });
});

test('a worker none of whose threads serves any more does not wait for its replacement', () => {
  const told: string[] = [];
  const process: WorkerProcess = { ...PROCESS, drain: () => told.push('drain'), leave: () => told.push('leave') };
  withWorkers(
    OPTIONS,
    ({ workers, spawned }) => {
      workers.ready(1);
      workers.timedOut(1, true);
      assert.deepEqual([spawned, told], [[1, 2], []]);
      workers.timedOut(1, false);
      workers.drained(1);
      assert.deepEqual(
        [spawned, told],
        [
          [1, 2],
          ['drain', 'leave'],
        ],
      );
    },
    process,
  );
});

test('where the replacement of a worker that leaves does not boot, the next one waits', () => {
  withWorkers(OPTIONS, ({ workers, spawned }) => {
    workers.ready(1);
    workers.timedOut(1, false);
    workers.ended(2, 3, null, false);
    assert.deepEqual(spawned, [1, 2]);
    workers.ended(1, 0, null, true);
    mock.timers.tick(249);
    assert.deepEqual(spawned, [1, 2]);
    mock.timers.tick(1);
    assert.deepEqual(spawned, [1, 2, 3]);
  });
});

test('a reload has failed where the replacement of a worker does not boot that was to be replaced already', () => {
  withWorkers(OPTIONS, ({ workers, spawned, outcomes }) => {
    workers.ready(1);
    workers.timedOut(1, true);
    workers.reload(OPTIONS);
    workers.ended(2, 0, null, false);
    assert.deepEqual(spawned, [1, 2, 3]);
    workers.ended(3, 3, null, false);
    assert.deepEqual(outcomes, ['all ready', 'failed']);
    const later = performance.now() + 1000;
    const clock = mock.method(performance, 'now', () => later);
    mock.timers.tick(1000);
    clock.mock.restore();
    assert.deepEqual(spawned, [1, 2, 3, 4], 'it is still to be replaced');
  });
});

test('a worker that is asked to leave while it boots is replaced when it is ready', () => {
  withWorkers(OPTIONS, ({ workers, spawned }) => {
    workers.askedToLeave(1, 'sent SIGTERM');
    const later = performance.now() + 200;
    const clock = mock.method(performance, 'now', () => later);
    mock.timers.tick(200);
    clock.mock.restore();
    assert.deepEqual(spawned, [1]);
    workers.ready(1);
    assert.deepEqual(spawned, [1, 2]);
    workers.ready(2);
    assert.deepEqual(spawned, [1, 2], 'once');
  });
});

test('a worker whose app fails before it has served anything is replaced after a while', () => {
  withWorkers(OPTIONS, ({ workers, spawned }) => {
    workers.ready(1);
    workers.appFailed(1, 1);
    assert.deepEqual(spawned, [1, 2], 'it had served: at once');
    workers.ready(2);
    workers.appFailed(2, 0);
    assert.deepEqual(spawned, [1, 2], 'it has not');
    workers.ended(2, 0, null, false);
    mock.timers.tick(0);
    assert.deepEqual(spawned, [1, 2], 'nor when it is gone');
    mock.timers.tick(250);
    assert.deepEqual(spawned, [1, 2, 3]);
  });
});

test('a worker that is ready while its stacks are written for a boot that takes too long stays', () => {
  const killed: string[] = [];
  let written: (stacks: string) => void = nothing;
  const process: WorkerProcess = {
    ...PROCESS,
    pid: 7,
    stacks: (_, done) => {
      written = done;
    },
    kill: () => killed.push('kill'),
  };
  withWorkers(
    { ...OPTIONS, bootTimeoutMs: 500 },
    ({ workers }) => {
      const later = performance.now() + 1000;
      const clock = mock.method(performance, 'now', () => later);
      mock.timers.tick(1000);
      clock.mock.restore();
      workers.ready(1);
      written('');
      assert.deepEqual(killed, []);
    },
    process,
  );
});

test('a worker that was ready when it was not wanted any more takes no seat', () => {
  let drained = 0;
  const process: WorkerProcess = { ...PROCESS, drain: () => drained++ };
  withWorkers(
    OPTIONS,
    ({ workers }) => {
      workers.ready(1);
      workers.reload(OPTIONS);
      workers.reload(OPTIONS); // the replacement of the first reload is ended
      workers.ready(2);
      assert.equal(drained, 0, 'the one that serves stays until the next replacement is ready');
    },
    process,
  );
});

test('a worker that is not ready and not wanted any more is killed, one that may have clients drains first', () => {
  for (const accepts of [false, true]) {
    const told: string[] = [];
    const process: WorkerProcess = {
      ...PROCESS,
      accepts,
      drain: () => told.push('drain'),
      leave: () => told.push('leave'),
      kill: () => told.push('kill'),
    };
    withWorkers(
      OPTIONS,
      ({ workers, spawned }) => {
        workers.reload(OPTIONS);
        mock.timers.tick(0);
        if (accepts) {
          assert.deepEqual(spawned, [1, 2], 'the next one need not wait');
          workers.ready(1); // too late
          workers.drained(1);
        }
        assert.deepEqual(told, accepts ? ['drain', 'leave'] : ['kill']);
        workers.ended(1, 0, null, false);
        mock.timers.tick(0);
        assert.deepEqual(spawned, [1, 2]);
        workers.ready(2);
        assert.deepEqual(
          workers.views().map(({ serial, state }) => [serial, state]),
          [[2, 'ready']],
        );
      },
      process,
    );
  }
});
