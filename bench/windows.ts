/** Measured windows: a server under a load, the processor time that took, and what else ran on the same cores meanwhile. */

import { setTimeout as sleep } from 'node:timers/promises';
import { cpuNs } from '../src/size/proc.ts';
import type { Outcome } from './loads.ts';
import { type Cores, watchOthers } from './machine.ts';
import type { Program } from './programs.ts';

export interface Window extends Outcome {
  /** CPU time of the server's whole tree per request. */
  readonly cpuUs: number;
  /** CPU time of the tree in the window, as a share of one core. */
  readonly busy: number;
  /** The same of everything else that ran on the cores of server and load. */
  readonly others: number;
}

/** A window in which others took more than this of a core is measured again, at most twice. */
const MAX_OTHERS = 0.05;
const MAX_REPEATS = 2;
/** Of the run's time, for such repeats. */
const REPEATS_SHARE = 0.1;

export class Windows {
  private readonly cores: Cores;
  private repeatsLeftMs: number;

  /** `limitMs`: what the whole run may take. */
  constructor(cores: Cores, limitMs: number) {
    this.cores = cores;
    this.repeatsLeftMs = limitMs * REPEATS_SHARE;
  }

  /** One window, again if the machine was disturbed meanwhile: that depends on others, not on what was measured. */
  async measure(
    program: Program,
    putLoad: () => Promise<Outcome>,
    seen: (window: Window, again: boolean) => void,
  ): Promise<Window> {
    for (let repeats = 0; ; repeats++) {
      await quiet(program);
      const startedAt = Date.now();
      const others = watchOthers(this.cores);
      const before = cpuNs(program.pid);
      const outcome = await putLoad();
      // At once: what clients left behind when they hung up is work that no counted request pays for.
      const usedNs = cpuNs(program.pid) - before;
      const window: Window = {
        ...outcome,
        cpuUs: usedNs / 1000 / Math.max(1, outcome.requests),
        busy: usedNs / 1e9 / outcome.seconds,
        others: others(),
      };
      const again = window.others > MAX_OTHERS && repeats < MAX_REPEATS && this.repeatsLeftMs > 0;
      seen(window, again);
      if (!again) return window;
      this.repeatsLeftMs -= Date.now() - startedAt;
    }
  }
}

/** Waits until the server has nothing left to do: its tree uses less than 2 % of a core, twice in a row. */
export async function quiet(program: Program): Promise<void> {
  const stepMs = 50;
  let calm = 0;
  for (let tries = 0; tries < 100 && calm < 2; tries++) {
    const before = cpuNs(program.pid);
    await sleep(stepMs);
    calm = cpuNs(program.pid) - before < stepMs * 1e6 * 0.02 ? calm + 1 : 0;
  }
}

/** The order of another round: what comes first in one comes last in the next. */
export function rotate<T>(list: readonly T[], by: number): T[] {
  const at = list.length === 0 ? 0 : by % list.length;
  return [...list.slice(at), ...list.slice(0, at)];
}
