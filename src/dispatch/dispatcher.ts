/**
 * Which request runs where and when: one queue in front of the slots of all workers of a front. A state machine without
 * clock, process or socket: times come in as arguments (milliseconds), what is to be done goes out through `send`.
 *
 * A request goes to the worker with the fewest requests. It goes to an idle slot, or, while the worker's app is so fast that
 * all that is sent ahead is about a millisecond of work, behind the requests of a busy slot of the same worker: threads of one
 * interpreter share its lock, so that for such an app one busy thread answers more than two (see LookAhead).
 *
 * While the processors have no time left, idle slots are kept in reserve: a request waits until one that has begun in the last
 * YOUNG_MS is answered, or is older than that (see ConcurrencyLimit).
 */
import { LookAhead } from './look-ahead.ts';

/**
 * For so long a request counts against the limit; one that takes longer, whether it computes or waits for something, does not
 * make the others wait.
 */
const YOUNG_MS = 20;

/** A request as the dispatcher sees it. The caller extends it with what it needs. */
export interface Dispatched {
  readonly id: number;
  slot: Slot<this> | null;
  /** Neighbours in the queue, while it waits there. */
  queuePrevious: this | null;
  queueNext: this | null;
  queued: boolean;
}

export interface Slot<R> {
  readonly worker: DispatchWorker<R>;
  readonly number: number;
  /** What runs here, first, and behind it what was sent ahead. */
  readonly requests: R[];
  /** When the first of `requests` began to run, or may have. */
  runningSince: number;
  /** What was sent ahead is being taken back. */
  takingBack: boolean;
  /** The connection broke and is being made anew. */
  lost: boolean;
  /** What it runs is the last that it does. */
  retired: boolean;
}

/** Nothing goes to the slot, for now or for good. */
export function isHeld({ takingBack, lost, retired }: Slot<unknown>): boolean {
  return takingBack || lost || retired;
}

export interface DispatchWorker<R> {
  readonly serial: number;
  readonly slots: readonly Slot<R>[];
  /** Slots that have nothing, the one used last at the end: its caches are warm. */
  readonly idle: Slot<R>[];
  readonly lookAhead: LookAhead;
  /** Requests sent and not answered. */
  outstanding: number;
  /** False: drains, gets no more. */
  accepting: boolean;
  /** The slot that was given a request last. */
  hot: Slot<R> | null;
}

export interface DispatcherOptions<R> {
  /** Requests that may wait. */
  readonly maxQueue: number;
  /** Sends a request to a slot: it runs there at once, or behind those that are there. */
  send(slot: Slot<R>, request: R): void;
  /**
   * Send ahead to the slot used last as long as it has room, also while another worker is idle: right where waking one up costs
   * more than the app, as with threads. LookAhead sees to it that nothing waits for longer than a millisecond.
   */
  readonly gather?: boolean;
  /** False: nothing is ever sent ahead. */
  readonly sendsAhead?: boolean;
  /** Requests wait beside idle slots from now on: `dispatch` is to be called every few milliseconds while `isReserving`. */
  reserving?(): void;
}

export class Dispatcher<R extends Dispatched> {
  private readonly options: DispatcherOptions<R>;
  /** Requests that may wait. */
  maxQueue: number;
  private readonly workerList: DispatchWorker<R>[] = [];
  /** The slot that was given a request last, under `gather`. */
  private lastUsed: Slot<R> | null = null;
  private first: R | null = null;
  private last: R | null = null;
  private waiting = 0;
  private youngLimit = Number.POSITIVE_INFINITY;
  /** Idle slots that are kept in reserve, and since when. */
  private reserved = 0;
  private reservedAt = 0;
  private reservingMs = 0;
  private reservedSlotMs = 0;
  /** Sent requests whose clients have left: they are not run elsewhere. */
  private readonly left = new Set<R>();

  constructor(options: DispatcherOptions<R>) {
    this.options = options;
    this.maxQueue = options.maxQueue;
  }

  get queueLength(): number {
    return this.waiting;
  }

  get oldestQueued(): R | null {
    return this.first;
  }

  get isReserving(): boolean {
    return this.reserved > 0;
  }

  /** How many requests may be young; infinity: there is no limit. */
  limitYoung(limit: number, now: number): void {
    if (limit === this.youngLimit) return;
    this.youngLimit = limit;
    this.dispatch(now);
  }

  /** Milliseconds since the start in which any idle slot was kept in reserve, and the same summed over the slots. */
  reservedMs(now: number): { readonly any: number; readonly summed: number } {
    this.reserve(now);
    return { any: this.reservingMs, summed: this.reservedSlotMs };
  }

  get workers(): readonly DispatchWorker<R>[] {
    return this.workerList;
  }

