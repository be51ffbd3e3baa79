/**
 * How the whole server is brought to its end. Pure: times come in as arguments, in milliseconds.
 *
 *   answering ──time is up──▶ cut off ──LEAST_EXIT_MS──┐
 *       │                        │                     ▼
 *       └────── no client is left ┴──────────▶ workers leave ──▶ gone
 *
 * How a single worker leaves is in ending.ts.
 */

/** What running requests are given at a quick stop. */
const QUICK_MS = 2000;
/** After all requests are answered: what an app's exit handlers may take at least. */
const LEAST_EXIT_MS = 1000;
/** How long a connection without a request is kept that has just been made: it was for a request, and its client may be busy. */
export const NEW_CLIENT_MS = 500;

export interface Stopping {
  /** It waits for no more than `QUICK_MS`. */
  readonly quick: boolean;
  /** Until when the requests that run may take their time. */
  readonly until: number;
  /** When the clients without an answer were let go. Null: they are waited for. */
  readonly cutAt: number | null;
  /** No client is left. */
  readonly alone: boolean;
}

export type StopStep =
  /** Nothing, for so long. */
  | { readonly kind: 'wait'; readonly ms: number }
  /** Lets go of the clients that have no answer yet. */
  | { readonly kind: 'cut' }
  /** The workers leave, and have so long for it. */
  | { readonly kind: 'leave'; readonly ms: number };

/** `graceful`: requests are given `gracefulMs`. */
export function beginStop(graceful: boolean, gracefulMs: number, now: number): Stopping {
  return { quick: !graceful, until: now + (graceful ? gracefulMs : QUICK_MS), cutAt: null, alone: false };
}

/** A second signal: it does not wait any longer than a quick stop would from now on. */
export function hurry(stopping: Stopping, now: number): Stopping {
  return { ...stopping, quick: true, until: Math.min(stopping.until, now + QUICK_MS) };
}

/** What to do now. To be asked again after a wait, after a cut, and whenever something of `stopping` has changed. */
export function stopStep({ until, cutAt, alone }: Stopping, now: number): StopStep {
  const due = cutAt === null ? until : cutAt + LEAST_EXIT_MS;
  if (!alone && now < due) return { kind: 'wait', ms: due - now };
  if (!alone && cutAt === null) return { kind: 'cut' };
  return { kind: 'leave', ms: Math.max(until - now, LEAST_EXIT_MS) };
}
