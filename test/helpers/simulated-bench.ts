/**
 * A bench for sizing whose servers are simulated, event by event, in virtual time: minutes of measuring take a fraction of a
 * second. Requests wait for a slot, then hold the lock of their process for some time, wait, and compute outside the lock; all CPU
 * time is taken from the same cores in slices, and one front serves everybody first.
 */
import { type Cell, nameOf, slotsOf } from '../../src/size/cell.ts';
import type { Kind } from '../../src/size/kind.ts';
import { type Arrivals, type LoadResult, randomOf } from '../../src/size/load/load.ts';
import { type Bench, type Calibration, CellError, type CellMemory, type Window } from '../../src/size/session.ts';
import { mean, quantile } from '../../src/size/statistics.ts';

export interface SimulatedApp {
  /** Default: python. */
  readonly kind?: Kind;
  /** Holds the lock without computing. */
  readonly blockedMs?: number;
  readonly lockedMs: number;
  readonly freeMs: number;
  readonly waitMs: number;
  readonly frontMs: number;
  readonly cores: number;
  readonly workerMb?: number;
  readonly threadMb?: number;
  /** Each thread past the first that wants the lock makes everything under it take this much longer (a convoy). */
  readonly convoy?: number;
  /** Standard deviation of how fast the machine is from window to window, as a share. */
  readonly noise?: number;
  /** What others use of the cores. */
  readonly others?: number;
  /** Cells with more slots than this do not start. */
  readonly mostSlots?: number;
  readonly seed?: number;
}

const START_MS = 700;
const SLICE_MS = 1;
const TIMEOUT_MS = 10_000;

export class SimulatedBench implements Bench {
  readonly measured: string[] = [];
  readonly #app: SimulatedApp;
  readonly #random: () => number;
  readonly #running = new Set<string>();
  #now = 0;

  constructor(app: SimulatedApp) {
    this.#app = app;
    this.#random = randomOf(app.seed ?? 1);
  }

  now(): number {
    return this.#now;
  }

