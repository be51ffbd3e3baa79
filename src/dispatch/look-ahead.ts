/**
 * How many requests one thread may hold, the running one among them. More than one saves wake-ups, which cost more than a fast
 * app; but what waits behind a slow request waits for nothing. So it is bounded by time: what a thread holds is at most
 * BUDGET_US of work, reckoned with the slowest of the last requests, and one slow request sets it back to one.
 */
const BUDGET_US = 1000;
const MAX_REQUESTS = 32;
/** The slowest is looked for among this many to twice as many of the last requests. */
const WINDOW = 50;

export class LookAhead {
  /** Requests that one thread may hold now, 1 or more. */
  limit = 1;
  private readonly most: number;
  private seen = 0;
  private slowestUs = 0;
  private slowestBeforeUs = Number.POSITIVE_INFINITY;

  constructor(most = MAX_REQUESTS) {
    this.most = most;
  }

  observe(appUs: number): void {
    this.seen++;
    if (appUs > this.slowestUs) {
      this.slowestUs = appUs;
      if (appUs > this.slowestBeforeUs) this.update();
    }
    if (this.seen >= WINDOW) {
      this.slowestBeforeUs = this.slowestUs;
      this.slowestUs = 0;
      this.seen = 0;
      this.update();
    }
  }

  /** A request takes long, nobody knows how long yet. */
  observeSlow(): void {
    this.observe(BUDGET_US);
  }

  private update(): void {
    const slowest = Math.max(this.slowestUs, this.slowestBeforeUs, 1);
    this.limit = Math.max(1, Math.min(this.most, Math.floor(BUDGET_US / slowest)));
  }
}
