import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Dispatched, Dispatcher, type Slot } from '../../src/dispatch/dispatcher.ts';
import { STALL_MS, StallWatch } from '../../src/dispatch/stall-watch.ts';

class Request implements Dispatched {
  readonly id: number;
  slot: Slot<this> | null = null;
  queuePrevious: this | null = null;
  queueNext: this | null = null;
  queued = false;
  constructor(id: number) {
    this.id = id;
  }
}

function setUp(): { dispatcher: Dispatcher<Request>; sent: number[]; watch: StallWatch } {
  const sent: number[] = [];
  const dispatcher = new Dispatcher<Request>({ maxQueue: 10, send: (_, request) => sent.push(request.id) });
  return { dispatcher, sent, watch: new StallWatch() };
}

test('requests that wait for busy threads are no stall', () => {
  const { dispatcher, watch } = setUp();
  dispatcher.addWorker(1, 1);
  for (let id = 1; id <= 3; id++) dispatcher.arrive(new Request(id), 0);
  for (let now = 0; now < 100_000; now += 100) assert.equal(watch.check(dispatcher, now), null);
});

test('an idle slot that was forgotten: told after a second, and its requests run', () => {
  const { dispatcher, sent, watch } = setUp();
  const worker = dispatcher.addWorker(7, 2);
  worker.idle.length = 0; // the defect
  dispatcher.arrive(new Request(1), 0);
  dispatcher.arrive(new Request(2), 0);
  assert.deepEqual(sent, []);
  assert.equal(watch.check(dispatcher, 100), null);
  assert.equal(watch.check(dispatcher, 100 + STALL_MS - 1), null);
  const report = watch.check(dispatcher, 100 + STALL_MS);
  assert.match(report ?? '', /worker 7, slot 0: idle but not listed/);
  assert.match(report ?? '', /2 waiting\nworker 7: accepting, 0 outstanding, 0 idle/);
  assert.deepEqual(sent, [1, 2]);
  assert.deepEqual(dispatcher.violations(0), []);
  assert.equal(watch.check(dispatcher, 100_000), null);
});

test('a miscount that hides a worker is mended', () => {
  const { dispatcher, sent, watch } = setUp();
  const worker = dispatcher.addWorker(1, 1);
  worker.outstanding = Number.POSITIVE_INFINITY; // the defect
  dispatcher.arrive(new Request(1), 0);
  watch.check(dispatcher, 0);
  assert.match(watch.check(dispatcher, STALL_MS) ?? '', /idle slot, 1 wait/);
  assert.deepEqual(sent, [1]);
  assert.equal(worker.outstanding, 1);
});

test('a stall that ends by itself is forgotten', () => {
  const { dispatcher, watch } = setUp();
  const worker = dispatcher.addWorker(1, 1);
  const slots = worker.idle.splice(0);
  dispatcher.arrive(new Request(1), 0);
  watch.check(dispatcher, 0);
  worker.idle.push(...slots);
  dispatcher.dispatch(500);
  assert.equal(watch.check(dispatcher, 500), null);
  assert.equal(watch.check(dispatcher, STALL_MS + 1), null);
});