  calibrate(ms: number): Promise<Calibration> {
    this.#now += ms;
    return Promise.resolve({ generatorPerSecond: 10_000, othersShare: this.#app.others ?? 0 });
  }

  async start(cell: Cell): Promise<void> {
    const name = nameOf(cell);
    if (this.#running.has(name)) return;
    this.#now += START_MS;
    if (slotsOf(cell) > (this.#app.mostSlots ?? Number.POSITIVE_INFINITY))
      throw new CellError('it ended with exit code 3');
    this.#running.add(name);
  }

  async measure(cell: Cell, arrivals: Arrivals, ms: number, seed: number): Promise<Window> {
    this.measured.push(nameOf(cell));
    this.#now += ms + 60;
    const slow = Math.max(0.3, 1 + (this.#app.noise ?? 0) * this.#normal());
    return simulate(this.#app, cell, arrivals, ms, slow, this.#random, randomOf(seed));
  }

  async holding(cell: Cell, arrivals: Arrivals, ms: number): Promise<{ busyMs: number; window: Window }> {
    this.#now += START_MS;
    const window = await this.measure(cell, arrivals, ms, 1);
    return { busyMs: window.loopMs + (this.#app.blockedMs ?? 0), window };
  }

  memory(cell: Cell): Promise<CellMemory> {
    const { workerMb = 30, threadMb = 0.1 } = this.#app;
    const workersMb = cell.workers * (workerMb + (cell.threads - 1) * threadMb);
    return Promise.resolve({ workersMb, baseMb: 30, swapMb: 0, requests: 1000 });
  }

  #normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.#random())) * Math.cos(2 * Math.PI * this.#random());
  }
}

interface Request {
  readonly arrivedAt: number;
  worker: number;
  /** What is left to do, in order. */
  readonly todo: { kind: 'front' | 'locked' | 'blocked' | 'free' | 'wait'; ms: number }[];
}

export function simulate(
  app: SimulatedApp,
  cell: Cell,
  arrivals: Arrivals,
  ms: number,
  slow: number,
  random: () => number,
  arrivalRandom: () => number,
): Window {
  const events = new Heap();
  const running = new Array<number>(cell.workers).fill(0);
  const most = app.kind === 'async' ? Number.POSITIVE_INFINITY : cell.threads;
  const locks = Array.from({ length: cell.workers }, () => ({ held: false, queue: [] as Request[] }));
  const queue: Request[] = [];
  const cpuQueue: { request: Request; ms: number; done: () => void }[] = [];
  const latencies: number[] = [];
  let freeCores = app.cores;
  let now = 0;
  let busyMs = 0;
  let intended = 0;
  let completed = 0;
  let inFlight = 0;
  let area = 0;
  const jitter = (): number => slow * (0.9 + 0.2 * random());

  const runCpu = (): void => {
    while (freeCores > 0) {
      const job = cpuQueue.shift();
      if (job === undefined) return;
      freeCores--;
      const slice = Math.min(SLICE_MS, job.ms);
      busyMs += slice;
      events.push(now + slice, () => {
        freeCores++;
        if (job.ms - slice > 1e-9) cpuQueue.push({ ...job, ms: job.ms - slice });
        else job.done();
        runCpu();
      });
    }
  };
  const cpu = (request: Request, amount: number, done: () => void): void => {
    cpuQueue.push({ request, ms: amount, done });
    runCpu();
  };
  const next = (request: Request): void => {
    const step = request.todo.shift();
    if (step === undefined) {
      finish(request);
      return;
    }
    const go = (): void => next(request);
    const lock = locks[request.worker];
    switch (step.kind) {
      case 'front':
        cpu(request, step.ms, () => {
          queue.push(request);
          dispatch();
        });
        return;
      case 'wait':
        events.push(now + step.ms, go);
        return;
      case 'free':
        cpu(request, step.ms, go);
        return;
      case 'locked':
      case 'blocked':
        if (lock === undefined) return;
        request.todo.unshift(step);
        lock.queue.push(request);
        takeLock(request.worker);
        return;
    }
  };
  const takeLock = (worker: number): void => {
    const lock = locks[worker];
    if (lock === undefined || lock.held) return;
    const request = lock.queue.shift();
    const step = request?.todo.shift();
    if (request === undefined || step === undefined) return;
    lock.held = true;
    const wanting = Math.min(lock.queue.length, 8);
    const over = (): void => {
      lock.held = false;
      next(request);
      takeLock(worker);
    };
    if (step.kind === 'blocked') events.push(now + step.ms, over);
    else cpu(request, step.ms * (1 + (app.convoy ?? 0) * wanting), over);
  };
  const dispatch = (): void => {
    while (queue.length > 0) {
      // The least busy worker.
      const least = Math.min(...running);
      const worker = running.indexOf(least);
      if (least >= most) return;
      const request = queue.shift();
      if (request === undefined) return;
      running[worker] = least + 1;
      request.worker = worker;
      next(request);
    }
  };
  const count = (change: number): void => {
    inFlight += change;
  };
  const arrive = (): void => {
    count(1);
    intended++;
    const { lockedMs, blockedMs = 0, freeMs, waitMs, frontMs } = app;
    const locked = () => (lockedMs > 0 ? [{ kind: 'locked' as const, ms: (lockedMs / 2) * jitter() }] : []);
    next({
      arrivedAt: now,
      worker: -1,
      todo: [
        { kind: 'front', ms: frontMs * slow },
        ...locked(),
        ...(blockedMs > 0 ? [{ kind: 'blocked' as const, ms: blockedMs * jitter() }] : []),
        { kind: 'wait', ms: waitMs * (0.9 + 0.2 * random()) },
        ...(freeMs > 0 ? [{ kind: 'free' as const, ms: freeMs * jitter() }] : []),
        ...locked(),
      ],
    });
  };
  const finish = (request: Request): void => {
    running[request.worker] = (running[request.worker] ?? 0) - 1;
    count(-1);
    latencies.push(now - request.arrivedAt);
    if (now < ms) completed++;
    if (arrivals.kind === 'closed' && now < ms) arrive();
    dispatch();
  };

  if (arrivals.kind === 'closed') for (let i = 0; i < arrivals.inFlight; i++) arrive();
  else {
    const gap = 1000 / arrivals.perSecond;
    const schedule = (at: number): void => {
      if (at < ms)
        events.push(at, () => {
          arrive();
          schedule(at + (arrivals.kind === 'constant' ? gap : -Math.log(1 - arrivalRandom()) * gap));
        });
    };
    schedule(gap / 2);
  }
  const capacityMs = ms;
  for (let event = events.pop(); event !== undefined; event = events.pop()) {
    const from = Math.min(now, ms);
    area += inFlight * (Math.min(event.at, ms) - from);
    now = event.at;
    if (now > ms + TIMEOUT_MS) break;
    event.run();
  }
  const answered = latencies.length;
  const failures = { connect: 0, cut: 0, 'not-http': 0, status: 0, body: 0, timeout: intended - answered };
  const at = (q: number): number => (answered === 0 ? 0 : quantile(latencies, q));
  const late = { meanMs: 0, p50Ms: 0, p90Ms: 0, p99Ms: 0, maxMs: 0 };
  const load: LoadResult = {
    intended,
    answered,
    answeredInAll: answered,
    completed,
    failures,
    seconds: capacityMs / 1000,
    latency: {
      meanMs: answered === 0 ? 0 : mean(latencies),
      p50Ms: at(0.5),
      p90Ms: at(0.9),
      p99Ms: at(0.99),
      maxMs: at(1),
    },
    late,
    meanInFlight: area / ms,
    waited: 0,
    generatorCpu: 0.1,
  };
  const perRequest = answered === 0 ? 0 : busyMs / answered;
  const workerMs = Math.max(0, perRequest - app.frontMs * slow);
  return {
    arrivals,
    load,
    perSecond: completed / (ms / 1000),
    workerMs,
    loopMs: app.kind === 'async' ? (workerMs * app.lockedMs) / (app.lockedMs + app.freeMs) : 0,
    frontMs: app.frontMs * slow,
    delayMs: 0,
    generatorMs: 0,
    othersShare: app.others ?? 0,
    throttledShare: 0,
  };
}

/** Events by time. */
class Heap {
  readonly #list: { at: number; run: () => void }[] = [];

  push(at: number, run: () => void): void {
    const list = this.#list;
    list.push({ at, run });
    for (let i = list.length - 1; i > 0; ) {
      const up = (i - 1) >> 1;
      if (!this.#swapIfBefore(i, up)) return;
      i = up;
    }
  }

  pop(): { at: number; run: () => void } | undefined {
    const list = this.#list;
    const first = list[0];
    const last = list.pop();
    if (first === undefined || last === undefined || list.length === 0) return first;
    list[0] = last;
    for (let i = 0; ; ) {
      const left = 2 * i + 1;
      const right = left + 1;
      const down = right < list.length && (list[right]?.at ?? 0) < (list[left]?.at ?? 0) ? right : left;
      if (down >= list.length || !this.#swapIfBefore(down, i)) return first;
      i = down;
    }
  }

  #swapIfBefore(a: number, b: number): boolean {
    const list = this.#list;
    const [x, y] = [list[a], list[b]];
    if (x === undefined || y === undefined || x.at >= y.at) return false;
    list[a] = y;
    list[b] = x;
    return true;
  }
}
