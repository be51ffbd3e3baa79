/**
 * How many requests may have just begun in the app at once. While the processors have time to spare: as many as there are
 * slots. When they have none, one more at once makes no request faster. It only has processes and threads take turns, and each
 * turn costs what caches and branch predictors had learnt; requests that come one after the other are cheaper, and the mean of
 * them is done sooner (M/G/1: first come first served against processor sharing, for service times of low variance).
 *
 * The fewest that fill the processors are enough. As many as there are processors are tried first; if the processors had
 * time to spare while requests waited, because the app waits for something else now and then, twice as many are,
 * and half as many again later. A state machine without a clock: times come in with what was measured.
 */

export interface UsableProcessors {
  /** By number. Empty: nothing is limited, because the system does not tell what they do, or they are not the limit. */
  readonly numbers: readonly number[];
  /** How many processes each have a queue and run what is in it themselves. They are taken to use as much as each other. */
  readonly queues: number;
}

/** Of a stretch of time. */
export interface ProcessorUse {
  readonly elapsedMs: number;
  /** Summed over the processors that the server may use, as the next one. */
  readonly idleMs: number;
  /** What the hypervisor took. */
  readonly stolenMs: number;
  /** Processor time of what this process has run. */
  readonly ownMs: number;
  /** How long idle slots were kept in reserve beside waiting requests. */
  readonly reservedMs: number;
}

/** Shares of the processors' time. Of one processor in 100 ms, a tick of 10 ms is 0.1. */
const FULL = 0.05;
const SPARE = 0.1;
/** How long they are full before there is a limit: a queue that is about to be gone needs none. */
const FULL_MS = 150;
/** Below this share it is something else that fills the processors: keeping slots in reserve would only give it more. */
const LEAST_OWN = 0.7;
/** A limit is too low when the processors were idle under it for so long, less this share of the time that it did well. */
const TOO_LOW_MS = 40;
const TOLERATED = 0.05;
/** Until fewer are tried again after that had left time to spare; twice as long each time. */
const FIRST_RETRY_MS = 3000;
const LAST_RETRY_MS = 60_000;
/** A window in which the server used less than this share was a rest: it tells nothing of the load before it or behind it. */
const RESTING = 0.05;
/** For so long the limit outlasts its load while the server rests: what comes next is taken to be of the same kind. */
const REMEMBERED_MS = 30_000;
/** So many windows in a row with work that does not fill the processors end the limit. A load begins and ends in such a one. */
const UNFILLED_WINDOWS = 2;

export class ConcurrencyLimit {
  /** How many may have just begun; infinity: there is no limit. */
  limit = Number.POSITIVE_INFINITY;
  /** No limit is below this: this process's part of as many as there are processors. */
  readonly fewest: number;
  private readonly processors: number;
  private readonly queues: number;
  /** The limit while the processors are full. */
  private least: number;
  private retryMs = FIRST_RETRY_MS;
  /** How long the processors have been full. */
  private fullMs = 0;
  private lostMs = 0;
  /** How long since the processors were full. */
  private restMs = 0;
  /** Windows in a row in which the server worked and did not fill the processors. */
  private unfilledWindows = 0;
  /** How long `least` has been what it is, with full processors. */
  private provenMs = 0;

  constructor({ numbers, queues }: UsableProcessors) {
    this.processors = numbers.length;
    this.queues = queues;
    this.fewest = Math.max(1, Math.ceil(numbers.length / queues));
    this.least = this.fewest;
  }

  observe({ elapsedMs, idleMs, stolenMs, ownMs, reservedMs }: ProcessorUse): void {
    const all = elapsedMs * this.processors;
    const own = (this.queues * ownMs) / (all - stolenMs);
    const spare = idleMs / all;
    if (spare >= SPARE || own < LEAST_OWN) {
      // That they were idle just while requests waited is not known, but may be.
      if (this.limit === this.least) this.lostMs += Math.min(reservedMs, spare * elapsedMs);
      this.restMs += elapsedMs;
      if (this.limit === Number.POSITIVE_INFINITY) this.fullMs = 0;
      this.unfilledWindows = own < RESTING ? 0 : this.unfilledWindows + 1;
      if (this.lostMs >= TOO_LOW_MS) {
        this.raise();
        this.lift();
      } else if (this.unfilledWindows >= UNFILLED_WINDOWS || this.restMs >= REMEMBERED_MS) this.lift();
      return;
    }
    this.unfilledWindows = 0;
    if (spare > FULL) return;
    this.restMs = 0;
    this.fullMs += elapsedMs;
    if (this.fullMs < FULL_MS) return;
    if (this.limit === this.least) {
      this.lostMs = Math.max(0, this.lostMs - TOLERATED * elapsedMs);
      this.provenMs += elapsedMs;
      if (this.least > this.fewest && this.provenMs >= this.retryMs) this.lower();
      else if (this.provenMs >= LAST_RETRY_MS) this.retryMs = FIRST_RETRY_MS;
    }
    this.limit = this.least;
  }

  /** No limit until the processors are known to be full again. */
  lift(): void {
    this.limit = Number.POSITIVE_INFINITY;
    this.fullMs = 0;
  }

  private raise(): void {
    this.least *= 2;
    this.lostMs = 0;
    this.provenMs = 0;
    this.retryMs = Math.min(LAST_RETRY_MS, this.retryMs * 2);
  }

  private lower(): void {
    this.least = Math.max(this.fewest, Math.floor(this.least / 2));
    this.provenMs = 0;
  }
}
