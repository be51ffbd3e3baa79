/**
 * What a front counts while it serves: cells of typed arrays, added to in place, so that a request costs no new object. The
 * master reads them once a second, and when it is asked for metrics (see totals.ts). Layout and names are the same there.
 */

/** What became of a request. With the class of its status it is the key of `nunicorn_requests_total`. */
export const OUTCOMES = [
  /** The app's answer was sent, whatever its status. */
  'answered',
  /** The app raised an error: 500. */
  'app_error',
  /** It ran into --timeout: 504, or cut if the answer had begun. */
  'timeout',
  /** It waited in the queue for --queue-timeout: 504. */
  'queue_timeout',
  /** --max-queue requests were waiting: 503. */
  'queue_full',
  /** The server stopped before it was answered: 503. */
  'shutdown',
  /** Its worker died: 502. */
  'worker_lost',
  /** The front did not accept it: invalid, too large, too slow. */
  'refused',
  /** The client left before it had its answer. */
  'client_left',
  /** The app failed in the middle of an answer, which was cut off. */
  'cut',
] as const;

export type Outcome = (typeof OUTCOMES)[number];

/** As numbers, which is how an exchange keeps it. */
export const OUTCOME = Object.fromEntries(OUTCOMES.map((name, index) => [name, index])) as Readonly<
  Record<Outcome, number>
>;

/** `none`: no status was sent. */
export const CODE_CLASSES = ['none', '1xx', '2xx', '3xx', '4xx', '5xx'] as const;

export const REQUEST_CELLS = CODE_CLASSES.length * OUTCOMES.length;

/** Upper bounds of the histograms' buckets, in milliseconds; above the last one is one more bucket. */
export const BOUNDS_MS: readonly number[] = [
  0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000,
  3000, 5000, 7000, 10_000, 15_000, 20_000, 30_000, 60_000,
];

/** A histogram is a cell for each bucket, then the sum in milliseconds. */
export const HISTOGRAM_CELLS = BOUNDS_MS.length + 2;

/** The cells of a front, by offset. */
export const FRONT_AT = {
  requests: 0,
  /** From the last byte of the request to the slot. */
  queue: REQUEST_CELLS,
  /** In the app, as the worker measured it. */
  app: REQUEST_CELLS + HISTOGRAM_CELLS,
  /** From the head of the request to the end of the answer. */
  whole: REQUEST_CELLS + 2 * HISTOGRAM_CELLS,
  /** From the head of the request to the last byte of its body. */
  body: REQUEST_CELLS + 3 * HISTOGRAM_CELLS,
  /** How late the event loop was, measured ten times a second. */
  lag: REQUEST_CELLS + 4 * HISTOGRAM_CELLS,
  connections: REQUEST_CELLS + 5 * HISTOGRAM_CELLS,
  clientDisconnects: REQUEST_CELLS + 5 * HISTOGRAM_CELLS + 1,
  /** Requests that ran beside a stuck one and were lost with its worker. */
  killedInnocent: REQUEST_CELLS + 5 * HISTOGRAM_CELLS + 2,
  accessLinesDropped: REQUEST_CELLS + 5 * HISTOGRAM_CELLS + 3,
  /** Of the front's process, user and system. */
  cpuMs: REQUEST_CELLS + 5 * HISTOGRAM_CELLS + 4,
  /** Time that idle slots were kept in reserve beside waiting requests, summed over them. */
  reservedMs: REQUEST_CELLS + 5 * HISTOGRAM_CELLS + 5,
} as const;

export const FRONT_CELLS = REQUEST_CELLS + 5 * HISTOGRAM_CELLS + 6;

/** The cells of a worker, by offset. Times in milliseconds. */
export const WORKER_AT = {
  requests: 0,
  /** Slots that had something to run, summed. */
  busyMs: 1,
  /** In the app, as the worker measured it. */
  appMs: 2,
} as const;

const WORKER_CELLS = 3;

/** What cells mean, as a text: where it differs, so does the meaning. */
export const LAYOUT = JSON.stringify([OUTCOMES, CODE_CLASSES, BOUNDS_MS, FRONT_AT, WORKER_AT]);

/** The cells of a worker, which begin at 0. */
export function cellsOf(workers: Map<number, Float64Array>, number: number): Float64Array {
  let cells = workers.get(number);
  if (cells === undefined) {
    cells = new Float64Array(WORKER_CELLS);
    workers.set(number, cells);
  }
  return cells;
}

/** Adds a duration to the histogram that begins at `at`. */
export function observe(cells: Float64Array, at: number, milliseconds: number): void {
  let bucket = 0;
  while (bucket < BOUNDS_MS.length && milliseconds > (BOUNDS_MS[bucket] as number)) bucket++;
  (cells[at + bucket] as number)++;
  (cells[at + HISTOGRAM_CELLS - 1] as number) += milliseconds;
}

/** The counters of a front and of the workers it has had. */
export class FrontCounters {
  readonly cells = new Float64Array(FRONT_CELLS);
  /** By worker number: a worker and its replacement count in the same cells. */
  readonly workers = new Map<number, Float64Array>();

  worker(number: number): Float64Array {
    return cellsOf(this.workers, number);
  }

  /** A request is over. `status` 0: nothing was sent. */
  requestOver(status: number, outcome: number, wholeMs: number): void {
    const codeClass = status < 100 || status > 599 ? 0 : Math.floor(status / 100);
    (this.cells[FRONT_AT.requests + codeClass * OUTCOMES.length + outcome] as number)++;
    observe(this.cells, FRONT_AT.whole, wholeMs);
  }

  /** A thread has answered a request. */
  answered(worker: Float64Array, queueMs: number, appMs: number, busyMs: number): void {
    observe(this.cells, FRONT_AT.queue, queueMs);
    observe(this.cells, FRONT_AT.app, appMs);
    (worker[WORKER_AT.requests] as number)++;
    (worker[WORKER_AT.busyMs] as number) += busyMs;
    (worker[WORKER_AT.appMs] as number) += appMs;
  }

  busy(worker: Float64Array, busyMs: number): void {
    (worker[WORKER_AT.busyMs] as number) += busyMs;
  }

  add(at: number): void {
    (this.cells[at] as number)++;
  }
}
