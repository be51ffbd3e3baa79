// The dispatcher alone: examples of its rules, then a model of front and workers under random events.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Dispatched, Dispatcher, type DispatchWorker, isHeld, type Slot } from '../../src/dispatch/dispatcher.ts';

class Request implements Dispatched {
  readonly id: number;
  slot: Slot<this> | null = null;
  queuePrevious: this | null = null;
  queueNext: this | null = null;
  queued = false;
  // What the tests note.
  sends = 0;
  begun = false;
  outcome: 'none' | 'answered' | 'failed' | 'refused' | 'cancelled' = 'none';
  clientLeft = false;
  constructor(id: number) {
    this.id = id;
  }
}

type Sent = readonly [serial: number, slot: number, id: number];

/** A dispatcher, what it has sent, and requests numbered from 1. */
function setUp(maxQueue = 100, gather = false) {
  const sent: Sent[] = [];
  const dispatcher = new Dispatcher<Request>({
    maxQueue,
    gather,
    send: (slot, request) => sent.push([slot.worker.serial, slot.number, request.id]),
  });
  let lastId = 0;
  return {
    dispatcher,
    /** What has been sent since the last call. */
    sent: () => sent.splice(0),
    arrive: (count = 1, now = 0) =>
      Array.from({ length: count }, () => {
        const request = new Request(++lastId);
        if (!dispatcher.arrive(request, now)) request.outcome = 'refused';
        return request;
      }),
  };
}

/** Has a worker's app look as if each request took `appUs`. */
function observe(worker: DispatchWorker<Request>, appUs: number): void {
  for (let seen = 0; seen < 100; seen++) worker.lookAhead.observe(appUs);
}

const yes = (): boolean => true;
const no = (): boolean => false;

function slotOf(worker: DispatchWorker<Request>, number: number): Slot<Request> {
  const slot = worker.slots[number];
  assert.ok(slot);
  return slot;
}

test('a request goes to the worker with the fewest, then waits', () => {
  const { dispatcher, sent, arrive } = setUp();
  dispatcher.addWorker(1, 2);
  dispatcher.addWorker(2, 2);
  arrive(5);
  assert.deepEqual(
    sent().map(([serial, , id]) => [serial, id]),
    [
      [1, 1],
      [2, 2],
      [1, 3],
      [2, 4],
    ],
  );
  assert.equal(dispatcher.queueLength, 1);
  assert.equal(dispatcher.oldestQueued?.id, 5);
});

test('gathering, a fast app gets all on one worker as long as there is room, a slow one on idle workers', () => {
  const { dispatcher, sent, arrive } = setUp(100, true);
  const fast = dispatcher.addWorker(1, 1);
  dispatcher.addWorker(2, 1);
  observe(fast, 100); // room for 10
  arrive(11);
  assert.deepEqual(
    sent().map(([serial]) => serial),
    [...Array(10).fill(1), 2],
  );
  const slow = setUp(100, true);
  for (const serial of [1, 2]) observe(slow.dispatcher.addWorker(serial, 1), 2000);
  slow.arrive(3);
  assert.deepEqual(
    slow.sent().map(([serial]) => serial),
    [1, 2],
  );
});

test('the queue is served in the order of arrival', () => {
  const { dispatcher, sent, arrive } = setUp();
  const worker = dispatcher.addWorker(1, 1);
  arrive(4);
  for (let count = 0; count < 4; count++) dispatcher.answered(slotOf(worker, 0), 5000, count);
  assert.deepEqual(sent(), [
    [1, 0, 1],
    [1, 0, 2],
    [1, 0, 3],
    [1, 0, 4],
  ]);
});

test('the queue holds as many as it may, and one is refused', () => {
  const { dispatcher, arrive } = setUp(2);
  dispatcher.addWorker(1, 1);
  assert.deepEqual(
    arrive(4).map((request) => request.outcome),
    ['none', 'none', 'none', 'refused'],
  );
  assert.equal(dispatcher.queueLength, 2);
});

test('without a queue a request runs or is refused', () => {
  const { dispatcher, arrive } = setUp(0);
  dispatcher.addWorker(1, 1);
  assert.deepEqual(
    arrive(2).map((request) => request.outcome),
    ['none', 'refused'],
  );
});

test('what waits begins when a worker comes', () => {
  const { dispatcher, sent, arrive } = setUp();
  arrive(2);
  dispatcher.addWorker(1, 1);
  assert.deepEqual(sent(), []);
  dispatcher.dispatch(0);
  assert.deepEqual(sent(), [[1, 0, 1]]);
});

