/**
 * What a request costs, and what follows from it. The bounds are those of operational analysis (Denning and Buzen 1978; for
 * threads under a lock: Goetz, "Java Concurrency in Practice", 8.2). They hold up to the knee. Past it threads of one process
 * hinder each other and throughput falls, which no bound tells: there, measure.
 */
import type { Cell } from './cell.ts';
import type { Kind } from './kind.ts';

/** Per request, in ms, unless named otherwise. */
export interface Costs {
  readonly kind: Kind;
  /** C: CPU time that holds the interpreter's lock (GIL), or the event loop of an async worker. Threads of a pool share no lock. */
  readonly lockedMs: number;
  /** Waiting that holds the event loop: synchronous calls. 0 but for async: in Python it is not to be told from other waiting. */
  readonly blockedMs: number;
  /** G: CPU time of the worker outside the lock, as of a C extension that releases it. */
  readonly freeMs: number;
  /** Z: neither running nor ready to run: waiting for a database, another service, a timer. */
  readonly waitMs: number;
  /** CPU time of master and fronts; of a pool, of the workers' main threads too. */
  readonly frontMs: number;
  /** CPU time of the load generator on the cores of the server: 0 where it has cores of its own. */
  readonly generatorMs: number;
  /** A worker with one thread, the master with its fronts, and what each further thread adds. PSS. */
  readonly workerMb: number;
  readonly threadMb: number;
  readonly baseMb: number;
}

/** How long a request holds its thread when nothing is in its way. */
export function slotMs({ lockedMs, blockedMs, freeMs, waitMs }: Costs): number {
  return lockedMs + blockedMs + freeMs + waitMs;
}

/** What a worker can do for one request after the other only, however many threads it has. */
function serialMs({ kind, lockedMs, blockedMs, frontMs }: Costs): number {
  return kind === 'pool' ? frontMs : lockedMs + blockedMs;
}

/** CPU time per request on the cores of the server, of everybody. */
export function cpuMs({ lockedMs, freeMs, frontMs, generatorMs }: Costs): number {
  return lockedMs + freeMs + frontMs + generatorMs;
}

export type Limit = 'threads' | 'lock' | 'cores' | 'fronts';

/** Requests per second that a cell can carry at most, and what ends it there. */
export function capacity(
  costs: Costs,
  cell: Cell,
  cores: number,
): { readonly perSecond: number; readonly limit: Limit } {
  const bounds: readonly (readonly [Limit, number])[] = [
    // An event loop has as many requests under way as come.
    ['threads', costs.kind === 'async' ? Number.POSITIVE_INFINITY : (cell.workers * cell.threads) / slotMs(costs)],
    [costs.kind === 'pool' ? 'fronts' : 'lock', cell.workers / serialMs(costs)],
    ['cores', cores / cpuMs(costs)],
    ['fronts', costs.kind === 'python' ? cell.fronts / costs.frontMs : Number.POSITIVE_INFINITY],
  ];
  const [limit, perMs] = bounds.reduce((least, bound) => (bound[1] < least[1] ? bound : least));
  return { perSecond: perMs * 1000, limit };
}

/** A measured count is rounded up to a whole one, but not for a rest this small: 2.05 workers are 2. */
const ROUNDING_SLACK = 0.1;

/** Where event loops stand still most of the time, cores would ask for hundreds. */
const MAX_WORKERS = 64;

/** The fewest workers that can use all cores in spite of the lock. */
export function kneeWorkers(costs: Costs, cores: number): number {
  const workers = Math.ceil((cores * serialMs(costs)) / cpuMs(costs) - ROUNDING_SLACK);
  return Math.min(MAX_WORKERS, Math.max(1, workers));
}

/** The fewest threads with which so many workers reach what lock and cores allow: T* = 1 + (Z + G) / C for one worker. */
export function kneeThreads(costs: Costs, workers: number, cores: number): number {
  if (costs.kind === 'async') return 1;
  const perMs = Math.min(cores / cpuMs(costs), workers / serialMs(costs));
  return Math.max(1, Math.ceil((perMs * slotMs(costs)) / workers - ROUNDING_SLACK));
}

/** PSS of all processes. */
export function memoryMb(costs: Costs, { workers, threads }: Cell): number {
  return costs.baseMb + workers * (costs.workerMb + (threads - 1) * costs.threadMb);
}

/**
 * Erlang C: the probability that a request has to wait for a slot, for Poisson arrivals and exponential service.
 *
 * @param offered rate times service time, in slots; 1 if it is not less than `slots`
 */
export function erlangC(slots: number, offered: number): number {
  if (offered >= slots) return 1;
  // Erlang B by its recursion, which does not overflow as the factorials would.
  let blocking = 1;
  for (let n = 1; n <= slots; n++) blocking = (offered * blocking) / (n + offered * blocking);
  const busy = offered / slots;
  return blocking / (1 - busy * (1 - blocking));
}

/**
 * How long 99 % of the requests wait for a slot at most, in ms. Allen and Cunneen's factor stretches the tail for service that
 * is more or less variable than exponential: (Ca² + Cs²) / 2, with Ca = 1 for Poisson arrivals.
 */
