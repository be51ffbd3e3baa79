/**
 * Time by which deadlines are reckoned: it passes only while this process can run. After a pause of the whole machine (a
 * container that was frozen, a virtual machine that was moved) nothing is overdue that was not before.
 */

/** Longer than any turn of a healthy event loop. Whoever uses a clock reads it several times in this span. */
const LONGEST_GAP_MS = 3000;
/** The clock is read as often while a timer runs. */
const LONGEST_TIMER_MS = 1000;

export class AwakeClock {
  private readonly read: () => number;
  private lastMs: number;
  private lostMs = 0;

  /** `read`: milliseconds that never go back. */
  constructor(read: () => number) {
    this.read = read;
    this.lastMs = read();
  }

  /** Milliseconds, from some moment on. */
  now(): number {
    const real = this.read();
    const gap = real - this.lastMs;
    if (gap > LONGEST_GAP_MS) this.lostMs += gap;
    this.lastMs = real;
    return real - this.lostMs;
  }
}

const clock = new AwakeClock(() => performance.now());

/** The clock of this process, in milliseconds. */
export function now(): number {
  return clock.now();
}

/** Calls `action` when `delayMs` of `now` have passed. Returns what takes it back. */
export function after(delayMs: number, action: () => void): () => void {
  const due = now() + delayMs;
  let timer = setTimeout(look, Math.min(delayMs, LONGEST_TIMER_MS));
  function look(): void {
    const leftMs = due - now();
    // A timer may fire a millisecond early.
    if (leftMs > 1) timer = setTimeout(look, Math.min(leftMs, LONGEST_TIMER_MS));
    else action();
  }
  return () => clearTimeout(timer);
}