test('a cancelled request leaves the queue, wherever it stands', () => {
  for (const leaving of [0, 1, 2]) {
    const { dispatcher, sent, arrive } = setUp();
    const worker = dispatcher.addWorker(1, 1);
    const [running, ...waiting] = arrive(4);
    const left = waiting[leaving];
    assert.ok(running && left);
    assert.equal(dispatcher.cancel(left, 0), true);
    assert.equal(dispatcher.cancel(left, 0), false, 'once');
    assert.equal(dispatcher.cancel(running, 0), false, 'it runs');
    assert.equal(dispatcher.queueLength, 2);
    for (let count = 0; count < 3; count++) dispatcher.answered(slotOf(worker, 0), 5000, 0);
    assert.deepEqual(
      sent().map(([, , id]) => id),
      [1, 2, 3, 4].filter((id) => id !== left.id),
    );
  }
});

test('an app of 2 ms gets nothing ahead, a fast one up to a millisecond of work', () => {
  for (const [appUs, held] of [
    [2000, 1],
    [250, 4],
    [1, 32],
  ] as const) {
    const { dispatcher, sent, arrive } = setUp();
    observe(dispatcher.addWorker(1, 1), appUs);
    arrive(50);
    assert.equal(sent().length, held);
  }
});

test('a fast app gets its requests in one thread, while that has room', () => {
  const { dispatcher, sent, arrive } = setUp();
  observe(dispatcher.addWorker(1, 2), 500);
  arrive(5);
  const slots = sent().map(([, slot]) => slot);
  assert.equal(slots[0], slots[1]);
  assert.equal(slots[2], slots[3]);
  assert.notEqual(slots[1], slots[2]);
  assert.equal(slots.length, 4);
});

test('a request sent ahead is overdue when what runs before it takes long', () => {
  const { dispatcher, arrive } = setUp();
  const worker = dispatcher.addWorker(1, 1);
  observe(worker, 100);
  arrive(2, 1000);
  assert.deepEqual(dispatcher.overdueAhead(5, 1005), []);
  assert.deepEqual(dispatcher.overdueAhead(5, 1006), [slotOf(worker, 0)]);
  dispatcher.answered(slotOf(worker, 0), 100, 1006);
  assert.deepEqual(dispatcher.overdueAhead(5, 1020), [], 'nothing is behind it');
});

test('what is taken back goes before what waits, and runs elsewhere', () => {
  const { dispatcher, sent, arrive } = setUp();
  const fast = dispatcher.addWorker(1, 1);
  observe(fast, 250);
  arrive(6);
  assert.equal(dispatcher.queueLength, 2);
  sent();
  dispatcher.takeBack(slotOf(fast, 0));
  assert.deepEqual(dispatcher.overdueAhead(0, 1000), [], 'asked once');
  dispatcher.takenBack(slotOf(fast, 0), new Set([3, 4]), 0);
  assert.deepEqual(sent(), []);
  dispatcher.addWorker(2, 1);
  const other = dispatcher.addWorker(3, 3);
  dispatcher.dispatch(0);
  assert.deepEqual(
    sent().map(([, , id]) => id),
    [3, 4, 5, 6],
  );
  assert.equal(other.outstanding, 3);
  assert.deepEqual(
    slotOf(fast, 0).requests.map(({ id }) => id),
    [1, 2],
  );
});

test('taking back sets look-ahead to none', () => {
  const { dispatcher, arrive } = setUp();
  const worker = dispatcher.addWorker(1, 1);
  observe(worker, 100);
  arrive(2);
  dispatcher.takeBack(slotOf(worker, 0));
  assert.equal(worker.lookAhead.limit, 1);
});

test('a slot that is asked to give back gets nothing before it has answered', () => {
  const { dispatcher, sent, arrive } = setUp();
  const worker = dispatcher.addWorker(1, 1);
  observe(worker, 250);
  arrive(2);
  sent();
  dispatcher.takeBack(slotOf(worker, 0));
  dispatcher.answered(slotOf(worker, 0), 100, 0);
  dispatcher.answered(slotOf(worker, 0), 100, 0);
  arrive();
  assert.deepEqual(sent(), []);
  dispatcher.takenBack(slotOf(worker, 0), new Set(), 0);
  assert.deepEqual(sent(), [[1, 0, 3]]);
});

test('a worker that drains gets nothing more and keeps what it has', () => {
  const { dispatcher, sent, arrive } = setUp();
  const worker = dispatcher.addWorker(1, 2);
  arrive();
  dispatcher.drain(worker);
  sent();
  arrive(2);
  const slot = worker.slots.find(({ requests }) => requests.length > 0);
  assert.ok(slot);
  dispatcher.answered(slot, 100, 0);
  assert.deepEqual(sent(), []);
  assert.equal(dispatcher.queueLength, 2);
});

