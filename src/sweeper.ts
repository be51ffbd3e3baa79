/**
 * When time limits are looked at: ten times a second while there is something to watch, and once a second while there is not. An
 * idle server lets the processor sleep.
 */
import { now } from './clock.ts';

export const SWEEP_MS = 100;
const IDLE_SWEEP_MS = 1000;

export class Sweeper {
  private readonly sweep: () => boolean;
  private readonly turned: (lateMs: number) => void;
  /** Null: it has run out, and a sweep follows. */
  private timer: NodeJS.Timeout | null = null;
  private dueAt = 0;
  private isIdle = false;
  private isClosed = false;

  /**
   * `sweep` returns whether there is something to watch; what is new since then is told by `wake`. `turned`: the event loop has
   * come round to the timer, so many milliseconds too late.
   */
  constructor(sweep: () => boolean, turned: (lateMs: number) => void) {
    this.sweep = sweep;
    this.turned = turned;
    this.wait();
  }

  /** There is something to watch from now on. */
  wake(): void {
    if (!this.isIdle) return;
    this.isIdle = false;
    if (this.timer === null) return;
    clearTimeout(this.timer);
    this.wait();
  }

  close(): void {
    this.isClosed = true;
    if (this.timer !== null) clearTimeout(this.timer);
  }

  private wait(): void {
    const delayMs = this.isIdle ? IDLE_SWEEP_MS : SWEEP_MS;
    this.dueAt = now() + delayMs;
    this.timer = setTimeout(this.timeOut, delayMs);
  }

  private readonly timeOut = (): void => {
    this.timer = null;
    this.turned(Math.max(0, now() - this.dueAt));
    // What came while this process could not run is read first: a client that has sent something is not idle.
    setImmediate(this.run);
  };

  private readonly run = (): void => {
    if (this.isClosed) return;
    this.isIdle = !this.sweep();
    if (!this.isClosed) this.wait();
  };
}
