/**
 * What becomes of a request that runs for too long. Pure: times come in as arguments, in milliseconds.
 *
 *   running ──--timeout──▶ timed out: 504, interrupted, its worker is replaced ──INTERRUPT_MS──▶ given up: that worker cannot
 *                                                                                               leave by itself, see ending.ts
 */

/** How long a request may take to come back from an interruption before its thread is given up. */
export const INTERRUPT_MS = 500;

export type DeadlineStep = 'wait' | 'time-out' | 'give-up';

/** Of one request, kept by the caller: 0 before it has timed out; the time of that; GIVEN_UP. */
export type TimedOutAt = number;
export const GIVEN_UP: TimedOutAt = Number.POSITIVE_INFINITY;

/**
 * What to do now. `since` is when the request began to run, or sent its last piece; time that the client is waited for does
 * not count (`heldBack`). A `timeoutMs` of 0 is no limit.
 */
export function deadlineStep(
  timedOutAt: TimedOutAt,
  since: number,
  heldBack: boolean,
  timeoutMs: number,
  now: number,
): DeadlineStep {
  if (timedOutAt > 0) return now - timedOutAt >= INTERRUPT_MS ? 'give-up' : 'wait';
  return timeoutMs > 0 && !heldBack && now - since >= timeoutMs ? 'time-out' : 'wait';
}