test('what a dead worker had begun fails, the rest runs elsewhere before what waits', () => {
  const { dispatcher, sent, arrive } = setUp();
  const dead = dispatcher.addWorker(1, 1);
  observe(dead, 250);
  const requests = arrive(5);
  sent();
  dispatcher.addWorker(2, 4);
  const failed = dispatcher.removeWorker(dead, (request) => request.id === 1, 0);
  assert.deepEqual(failed, [requests[0]]);
  assert.deepEqual(
    sent().map(([, , id]) => id),
    [2, 3, 4, 5],
  );
  assert.equal(requests[0]?.slot, null);
  assert.equal(dispatcher.workers.length, 1);
});

test('a thread whose connection broke gets nothing before it stands again', () => {
  const { dispatcher, sent, arrive } = setUp();
  const worker = dispatcher.addWorker(1, 1);
  const [request] = arrive();
  sent();
  assert.deepEqual(dispatcher.loseSlot(slotOf(worker, 0), yes, 0), [request]);
  arrive();
  assert.deepEqual(sent(), []);
  dispatcher.restoreSlot(slotOf(worker, 0), 0);
  assert.deepEqual(sent(), [[1, 0, 2]]);
});

test('a thread that is retired gets nothing more, whatever becomes of what it runs', () => {
  for (const how of ['answered', 'connection lost', 'taken back'] as const) {
    const { dispatcher, sent, arrive } = setUp();
    const worker = dispatcher.addWorker(1, 1);
    arrive();
    sent();
    const slot = slotOf(worker, 0);
    dispatcher.retire(slot);
    if (how === 'answered') dispatcher.answered(slot, 5000, 0);
    else if (how === 'connection lost') {
      dispatcher.loseSlot(slot, yes, 0);
      dispatcher.restoreSlot(slot, 0);
    } else {
      dispatcher.takeBack(slot);
      dispatcher.takenBack(slot, new Set([1]), 0);
    }
    arrive();
    assert.deepEqual(sent(), [], how);
    assert.deepEqual(dispatcher.violations(0), [], how);
    dispatcher.addWorker(2, 2);
    dispatcher.dispatch(0);
    assert.ok(sent().length > 0, how);
  }
});

test('what was sent ahead to a thread that is retired is taken back, once', () => {
  const { dispatcher, sent, arrive } = setUp();
  const worker = dispatcher.addWorker(1, 1);
  const slot = slotOf(worker, 0);
  observe(worker, 250); // room for 4
  arrive(3);
  assert.equal(sent().length, 3);
  assert.equal(dispatcher.retire(slot), true);
  dispatcher.takeBack(slot);
  assert.equal(dispatcher.retire(slot), false);
  dispatcher.takenBack(slot, new Set([2, 3]), 0);
  assert.deepEqual(sent(), []);
  dispatcher.addWorker(2, 2);
  dispatcher.dispatch(0);
  assert.deepEqual(
    sent().map(([serial, , id]) => [serial, id]),
    [
      [2, 2],
      [2, 3],
    ],
  );
});

test('an idle thread whose connection broke comes back once', () => {
  const { dispatcher, arrive } = setUp();
  const worker = dispatcher.addWorker(1, 2);
  for (let round = 0; round < 3; round++) {
    assert.deepEqual(dispatcher.loseSlot(slotOf(worker, 0), no, 0), []);
    dispatcher.restoreSlot(slotOf(worker, 0), 0);
  }
  arrive(3);
  assert.equal(worker.outstanding, 2);
  assert.deepEqual(dispatcher.violations(0), []);
});

test('a thread that loses its connection while it gives back waits for both', () => {
  const { dispatcher, sent, arrive } = setUp();
  const worker = dispatcher.addWorker(1, 1);
  observe(worker, 250);
  arrive(2);
  sent();
  const slot = slotOf(worker, 0);
  dispatcher.takeBack(slot);
  dispatcher.loseSlot(slot, (request) => request.id === 1, 0);
  dispatcher.takenBack(slot, new Set([2]), 0);
  assert.deepEqual(sent(), [], 'there is no connection');
  dispatcher.restoreSlot(slot, 0);
  assert.deepEqual(sent(), [[1, 0, 2]]);

  const again = setUp();
  const other = again.dispatcher.addWorker(1, 1);
  observe(other, 250);
  again.arrive(2);
  again.sent();
  again.dispatcher.takeBack(slotOf(other, 0));
  again.dispatcher.loseSlot(slotOf(other, 0), (request) => request.id === 1, 0);
  again.dispatcher.restoreSlot(slotOf(other, 0), 0);
  assert.deepEqual(again.sent(), [], 'the ids that are still to come are of the connection before');
  again.dispatcher.takenBack(slotOf(other, 0), new Set([2]), 0);
  assert.deepEqual(again.sent(), [[1, 0, 2]]);
});