export function waitP99Ms(slots: number, perSecond: number, serviceMs: number, variation: number): number {
  const offered = (perSecond * serviceMs) / 1000;
  const waits = erlangC(slots, offered);
  if (waits <= 0.01) return 0;
  if (offered >= slots) return Number.POSITIVE_INFINITY;
  // P(W > t) = ErlangC * exp(-(c * mu - lambda) * t)
  const perMs = (slots - offered) / serviceMs;
  return (Math.log(waits / 0.01) / perMs) * ((1 + variation ** 2) / 2);
}

/**
 * 99 % of the requests at this rate take so long at most, in ms: the time of a request that nothing is in the way of, and the
 * longest of the waits for a slot, for the lock, and for a core. What is waited for twice is counted once.
 */
export function responseP99Ms(costs: Costs, { workers, threads }: Cell, cores: number, perSecond: number): number {
  const whole = Math.max(1, Math.floor(cores));
  const waits = [
    costs.kind === 'async' ? 0 : waitP99Ms(workers * threads, perSecond, slotMs(costs), 0),
    waitP99Ms(workers, perSecond, serialMs(costs), 0),
    waitP99Ms(whole, perSecond, (cpuMs(costs) * whole) / cores, 0),
  ];
  return Math.max(...waits) + slotMs(costs);
}

/** What one window of the first cell, and one with many threads, tell of the costs. */
export interface ProbeWindow {
  readonly perSecond: number;
  /** CPU time per request, in ms. */
  readonly workerMs: number;
  /** The part of `workerMs` that the event loop used; 0 where there is none. */
  readonly loopMs: number;
  readonly frontMs: number;
  readonly generatorMs: number;
  /** Per request: threads of the worker were ready to run and no core was free. */
  readonly delayMs: number;
}

/** A worker that uses more than this of a core runs code outside the lock. */
const BEYOND_THE_LOCK = 1.15;
/** The machine is what limits from here on. */
const CORES_FULL = 0.9;

type RequestCosts = Omit<Costs, 'kind' | 'workerMb' | 'threadMb' | 'baseMb'>;

/**
 * Of threads.
 *
 * @param one saturated, one worker with one thread
 * @param many saturated, one worker with many threads; undefined where it was not measured (on one core it tells nothing: there
 *   CPU time is CPU time, whoever holds the lock)
 */
export function requestCosts(one: ProbeWindow, many: ProbeWindow | undefined, cores: number): RequestCosts {
  const { workerMs, frontMs, generatorMs } = one;
  const locked = many === undefined ? workerMs : Math.min(workerMs, lockedShare(many, cores) * workerMs);
  return { lockedMs: locked, blockedMs: 0, freeMs: workerMs - locked, waitMs: waitOf(one), frontMs, generatorMs };
}

/** Of the threads of a pool, which share no lock. @param one saturated, one worker with one thread */
export function poolCosts(one: ProbeWindow): RequestCosts {
  const { workerMs, frontMs, generatorMs } = one;
  return { lockedMs: 0, blockedMs: 0, freeMs: workerMs, waitMs: waitOf(one), frontMs, generatorMs };
}

/** Of the time an event loop was held: less is within what timers and accounting miss. */
const BLOCKED = 0.15;

/**
 * Of an event loop.
 *
 * @param alone one request at a time
 * @param full so many at a time that it was busy
 * @param held the same again, and how long the event loop was busy per request, waiting for a core included
 */
export function loopCosts(
  alone: ProbeWindow,
  full: ProbeWindow,
  held: { readonly busyMs: number; readonly loopMs: number; readonly delayMs: number },
): RequestCosts {
  const heldMs = held.busyMs - held.delayMs;
  const stood = heldMs - held.loopMs;
  const blockedMs = stood > BLOCKED * heldMs ? stood : 0;
  const { workerMs, loopMs, frontMs, generatorMs } = full;
  return {
    lockedMs: loopMs,
    blockedMs,
    freeMs: Math.max(0, workerMs - loopMs),
    waitMs: Math.max(0, waitOf(alone) - blockedMs),
    frontMs,
    generatorMs,
  };
}

/** Of a window in which one slot was always taken. */
function waitOf({ perSecond, workerMs, delayMs }: ProbeWindow): number {
  return Math.max(0, 1000 / perSecond - workerMs - delayMs);
}

/** Which share of its CPU time a worker needs the lock for. */
function lockedShare({ perSecond, workerMs, frontMs, generatorMs }: ProbeWindow, cores: number): number {
  const busy = (perSecond * workerMs) / 1000;
  if (busy < BEYOND_THE_LOCK) return 1;
  const allBusy = (perSecond * (workerMs + frontMs + generatorMs)) / 1000;
  // Full cores hide the lock: it is held for no more than the whole time. Else the lock is what limits: it is always held.
  return allBusy >= CORES_FULL * cores ? Math.min(1, 1 / busy) : 1 / busy;
}
