/** A cell: one way to run the application, as it is measured. */
export interface Cell {
  readonly server: 'nunicorn' | 'gunicorn';
  readonly workers: number;
  readonly threads: number;
  /** 1 for gunicorn, which has none. */
  readonly fronts: number;
  readonly preload: boolean;
}

export function slotsOf({ workers, threads }: Cell): number {
  return workers * threads;
}

/** E.g. `2x4`, `2x4 preload`, `gunicorn 2x4`: a name for people and a key for maps. */
export function nameOf({ server, workers, threads, fronts, preload }: Cell): string {
  return [
    ...(server === 'gunicorn' ? ['gunicorn'] : []),
    `${workers}x${threads}`,
    ...(fronts > 1 ? [`${fronts} fronts`] : []),
    ...(preload ? ['preload'] : []),
  ].join(' ');
}

/** Numbers of threads that are worth telling apart: nearer ones differ by less than measurements do. */
const THREAD_STEPS = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128];

export const MAX_THREADS = THREAD_STEPS.at(-1) ?? 1;

/** The smallest step that is at least `threads`. */
export function threadStep(threads: number): number {
  return THREAD_STEPS.find((step) => step >= threads) ?? MAX_THREADS;
}

/** `by` steps further up or down; stays within the steps. */
export function stepFrom(threads: number, by: number): number {
  const at = THREAD_STEPS.indexOf(threadStep(threads)) + by;
  return THREAD_STEPS[Math.max(0, Math.min(THREAD_STEPS.length - 1, at))] ?? 1;
}

/** How many steps apart two numbers of threads are. */
export function stepsBetween(a: number, b: number): number {
  return Math.abs(THREAD_STEPS.indexOf(threadStep(a)) - THREAD_STEPS.indexOf(threadStep(b)));
}
