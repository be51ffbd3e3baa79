/** Whether a worker's interpreter still runs: it is asked now and then. Pure: times come in as arguments, in milliseconds. */

/** How often a worker is asked, but for a limit so short that this would be too seldom. */
const LONGEST_INTERVAL_MS = 10_000;

export type PingStep =
  | 'wait'
  /** It is to be asked now. */
  | 'ask'
  /** It has not answered for `limitMs`. */
  | 'give-up';

/**
 * What to do now. `askedAt` is when it was asked the question that it has not answered; null: it has answered all. `answeredAt`
 * is when it answered last, or became ready. A `limitMs` of 0 is no limit: then nobody asks.
 */
export function pingStep(askedAt: number | null, answeredAt: number, limitMs: number, now: number): PingStep {
  if (limitMs === 0) return 'wait';
  if (askedAt !== null) return now - askedAt >= limitMs ? 'give-up' : 'wait';
  return now - answeredAt >= Math.min(LONGEST_INTERVAL_MS, limitMs / 3) ? 'ask' : 'wait';
}
