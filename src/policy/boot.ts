/** How far a worker has come that is not ready yet. Pure: times come in as arguments, in milliseconds. */

/** What a worker has reached, in this order; then it is ready. */
const BOOT_STEPS = {
  spawned: { reached: 'spawned', next: 'starting its interpreter and calling the master' },
  connected: { reached: 'connected', next: 'importing the app' },
  imported: { reached: 'app imported', next: 'making itself ready' },
} as const;

export type BootStep = keyof typeof BOOT_STEPS;

export interface Reached {
  readonly step: BootStep;
  readonly at: number;
}

/** Whether a worker that began to boot at `startedAt` has had its time. A `limitMs` of 0 is no limit. */
export function bootIsOver(startedAt: number, limitMs: number, now: number): boolean {
  return limitMs > 0 && now - startedAt >= limitMs;
}

/** `while importing the app (spawned, connected after 0.12 s)` */
export function bootReport(startedAt: number, reached: readonly Reached[]): string {
  const last = reached.at(-1)?.step ?? 'spawned';
  const steps = reached.map(
    ({ step, at }) => `${BOOT_STEPS[step].reached} after ${((at - startedAt) / 1000).toFixed(2)} s`,
  );
  return `while ${BOOT_STEPS[last].next} (${['spawned', ...steps].join(', ')})`;
}