  /** A new worker, idle. Call `dispatch` to have it take what waits. */
  addWorker(serial: number, threads: number): DispatchWorker<R> {
    const slots: Slot<R>[] = [];
    const worker: DispatchWorker<R> = {
      serial,
      slots,
      idle: [],
      lookAhead: this.options.sendsAhead === false ? new LookAhead(1) : new LookAhead(),
      outstanding: 0,
      accepting: true,
      hot: null,
    };
    for (let number = 0; number < threads; number++) {
      slots.push({ worker, number, requests: [], runningSince: 0, takingBack: false, lost: false, retired: false });
    }
    worker.idle.push(...slots);
    this.workerList.push(worker);
    return worker;
  }

  /** No more requests for this worker. What it has it keeps. */
  drain(worker: DispatchWorker<R>): void {
    worker.accepting = false;
  }

  /**
   * The worker is gone. Returns the requests that had begun, to be answered by the caller; the others go to the head of the
   * queue, in their order, and run elsewhere. `hasBegun` says which is which.
   */
  removeWorker(worker: DispatchWorker<R>, hasBegun: (request: R) => boolean, now: number): R[] {
    if (this.lastUsed?.worker === worker) this.lastUsed = null;
    const at = this.workerList.indexOf(worker);
    if (at >= 0) this.workerList.splice(at, 1);
    worker.accepting = false;
    const begun: R[] = [];
    const again: R[] = [];
    for (const slot of worker.slots) {
      for (const request of slot.requests) {
        (hasBegun(request) ? begun : again).push(request);
      }
      slot.requests.length = 0;
    }
    for (const request of begun) this.release(request);
    for (const request of again) request.slot = null;
    worker.outstanding = 0;
    this.requeue(again);
    this.dispatch(now);
    return begun;
  }

  /** As removeWorker for one slot, whose connection broke. It gets nothing before `restoreSlot`. */
  loseSlot(slot: Slot<R>, hasBegun: (request: R) => boolean, now: number): R[] {
    const begun = slot.requests.filter(hasBegun);
    const again = slot.requests.filter((request) => !begun.includes(request));
    if (slot.requests.length === 0 && !isHeld(slot)) slot.worker.idle.splice(slot.worker.idle.indexOf(slot), 1);
    slot.lost = true;
    slot.worker.outstanding -= slot.requests.length;
    for (const request of begun) this.release(request);
    for (const request of again) request.slot = null;
    slot.requests.length = 0;
    this.requeue(again);
    this.dispatch(now);
    return begun;
  }

  /** The slot's connection stands again. What is still being taken back was sent over the one before: that is awaited. */
  restoreSlot(slot: Slot<R>, now: number): void {
    slot.lost = false;
    this.letGo(slot);
    this.dispatch(now);
  }

  /** A new request. False if the queue is full: the caller answers 503. */
  arrive(request: R, now: number): boolean {
    if (this.waiting === 0) {
      const slot = this.findSlot(this.isFull(now));
      if (slot !== null) {
        this.assign(slot, request, now);
        return true;
      }
    }
    this.append(request);
    // Rather more at once than a refusal: slots in reserve are used.
    while (this.waiting > this.maxQueue && this.first !== null) {
      const slot = this.findSlot(false);
      if (slot === null) {
        this.unlink(request);
        return false;
      }
      const oldest = this.first;
      this.unlink(oldest);
      this.assign(slot, oldest, now);
    }
    if (this.youngLimit < Number.POSITIVE_INFINITY) this.dispatch(now);
    return true;
  }

  /**
   * The client has left. Takes a waiting request out of the queue. False if it does not wait: it has been sent, and if it comes
   * back without having begun it is dropped.
   */
  cancel(request: R, now: number): boolean {
    if (!request.queued) {
      if (request.slot !== null) this.left.add(request);
      return false;
    }
    this.unlink(request);
    this.reserve(now);
    return true;
  }

  /** The first request of `slot` has been answered; the app took `appUs`. */
  answered(slot: Slot<R>, appUs: number, now: number): void {
    const request = slot.requests.shift();
    if (request === undefined) return;
    this.release(request);
    slot.worker.outstanding--;
    slot.worker.lookAhead.observe(appUs);
    slot.runningSince = now;
    if (slot.requests.length === 0 && !isHeld(slot)) slot.worker.idle.push(slot);
    if (this.waiting > 0) this.dispatch(now);
  }

  /** Nothing more goes to the slot. True: it has something that was sent ahead, which is to be taken back. */
  retire(slot: Slot<R>): boolean {
    const hasAhead = slot.requests.length > 1 && !isHeld(slot);
    slot.retired = true;
    return hasAhead;
  }