test('what was sent ahead is not run elsewhere once its client has left', () => {
  for (const how of ['taken back', 'connection lost', 'worker dead'] as const) {
    const { dispatcher, sent, arrive } = setUp();
    const worker = dispatcher.addWorker(1, 1);
    observe(worker, 250);
    const [, left] = arrive(3);
    assert.ok(left);
    assert.equal(dispatcher.cancel(left, 0), false);
    dispatcher.addWorker(2, 3);
    sent();
    const slot = slotOf(worker, 0);
    if (how === 'taken back') {
      dispatcher.takeBack(slot);
      dispatcher.takenBack(slot, new Set([2, 3]), 0);
    } else if (how === 'connection lost') dispatcher.loseSlot(slot, ({ id }) => id === 1, 0);
    else dispatcher.removeWorker(worker, ({ id }) => id === 1, 0);
    assert.deepEqual(
      sent().map(([, , id]) => id),
      [3],
      how,
    );
    assert.deepEqual(dispatcher.violations(0), []);
  }
});

test('while few may be young, idle slots are kept in reserve', () => {
  let told = 0;
  const sent: number[] = [];
  const dispatcher = new Dispatcher<Request>({
    maxQueue: 100,
    send: (_, { id }) => sent.push(id),
    reserving: () => told++,
  });
  const worker = dispatcher.addWorker(1, 4);
  dispatcher.limitYoung(1, 0);
  for (let id = 1; id <= 5; id++) dispatcher.arrive(new Request(id), 0);
  assert.deepEqual([sent.splice(0), told, dispatcher.isReserving], [[1], 1, true], 'the others wait');
  dispatcher.dispatch(19);
  assert.deepEqual(sent, []);
  dispatcher.dispatch(20);
  assert.deepEqual(sent.splice(0), [2, 3], 'the first is no longer young, and makes room for one more beside its own');
  const slot = worker.slots.find(({ requests }) => requests[0]?.id === 2);
  assert.ok(slot);
  dispatcher.answered(slot, 1000, 25);
  assert.deepEqual(sent.splice(0), [4]);
  assert.deepEqual(dispatcher.reservedMs(30), { any: 30, summed: 20 * 3 + 10 * 1 });
  dispatcher.limitYoung(Number.POSITIVE_INFINITY, 30);
  assert.deepEqual([sent, dispatcher.isReserving], [[5], false]);
  assert.deepEqual(dispatcher.reservedMs(50), { any: 30, summed: 70 });
});

test('a slot in reserve takes a request that would be refused', () => {
  for (const maxQueue of [0, 1]) {
    const { dispatcher, sent, arrive } = setUp(maxQueue);
    dispatcher.addWorker(1, 2);
    dispatcher.limitYoung(1, 0);
    const outcomes = arrive(3 + maxQueue).map(({ outcome }) => outcome);
    assert.deepEqual(outcomes, [...Array(2 + maxQueue).fill('none'), 'refused']);
    assert.deepEqual(
      sent().map(([, , id]) => id),
      [1, 2],
      'the one that waited longest',
    );
  }
});

test('while few may be young, a fast app still gets its requests ahead', () => {
  const { dispatcher, sent, arrive } = setUp();
  for (const serial of [1, 2]) observe(dispatcher.addWorker(serial, 2), 250);
  dispatcher.limitYoung(1, 0);
  arrive(6);
  const places = sent().map(([serial, slot]) => `${serial} ${slot}`);
  assert.deepEqual([places.length, new Set(places).size], [4, 1]);
});

test('requests that leave the queue end the reserve', () => {
  const { dispatcher, arrive } = setUp();
  dispatcher.addWorker(1, 2);
  dispatcher.limitYoung(1, 0);
  const [, waiting] = arrive(2);
  assert.ok(waiting);
  dispatcher.cancel(waiting, 5);
  assert.equal(dispatcher.isReserving, false);
  assert.deepEqual(dispatcher.reservedMs(10), { any: 5, summed: 5 });
});

test('running() names the first request of each busy slot', () => {
  const { dispatcher, arrive } = setUp();
  const worker = dispatcher.addWorker(1, 3);
  observe(worker, 500);
  arrive(3);
  assert.deepEqual(Array.from(dispatcher.running(), ({ request }) => request.id).sort(), [1, 3]);
});

