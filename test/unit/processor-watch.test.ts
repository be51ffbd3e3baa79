// The real /proc of this machine, with a dispatcher whose only slot is busy.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Dispatched, Dispatcher } from '../../src/dispatch/dispatcher.ts';
import { ProcessorWatch } from '../../src/front/processor-watch.ts';
import { affinity } from '../../src/machine.ts';

class Request implements Dispatched {
  readonly id = 1;
  slot = null;
  queuePrevious = null;
  queueNext = null;
  queued = false;
}

/** The limits that the dispatcher was given, and a watch that has one of 1, as if the processors had been full. */
function setUp(numbers: readonly number[]) {
  const limits: number[] = [];
  const dispatcher = new Dispatcher<Request>({ maxQueue: 1, send: () => {} });
  const limitYoung = dispatcher.limitYoung.bind(dispatcher);
  dispatcher.limitYoung = (limit, now) => {
    limits.push(limit);
    limitYoung(limit, now);
  };
  dispatcher.addWorker(1, 1);
  dispatcher.arrive(new Request(), 0);
  const watch = new ProcessorWatch({ numbers, queues: 1 });
  const { concurrency } = watch as unknown as { concurrency: { limit: number } };
  concurrency.limit = 1;
  return { dispatcher, watch, limits };
}

test('where a processor cannot be looked at any more, a limit is lifted', () => {
  const { dispatcher, watch, limits } = setUp([4095]);
  watch.check(dispatcher, [], 0);
  assert.deepEqual(limits, [Number.POSITIVE_INFINITY]);
});

test('a process that is gone, or new, is left out', { skip: process.platform !== 'linux' }, () => {
  const { dispatcher, watch, limits } = setUp(affinity() ?? []);
  watch.check(dispatcher, [2 ** 30], 0);
  watch.check(dispatcher, [2 ** 30, process.ppid], 1_000_000_000);
  assert.equal(limits.at(-1), Number.POSITIVE_INFINITY, 'little use of a long time is not full');
});

test('where no more run than the lowest limit lets, nothing is read', () => {
  const { dispatcher, watch, limits } = setUp([4094, 4095]);
  const { concurrency } = watch as unknown as { concurrency: { limit: number } };
  concurrency.limit = Number.POSITIVE_INFINITY;
  dispatcher.addWorker(2, 2);
  watch.check(dispatcher, [], 0);
  dispatcher.arrive(new Request(), 0);
  watch.check(dispatcher, [], 100);
  assert.equal(limits.length, 0, 'two run on two processors');
  dispatcher.arrive(new Request(), 100);
  watch.check(dispatcher, [], 200);
  assert.equal(limits.length, 1);
});
