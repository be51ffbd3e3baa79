/**
 * How a worker that is to go is brought to its end, whatever it goes for. Pure: times come in as arguments, in milliseconds.
 *
 *   draining ──drained──▶ leaving ──▶ gone
 *      │                     │
 *      └──── time is up ─────┴─ time is up, or a thread is stuck ──▶ aborted ──ABORT_MS──▶ SIGKILL
 *
 * A request that runs into --timeout begins further to the left: see deadline.ts. The worker is replaced in its turn, see
 * replacement.ts, and drains, so that the requests beside it finish, when the next one is ready; or at once if no thread of it
 * serves. A thread that does not come back is stuck, given up. If it comes back after all, the worker leaves as any other does.
 */

/** What a worker that is aborted may take to write where it is, and to run the hooks and exit handlers that the app has for this. */
export const ABORT_MS = 1000;

export interface Ending {
  /** `draining`: it finishes what it runs. `leaving`: it runs nothing more but for what is stuck, and was told to go. */
  readonly state: 'draining' | 'leaving';
  /** A thread does not come back: it cannot go by itself. */
  readonly stuck: boolean;
  /** Until when it may take its time. */
  readonly until: number;
  /** When it was aborted. Null: it was not. */
  readonly abortedAt: number | null;
}

export type EndStep =
  /** Nothing, for so long. */
  { readonly kind: 'wait'; readonly ms: number } | { readonly kind: 'abort' } | { readonly kind: 'kill' };

/** What to do now. To be asked again after a wait, after an abort, and whenever something of `ending` has changed. */
export function endStep({ state, stuck, until, abortedAt }: Ending, now: number): EndStep {
  if (abortedAt !== null) return atTime(abortedAt + ABORT_MS, 'kill', now);
  if (state === 'leaving' && stuck) return { kind: 'abort' };
  return atTime(until, 'abort', now);
}

function atTime(time: number, kind: 'abort' | 'kill', now: number): EndStep {
  return now >= time ? { kind } : { kind: 'wait', ms: time - now };
}