test('violations() sees an idle slot beside a queue, a miscount and a wrong list', () => {
  const { dispatcher, arrive } = setUp();
  arrive();
  const worker = dispatcher.addWorker(1, 1);
  assert.match(dispatcher.violations(0).join(), /idle slot, 1 wait/);
  dispatcher.dispatch(0);
  assert.deepEqual(dispatcher.violations(0), []);
  worker.outstanding++;
  assert.match(dispatcher.violations(0).join(), /miscounted/);
  worker.outstanding--;
  worker.idle.push(slotOf(worker, 0));
  assert.match(dispatcher.violations(0).join(), /busy but listed idle/);
  worker.idle.pop();
  slotOf(worker, 0).requests.length = 0;
  assert.match(dispatcher.violations(0).join(), /idle but not listed/);
});

// ---- the model

/** What a worker knows of one of its threads. */
interface Thread {
  readonly slot: Slot<Request>;
  connected: boolean;
  /** Sent to it and not begun. */
  ahead: Request[];
  running: Request | null;
  /** Run, with the answer still on its way. */
  answers: { readonly request: Request; readonly appUs: number }[];
  /** The front has asked for what is ahead. */
  asked: boolean;
  /** What it gave back, on its way to the front. */
  taken: ReadonlySet<number> | null;
}

interface Process {
  readonly worker: DispatchWorker<Request>;
  readonly threads: readonly Thread[];
  alive: boolean;
}

/** How often each event did something, to know that the model goes everywhere. */
const happened = new Map<string, number>();
function note(event: string): void {
  happened.set(event, (happened.get(event) ?? 0) + 1);
}

class World {
  readonly maxQueue: number;
  readonly dispatcher: Dispatcher<Request>;
  readonly requests: Request[] = [];
  readonly processes: Process[] = [];
  now = 0;
  lastFirstSent = 0;
  /** How many may be young. */
  limit = Number.POSITIVE_INFINITY;

  constructor(maxQueue: number) {
    this.maxQueue = maxQueue;
    this.dispatcher = new Dispatcher<Request>({ maxQueue, send: (slot, request) => this.sent(slot, request) });
    this.addWorker(2);
  }

  get living(): Process[] {
    return this.processes.filter(({ alive }) => alive);
  }

  get threads(): Thread[] {
    return this.living.flatMap(({ threads }) => threads);
  }

  private sent(slot: Slot<Request>, request: Request): void {
    const process = this.processes.find(({ worker }) => worker === slot.worker);
    const thread = process?.threads[slot.number];
    assert.ok(process && thread, 'sent to a worker that is known');
    assert.ok(process.alive, 'sent to a living worker');
    assert.ok(slot.worker.accepting, 'sent to a worker that accepts');
    assert.ok(thread.connected, `request ${request.id} sent into a broken connection`);
    assert.ok(!thread.asked && thread.taken === null, `request ${request.id} sent where things are being taken back`);
    assert.ok(!request.begun, `request ${request.id} sent after it had begun`);
    assert.ok(!request.clientLeft, `request ${request.id} sent though its client left`);
    assert.equal(request.outcome, 'none');
    assert.equal(request.slot, slot);
    assert.ok(slot.requests.length <= slot.worker.lookAhead.limit, 'sent too far ahead');
    note(slot.requests.length > 1 ? 'sent ahead' : 'sent');
    if (request.sends > 0) note('sent again');
    if (request.sends === 0) {
      assert.ok(request.id > this.lastFirstSent, `request ${request.id} before ${this.lastFirstSent}`);
      this.lastFirstSent = request.id;
    }
    request.sends++;
    thread.ahead.push(request);
  }

  arrive(): void {
    const request = new Request(this.requests.length + 1);
    this.requests.push(request);
    const waited = this.dispatcher.queueLength;
    const accepted = this.dispatcher.arrive(request, this.now);
    if (!accepted) {
      request.outcome = 'refused';
      note('refused');
      assert.ok(waited >= this.maxQueue, 'refused though there was room');
      const idle = this.living.some(({ worker }) => worker.accepting && worker.idle.length > 0);
      assert.ok(!idle, 'refused beside an idle slot');
      assert.equal(request.sends, 0);
    } else if (request.queued)
      assert.ok(this.dispatcher.queueLength <= this.maxQueue, 'queued though the queue was full');
  }

  addWorker(threads: number): void {
    const worker = this.dispatcher.addWorker(this.processes.length + 1, threads);
    this.processes.push({
      worker,
      alive: true,
      threads: worker.slots.map((slot) => ({
        slot,
        connected: true,
        ahead: [],
        running: null,
        answers: [],
        asked: false,
        taken: null,
      })),
    });
    this.dispatcher.dispatch(this.now);
  }

