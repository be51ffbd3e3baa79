/** Which workers are replaced now. Pure: times come in as arguments, in milliseconds. */
import { REASONS, type Reason, rank } from './reasons.ts';

/** A seat as the planner sees it. */
export interface SeatView {
  readonly number: number;
  /** Why its worker is to be replaced. Null: it is not. */
  readonly wish: Reason | null;
  /** When its worker became ready. Null: there is none. */
  readonly readyAt: number | null;
  /** Its worker gets requests. */
  readonly serves: boolean;
  /** The replacement is on its way. */
  readonly replacing: boolean;
  /** A replacement did not boot, or its app failed at once: the next one not before this. */
  readonly notBefore: number;
}

/** How many of `seats` may be in replacement at the same time, but for what has to be at once: a tenth, one at least. */
export function mostAtATime(seats: number): number {
  return Math.max(1, Math.floor(seats / 10));
}

/** The numbers of the seats whose replacement begins now, in that order. Where nobody serves any more none is kept waiting. */
export function seatsToReplace(seats: readonly SeatView[], minLifetimeMs: number, now: number): number[] {
  const wanting = seats
    .flatMap(({ wish, ...seat }) => (wish === null || seat.replacing ? [] : [{ ...seat, wish }]))
    .filter((seat) => now >= seat.notBefore)
    .sort((one, other) => rank(one.wish) - rank(other.wish) || (one.readyAt ?? 0) - (other.readyAt ?? 0));
  const underWay = seats.filter((seat) => seat.replacing && seat.readyAt !== null).length;
  let free = Math.max(0, mostAtATime(seats.length) - underWay);
  const chosen: number[] = [];
  for (const { number, wish, readyAt, serves } of wanting) {
    const { begins } = REASONS[wish];
    if (begins === null) continue;
    if (begins === 'at-once' || !serves) chosen.push(number);
    else if (free > 0) {
      const young = readyAt === null || now - readyAt < minLifetimeMs;
      if (begins === 'in-turn-when-old' && young) continue;
      free--;
      chosen.push(number);
    }
  }
  return chosen;
}

/** A limit, scattered so that not all workers reach it together: `limit` and up to `jitter` more, as Gunicorn does. 0 stays 0: no limit. */
export function withJitter(limit: number, jitter: number, random: number): number {
  return limit === 0 ? 0 : limit + Math.floor(random * (jitter + 1));
}