  /** Slots where something sent ahead has waited for longer than `limitMs`: it is to be taken back. */
  overdueAhead(limitMs: number, now: number): Slot<R>[] {
    const overdue: Slot<R>[] = [];
    for (const worker of this.workerList) {
      if (worker.outstanding < 2) continue;
      for (const slot of worker.slots) {
        if (slot.requests.length > 1 && !isHeld(slot) && now - slot.runningSince > limitMs) overdue.push(slot);
      }
    }
    return overdue;
  }

  /** The worker was asked to give back what was sent ahead: nothing more goes there before `takenBack`. */
  takeBack(slot: Slot<R>): void {
    slot.takingBack = true;
    slot.worker.lookAhead.observeSlow();
  }

  /** The worker gave back the requests with these ids, none of which has begun: they go to the head of the queue. */
  takenBack(slot: Slot<R>, ids: ReadonlySet<number>, now: number): void {
    slot.takingBack = false;
    const again = slot.requests.filter((request) => ids.has(request.id));
    const kept = slot.requests.filter((request) => !ids.has(request.id));
    slot.requests.length = 0;
    slot.requests.push(...kept);
    slot.worker.outstanding -= again.length;
    for (const request of again) request.slot = null;
    this.letGo(slot);
    this.requeue(again);
    this.dispatch(now);
  }

  /** The request with this id, of those sent to `slot`, is answered next. */
  bringForward(slot: Slot<R>, id: number): void {
    const at = slot.requests.findIndex((request) => request.id === id);
    if (at > 0) slot.requests.unshift(...slot.requests.splice(at, 1));
  }

  /** All requests that have been sent and not answered. */
  sent(): R[] {
    return this.workerList.flatMap((worker) => worker.slots.flatMap((slot) => slot.requests));
  }

  /** The slots in which something runs, each with the request. */
  *running(): Generator<{ slot: Slot<R>; request: R }> {
    for (const worker of this.workerList) {
      for (const slot of worker.slots) {
        const request = slot.requests[0];
        if (request !== undefined) yield { slot, request };
      }
    }
  }

  /** What is wrong with the state, in words: for tests and for a look at a server that behaves strangely. */
  violations(now: number): string[] {
    const found: string[] = [];
    if (this.waiting > 0 && !this.isFull(now)) {
      for (const worker of this.workerList) {
        if (worker.accepting && worker.idle.length > 0)
          found.push(`worker ${worker.serial}: idle slot, ${this.waiting} wait`);
      }
    }
    for (const worker of this.workerList) {
      const outstanding = worker.slots.reduce((sum, slot) => sum + slot.requests.length, 0);
      if (outstanding !== worker.outstanding) found.push(`worker ${worker.serial}: outstanding is miscounted`);
      for (const slot of worker.slots) {
        const idle = worker.idle.includes(slot);
        if (idle !== (slot.requests.length === 0 && !isHeld(slot))) {
          found.push(
            `worker ${worker.serial}, slot ${slot.number}: ${idle ? 'busy but listed idle' : 'idle but not listed'}`,
          );
        }
      }
    }
    return found;
  }

  /** The whole state in a few lines, for the log. */
  describe(): string {
    const lines = this.workerList.map(({ serial, accepting, outstanding, idle, lookAhead, slots }) => {
      const each = slots.map(
        ({ requests, lost, takingBack, retired }) =>
          `${requests.length}${lost ? ' lost' : ''}${takingBack ? ' taking-back' : ''}${retired ? ' retired' : ''}`,
      );
      return (
        `worker ${serial}: ${accepting ? 'accepting' : 'draining'}, ${outstanding} outstanding, ${idle.length} idle, ` +
        `look-ahead ${lookAhead.limit}, slots: ${each.join(' | ')}`
      );
    });
    const limit = this.youngLimit === Number.POSITIVE_INFINITY ? '' : `, at most ${this.youngLimit} young`;
    return [`${this.waiting} waiting${limit}`, ...lines].join('\n');
  }

  /** Makes all that is reckoned up anew from what the slots hold, and dispatches. */
  repair(now: number): void {
    for (const worker of this.workerList) {
      worker.outstanding = worker.slots.reduce((sum, slot) => sum + slot.requests.length, 0);
      worker.idle.length = 0;
      worker.idle.push(...worker.slots.filter((slot) => slot.requests.length === 0 && !isHeld(slot)));
    }
    this.dispatch(now);
  }

  /** Sends what waits to the slots that are free. */
  dispatch(now: number): void {
    while (this.first !== null) {
      const slot = this.findSlot(this.isFull(now));
      if (slot === null) break;
      const request = this.first;
      this.unlink(request);
      this.assign(slot, request, now);
    }
    this.reserve(now);
  }