  limitYoung(limit: number): void {
    this.limit = limit;
    this.dispatcher.limitYoung(limit, this.now);
  }

  /** As a front does it every few milliseconds. */
  turn(): void {
    if (!this.dispatcher.isReserving) return;
    note('reserved');
    this.dispatcher.dispatch(this.now);
  }

  /** No more may be young now, by the rule's own words. */
  get isFull(): boolean {
    const ages = this.threads.flatMap(({ slot }) => (slot.requests.length > 0 ? [this.now - slot.runningSince] : []));
    const young = ages.filter((age) => age < 20).length;
    return young >= this.limit + (ages.length - young);
  }

  begin(thread: Thread): void {
    if (thread.running !== null) return;
    const request = thread.ahead.shift();
    if (request === undefined) return;
    assert.ok(!request.begun, `request ${request.id} run twice`);
    request.begun = true;
    thread.running = request;
  }

  finish(thread: Thread, appUs: number): void {
    const request = thread.running;
    if (request === null) return;
    thread.running = null;
    thread.answers.push({ request, appUs });
  }

  deliver(thread: Thread): void {
    const answer = thread.answers.shift();
    if (answer === undefined) return;
    const { request, appUs } = answer;
    // An answer behind what was taken back is heard after that.
    if (thread.slot.requests[0] !== request) this.hearTaken(thread);
    assert.equal(thread.slot.requests[0], request, 'the answer is of the first request of its slot');
    this.settle(request, 'answered');
    this.dispatcher.answered(thread.slot, appUs, this.now);
    assert.equal(request.slot, null);
    if (appUs > 500) assert.equal(thread.slot.worker.lookAhead.limit, 1, 'look-ahead after a slow request');
  }

  /** A client leaves. */
  leave(request: Request): void {
    if (request.outcome !== 'none' || request.clientLeft) return;
    const { queued } = request;
    assert.equal(this.dispatcher.cancel(request, this.now), queued);
    request.clientLeft = true;
    if (queued) this.settle(request, 'cancelled');
    note(queued ? 'left the queue' : request.begun ? 'left while it ran' : 'left while it was ahead');
  }

  ask(thread: Thread): void {
    if (isHeld(thread.slot) || thread.slot.requests.length < 2) return;
    this.dispatcher.takeBack(thread.slot);
    assert.equal(thread.slot.worker.lookAhead.limit, 1);
    thread.asked = true;
    note('asked to give back');
  }

  /** The worker gives back any of what has not begun. */
  giveBack(thread: Thread, choice: number): void {
    if (!thread.asked) return;
    thread.asked = false;
    const kept = thread.ahead.filter((_, at) => (choice >> at) % 2 === 1);
    thread.taken = new Set(thread.ahead.filter((request) => !kept.includes(request)).map(({ id }) => id));
    thread.ahead = kept;
    if (kept.length > 0 && thread.taken.size > 0) note('gave back a part');
  }

  hearTaken(thread: Thread): void {
    const { taken } = thread;
    if (taken === null) return;
    thread.taken = null;
    note(thread.connected ? 'taken back' : 'taken back from a lost connection');
    this.dispatcher.takenBack(thread.slot, taken, this.now);
  }

  lose(thread: Thread): void {
    if (!thread.connected) return;
    thread.connected = false;
    note(thread.asked || thread.taken !== null ? 'lost while taking back' : 'lost');
    this.fail(
      this.dispatcher.loseSlot(thread.slot, (request) => request.begun, this.now),
      [thread],
    );
    thread.ahead = [];
    thread.running = null;
    thread.answers = [];
  }

  restore(thread: Thread): void {
    if (thread.connected) return;
    thread.connected = true;
    note(thread.asked || thread.taken !== null ? 'restored while taking back' : 'restored');
    this.dispatcher.restoreSlot(thread.slot, this.now);
  }

  /** All threads that have something ahead are asked for it, as a front does. */
  drain(process: Process): void {
    if (process.worker.accepting && process.worker.outstanding > 0) note('drained');
    this.dispatcher.drain(process.worker);
    for (const thread of process.threads) this.ask(thread);
  }

  kill(process: Process, heard: number): void {
    // Some of the answers on their way are still read.
    this.dispatcher.drain(process.worker);
    for (const thread of process.threads) {
      for (let left = heard; left > 0 && thread.connected; left--) this.deliver(thread);
    }
    process.alive = false;
    this.fail(
      this.dispatcher.removeWorker(process.worker, (request) => request.begun, this.now),
      process.threads,
    );
  }

