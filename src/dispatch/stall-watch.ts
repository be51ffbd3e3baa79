/**
 * Finds a dispatcher that has lost track of its slots: requests wait beside a slot that has nothing to do. That can only be a
 * defect of ours, so it is told with all that is known, and cured, so that it costs a second and not an outage.
 */
import type { Dispatched, Dispatcher } from './dispatcher.ts';

export const STALL_MS = 1000;

export class StallWatch {
  private since: number | null = null;

  /** To be called several times a second. Returns what was wrong when it has been for STALL_MS; then it is mended. */
  check<R extends Dispatched>(dispatcher: Dispatcher<R>, now: number): string | null {
    const stalled = dispatcher.queueLength > 0 && dispatcher.violations(now).length > 0;
    if (!stalled) {
      this.since = null;
      return null;
    }
    this.since ??= now;
    if (now - this.since < STALL_MS) return null;
    this.since = null;
    const report = `${dispatcher.violations(now).join('; ')}\n${dispatcher.describe()}`;
    dispatcher.repair(now);
    return report;
  }
}