  /**
   * As many requests are young as may be: nothing goes to an idle slot. Beside each older one, one more may: the older ones take
   * their part of the processors, and the young ones as a whole would get the less the more of them there are.
   */
  private isFull(now: number): boolean {
    if (this.youngLimit === Number.POSITIVE_INFINITY) return false;
    let young = 0;
    let older = 0;
    for (const { slots } of this.workerList) {
      for (const { requests, runningSince } of slots) {
        if (requests.length === 0) continue;
        if (now - runningSince < YOUNG_MS) young++;
        else older++;
      }
    }
    return young >= this.youngLimit + older;
  }

  /** Brings what is known of idle slots beside a queue up to date. */
  private reserve(now: number): void {
    const limited = this.youngLimit < Number.POSITIVE_INFINITY;
    if (!limited && this.reserved === 0) return;
    const gone = Math.max(0, now - this.reservedAt);
    if (this.reserved > 0) this.reservingMs += gone;
    this.reservedSlotMs += this.reserved * gone;
    const before = this.reserved;
    this.reserved = 0;
    this.reservedAt = now;
    if (!limited || this.waiting === 0) return;
    for (const { accepting, idle } of this.workerList) if (accepting) this.reserved += idle.length;
    if (before === 0 && this.reserved > 0) this.options.reserving?.();
  }

  /** `full`: only one that has a request. */
  private findSlot(full: boolean): Slot<R> | null {
    const hot = this.lastUsed;
    if (hot?.worker.accepting && hasRoom(hot, hot.worker.lookAhead.limit, full)) return hot;
    let best: Slot<R> | null = null;
    let least = Number.POSITIVE_INFINITY;
    for (const worker of this.workerList) {
      if (!worker.accepting || worker.outstanding >= least) continue;
      const slot = this.slotOf(worker, full);
      if (slot !== null) {
        best = slot;
        least = worker.outstanding;
      }
    }
    return best;
  }

  private slotOf(worker: DispatchWorker<R>, full: boolean): Slot<R> | null {
    const limit = worker.lookAhead.limit;
    const hot = worker.hot;
    if (limit > 1 && hot !== null && hasRoom(hot, limit, full)) return hot;
    const idle = worker.idle.at(-1);
    if (idle !== undefined && !full) return idle;
    if (limit > 1) {
      for (const slot of worker.slots) if (hasRoom(slot, limit, full)) return slot;
    }
    return null;
  }

  private assign(slot: Slot<R>, request: R, now: number): void {
    const worker = slot.worker;
    if (slot.requests.length === 0) {
      slot.runningSince = now;
      const top = worker.idle.pop();
      if (top !== slot && top !== undefined) {
        // The hot slot is idle but not the last that became so.
        worker.idle[worker.idle.indexOf(slot)] = top;
      }
    }
    slot.requests.push(request);
    request.slot = slot;
    worker.hot = slot;
    if (this.options.gather) this.lastUsed = slot;
    worker.outstanding++;
    this.options.send(slot, request);
  }

  /** The slot takes requests again, unless something else holds it. */
  private letGo(slot: Slot<R>): void {
    const { idle } = slot.worker;
    if (!isHeld(slot) && slot.requests.length === 0 && !idle.includes(slot)) idle.push(slot);
  }

  /** The request is no more. */
  private release(request: R): void {
    request.slot = null;
    if (this.left.size > 0) this.left.delete(request);
  }

  private append(request: R): void {
    request.queued = true;
    request.queuePrevious = this.last;
    request.queueNext = null;
    if (this.last === null) this.first = request;
    else this.last.queueNext = request;
    this.last = request;
    this.waiting++;
  }

  /** Puts requests at the head of the queue, in their order, but for those whose clients have left. */
  private requeue(requests: readonly R[]): void {
    for (let at = requests.length - 1; at >= 0; at--) {
      const request = requests[at];
      if (request === undefined || this.left.delete(request)) continue;
      request.queued = true;
      request.queuePrevious = null;
      request.queueNext = this.first;
      if (this.first === null) this.last = request;
      else this.first.queuePrevious = request;
      this.first = request;
      this.waiting++;
    }
  }

  private unlink(request: R): void {
    if (request.queuePrevious === null) this.first = request.queueNext;
    else request.queuePrevious.queueNext = request.queueNext;
    if (request.queueNext === null) this.last = request.queuePrevious;
    else request.queueNext.queuePrevious = request.queuePrevious;
    request.queuePrevious = null;
    request.queueNext = null;
    request.queued = false;
    this.waiting--;
  }
}

function hasRoom<R>(slot: Slot<R>, limit: number, onlyBusy: boolean): boolean {
  return !isHeld(slot) && slot.requests.length < limit && !(onlyBusy && slot.requests.length === 0);
}