  private fail(failed: readonly Request[], threads: readonly Thread[]): void {
    const begun = threads.flatMap(({ running, answers }) => [
      ...(running ? [running] : []),
      ...answers.map((a) => a.request),
    ]);
    assert.deepEqual(new Set(failed), new Set(begun), 'what had begun fails, and nothing else');
    for (const request of failed) {
      note('failed');
      this.settle(request, 'failed');
    }
  }

  private settle(request: Request, outcome: Request['outcome']): void {
    assert.equal(request.outcome, 'none', `request ${request.id} has two outcomes`);
    request.outcome = outcome;
  }

  /** What holds after each event. */
  check(): void {
    const { dispatcher } = this;
    assert.deepEqual(dispatcher.violations(this.now), []);
    const queued: Request[] = [];
    let previous: Request | null = null;
    for (let request = dispatcher.oldestQueued; request !== null; request = request.queueNext) {
      assert.equal(request.queuePrevious, previous);
      assert.ok(request.queued && request.slot === null);
      queued.push(request);
      previous = request;
    }
    assert.equal(dispatcher.queueLength, queued.length);
    const fresh = queued.filter(({ sends }) => sends === 0);
    assert.ok(fresh.length <= this.maxQueue, 'more wait than may');
    assert.deepEqual(
      fresh.map(({ id }) => id),
      fresh.map(({ id }) => id).sort((a, b) => a - b),
      'first come, first in the queue',
    );
    const held: Request[] = [];
    for (const { worker, threads, alive } of this.processes) {
      for (const { slot, ahead, running, answers, connected, asked, taken } of threads) {
        if (!alive) {
          assert.equal(slot.requests.length, 0);
          continue;
        }
        held.push(...slot.requests);
        assert.equal(isHeld(slot), !connected || asked || taken !== null);
        const there = [...answers.map(({ request }) => request), ...(running ? [running] : []), ...ahead];
        const known = slot.requests.filter(({ id }) => !taken?.has(id));
        assert.deepEqual(
          known.map(({ id }) => id),
          there.map(({ id }) => id),
          'front and worker agree',
        );
        for (const request of slot.requests) assert.equal(request.slot, slot);
        if (queued.length > 0 && worker.accepting && !isHeld(slot)) {
          const hasRoom = slot.requests.length < worker.lookAhead.limit;
          const isReserved = slot.requests.length === 0 && this.isFull;
          assert.ok(!hasRoom || isReserved, 'a slot has room and something waits');
        }
      }
    }
    const open = this.requests.filter(({ outcome, clientLeft }) => outcome === 'none' && !clientLeft);
    const seen = new Set([...queued, ...held]);
    assert.equal(seen.size, queued.length + held.length, 'a request is in two places');
    for (const request of open) assert.ok(seen.has(request), `request ${request.id} is lost`);
    for (const request of seen) assert.equal(request.outcome, 'none', `request ${request.id} is over and still here`);
  }

  /** Everything ends well: then each request has had its one outcome. */
  finishAll(): void {
    this.addWorker(2);
    for (let round = 0; this.requests.some(({ outcome, clientLeft }) => outcome === 'none' && !clientLeft); round++) {
      assert.ok(round < 1000, 'it goes on for ever');
      this.now += 10;
      this.turn();
      for (const thread of this.threads) {
        this.restore(thread);
        this.giveBack(thread, 0);
        this.hearTaken(thread);
        this.begin(thread);
        this.finish(thread, 100);
        this.deliver(thread);
        this.check();
      }
    }
  }
}

/** The events of a thread, each with where it can happen. */
const THREAD_EVENTS = {
  begin: ({ ahead, running }: Thread) => running === null && ahead.length > 0,
  finish: ({ running }: Thread) => running !== null,
  deliver: ({ answers }: Thread) => answers.length > 0,
  work: ({ ahead, running }: Thread) => running === null && ahead.length > 0,
  rush: ({ connected, running }: Thread) => connected && running === null,
  leaveRunning: ({ running }: Thread) => running !== null,
  ask: ({ slot }: Thread) => slot.requests.length > 1,
  giveBack: ({ asked }: Thread) => asked,
  hearTaken: ({ taken }: Thread) => taken !== null,
  lose: ({ connected }: Thread) => connected,
  restore: ({ connected }: Thread) => !connected,
} as const;
type ThreadEvent = keyof typeof THREAD_EVENTS;
type WorldEvent = 'arrive' | 'burst' | 'leave' | 'overdue' | 'addWorker' | 'drain' | 'kill' | 'limit' | 'wait';

