/** How long to wait before a worker is started again. Pure: times come in as arguments, in milliseconds. */
const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 30_000;
/** A worker that was ready for longer, or ran a request, did not fail for a reason that would fail the next one. */
const EARLY_DEATH_MS = 1000;
const HEALTHY_MS = 60_000;

export interface Death {
  readonly startedAt: number;
  /** Null: it never was ready. */
  readonly readyAt: number | null;
  /** It had begun to run a request: whatever it died of, it was no failure to start. */
  readonly hasBegun: boolean;
  readonly diedAt: number;
}

export class Backoff {
  private failures = 0;
  private lastFailureAt = Number.NEGATIVE_INFINITY;

  /** The delay before the replacement of a worker that died without being told to. */
  delayAfter(death: Death): number {
    const { readyAt, hasBegun, diedAt } = death;
    const failed = readyAt === null || (!hasBegun && diedAt - readyAt < EARLY_DEATH_MS);
    if (!failed) return 0;
    if (death.diedAt - this.lastFailureAt > HEALTHY_MS) this.failures = 0;
    this.failures++;
    const delayMs = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (this.failures - 1));
    // Health begins when the wait is over.
    this.lastFailureAt = death.diedAt + delayMs;
    return delayMs;
  }
}