const WEIGHTS: Readonly<Record<ThreadEvent | WorldEvent, number>> = {
  arrive: 6,
  burst: 2,
  leave: 2,
  overdue: 1,
  addWorker: 2,
  drain: 1,
  kill: 1,
  limit: 1,
  wait: 1,
  begin: 4,
  finish: 2,
  deliver: 2,
  work: 4,
  rush: 3,
  leaveRunning: 1,
  ask: 2,
  giveBack: 2,
  hearTaken: 2,
  lose: 1,
  restore: 1,
};
const EVENTS = (Object.keys(WEIGHTS) as (keyof typeof WEIGHTS)[]).flatMap(
  (kind) => Array(WEIGHTS[kind]).fill(kind) as (typeof kind)[],
);
type Event = readonly [kind: (typeof EVENTS)[number], which: number, amount: number];

function apply(world: World, [kind, which, amount]: Event): void {
  const { threads, living } = world;
  const able = kind in THREAD_EVENTS ? threads.filter(THREAD_EVENTS[kind as ThreadEvent]) : threads;
  const thread = able[which % Math.max(1, able.length)];
  const process = living[which % Math.max(1, living.length)];
  // Most apps are fast, else nothing would be sent ahead.
  const appUs = amount % 10 === 0 ? amount * 50 : amount % 10 < 8 ? 20 : 300;
  world.now += amount % 3;
  switch (kind) {
    case 'arrive':
      world.arrive();
      break;
    case 'burst':
      for (let count = amount % 40; count > 0; count--) world.arrive();
      break;
    case 'limit':
      world.limitYoung(amount % 4 === 0 ? Number.POSITIVE_INFINITY : amount % 4);
      break;
    case 'wait':
      world.now += amount % 30;
      break;
    case 'addWorker':
      if (living.length < 4) world.addWorker(1 + (which % 4));
      break;
    case 'drain':
      if (process !== undefined && amount % 3 === 0) world.drain(process);
      break;
    case 'kill':
      if (process !== undefined && amount % 3 === 0) world.kill(process, which % 3);
      break;
    case 'leave': {
      const back = which % Math.max(1, Math.min(40, world.requests.length));
      const request = world.requests[world.requests.length - 1 - back];
      if (request !== undefined) world.leave(request);
      break;
    }
    case 'overdue':
      for (const slot of world.dispatcher.overdueAhead(amount % 5, world.now)) {
        assert.ok(slot.requests.length > 1 && !isHeld(slot));
        const overdue = threads.find((each) => each.slot === slot);
        assert.ok(overdue, 'overdue in a worker that lives');
        world.ask(overdue);
      }
      break;
    default: {
      if (thread === undefined) return;
      if (kind === 'begin') world.begin(thread);
      else if (kind === 'leaveRunning') {
        if (thread.running !== null) world.leave(thread.running);
      } else if (kind === 'finish') world.finish(thread, appUs);
      else if (kind === 'deliver') world.deliver(thread);
      else if (kind === 'ask') world.ask(thread);
      else if (kind === 'giveBack') world.giveBack(thread, amount);
      else if (kind === 'hearTaken') world.hearTaken(thread);
      else if (kind === 'lose') world.lose(thread);
      else if (kind === 'restore') world.restore(thread);
      else {
        // One request from begin to end, or so many that look-ahead opens.
        for (let count = kind === 'rush' ? 60 : 1; count > 0; count--) {
          if (kind === 'rush' && thread.slot.requests.length === 0) world.arrive();
          world.begin(thread);
          world.finish(thread, kind === 'rush' ? 20 : appUs);
          world.deliver(thread);
        }
      }
    }
  }
}

const EXPECTED = [
  'sent',
  'sent ahead',
  'sent again',
  'refused',
  'left the queue',
  'left while it ran',
  'left while it was ahead',
  'asked to give back',
  'gave back a part',
  'taken back',
  'taken back from a lost connection',
  'lost',
  'lost while taking back',
  'restored',
  'restored while taking back',
  'drained',
  'failed',
  'reserved',
];

test('random events lose no request, run none twice and answer none twice', () => {
  const event = fc.tuple(fc.constantFrom(...EVENTS), fc.nat(1000), fc.nat(1000));
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 30 }),
      fc.array(event, { maxLength: 150, size: 'max' }),
      (maxQueue, events) => {
        const world = new World(maxQueue);
        for (const each of events) {
          apply(world, each);
          world.turn();
          world.check();
        }
        world.finishAll();
      },
    ),
    { numRuns: 600, includeErrorInReport: true },
  );
  for (const event of EXPECTED) assert.ok(happened.has(event), `never: ${event}`);
});
