/**
 * What a running server's own figures say about its setting. Pure: from a status to advice. Advice is never acted upon, and never
 * given on thin evidence; what a change will bring is an expectation until `nunicorn size` has measured it.
 */
import { plural } from '../plural.ts';

/** What is needed of `GET /status` of the admin server (src/metrics/status.ts). Times in seconds, memory in bytes. */
export interface AdviceInput {
  readonly settings: { readonly workers: number; readonly threads: number; readonly preload: boolean };
  readonly workers: readonly {
    readonly number: number;
    readonly state: string;
    readonly age: number;
    readonly requests: number;
    readonly memory: { readonly pss: number | null; readonly rss: number | null };
  }[];
  readonly recent: {
    readonly seconds: number;
    readonly requestsPerSecond: number;
    readonly errorRatio: number;
    readonly utilization: number;
    readonly queueTime: { readonly p50: number; readonly p99: number } | null;
    readonly appTime: { readonly mean: number; readonly p99: number } | null;
    readonly perRequest: {
      readonly cpu: number;
      readonly gilWait: number | null;
      readonly cpuWait: number;
      readonly io: number;
    } | null;
  };
  readonly totals: { readonly requests: number };
}

export interface Advice {
  /** What to change, as an order. */
  readonly change: string;
  readonly why: string;
  readonly expect: string;
}

export interface AdviceContext {
  /** Processors that the server may use. */
  readonly cores: number;
  /** For the server in all, in bytes; undefined: not known. */
  readonly memoryLimit?: number;
  /** PSS of each worker at an earlier look, by number, and how long ago: for the slope of memory. */
  readonly earlier?: { readonly seconds: number; readonly pss: ReadonlyMap<number, number>; readonly requests: number };
}

/** Fewer requests than this say nothing. */
const ENOUGH_REQUESTS = 100;
const ENOUGH_SECONDS = 5;
/** Busy slots beyond this: waiting grows steeply (Erlang C). */
const BUSY = 0.7;
const IDLE = 0.1;
/** Waiting for a slot, beside the time in the application. */
const LONG_QUEUE = 0.1;
/** Of a request's time. */
const MUCH_GIL_WAIT = 0.2;
const MUCH_CPU_WAIT = 0.2;
/** Of the processors. */
const CORES_FULL = 0.85;
const MOSTLY_OTHERS = 0.6;
/** Of a worker's memory in an hour. */
const GROWS = 0.05;
const HOUR = 3600;
/** Of the limit; the rest is for the system, for master and fronts, and for peaks. */
const MEMORY_SHARE = 0.75;

export function advise(status: AdviceInput, context: AdviceContext): readonly Advice[] {
  const { recent } = status;
  if (recent.requestsPerSecond * recent.seconds < ENOUGH_REQUESTS || recent.seconds < ENOUGH_SECONDS) return [];
  const found = [
    errors(status),
    busy(status, context),
    gil(status, context),
    idle(status),
    memorySlope(status, context),
  ];
  return found.filter((advice) => advice !== undefined);
}

/** Why there is no advice for want of evidence, or undefined. */
export function tooLittle({ recent }: AdviceInput): string | undefined {
  const requests = Math.round(recent.requestsPerSecond * recent.seconds);
  return requests < ENOUGH_REQUESTS
    ? `${requests} requests in the last ${Math.round(recent.seconds)} s are too few to advise on: ask again under load`
    : recent.seconds < ENOUGH_SECONDS
      ? 'the server has not run long enough to advise on'
      : undefined;
}

function errors({ recent }: AdviceInput): Advice | undefined {
  if (recent.errorRatio < 0.01) return undefined;
  return {
    change: 'Look at the error log before you change any number',
    why: `${share(recent.errorRatio)} of the answers are of status 500 and above`,
    expect:
      'workers and threads do not mend errors, and errors are often faster than answers: all other figures mislead',
  };
}

/** Slots are used up, or requests wait for one. */
function busy(status: AdviceInput, context: AdviceContext): Advice | undefined {
  const { settings, recent } = status;
  const { cores } = context;
  const { utilization, queueTime, appTime, perRequest, requestsPerSecond } = recent;
  const waits = queueTime !== null && appTime !== null && queueTime.p99 > LONG_QUEUE * appTime.mean;
  if (utilization < BUSY && !waits) return undefined;
  const why = [
    `${share(utilization)} of ${settings.workers} x ${settings.threads} threads are busy`,
    ...(queueTime === null ? [] : [`requests wait ${ms(queueTime.p50)} (p99 ${ms(queueTime.p99)}) for one`]),
  ].join(', ');
  if (perRequest === null) {
    return {
      change:
        'Measure with nunicorn size: there are too few threads, but what a request needs is not known on this system',
      why,
      expect: 'shorter waits',
    };
  }
  const cpuPerSecond = requestsPerSecond * perRequest.cpu;
  if (cpuPerSecond > CORES_FULL * cores) {
    return {
      change: 'Give the server more processors, or make the application cheaper: no number of workers or threads helps',
      why: `${why}; the application uses ${cpuPerSecond.toFixed(1)} of ${cores} processors, ${ms(perRequest.cpu)} a request`,
      expect: `with one processor more, up to ${Math.round(1 / perRequest.cpu)} requests a second more`,
    };
  }
  // Slots for the load there is at the target, by Little's law: those busy now are what the load needs. Where that many are there
  // and requests wait all the same, they come together, and one more shortens the wait.
  const present = settings.workers * settings.threads;
  const slots = Math.max(present + 1, Math.ceil((utilization * present) / (BUSY - 0.1)));
  const knee = Math.max(1, Math.floor(1 + perRequest.io / Math.max(perRequest.cpu, 1e-6)));
  const threads = Math.max(settings.threads, Math.min(knee, Math.ceil(slots / settings.workers)));
  const workers = Math.max(settings.workers, Math.ceil(slots / threads));
  const room = roomFor(status, context);
  if (workers > settings.workers && room !== undefined && workers > room)
    return {
      change: `Give the server more memory: ${workers} x ${threads} (workers x threads) would serve this load`,
      why: `${why}; but the memory has room for ${plural(room, 'worker')} only`,
      expect: 'with --preload workers share memory: look at that first',
    };
  return {
    change: `Run ${workers} x ${threads} (workers x threads) instead of ${settings.workers} x ${settings.threads}`,
    why: `${why}; a request computes ${ms(perRequest.cpu)} and waits ${ms(perRequest.io)} for others, so a worker has use for up to ${plural(knee, 'thread')} (1 + waiting / computing)`,
    expect: `${share((utilization * present) / (workers * threads))} of the threads busy at this load, and shorter waits`,
  };
}

/** How many workers the memory has room for; undefined: not known. */
function roomFor({ workers }: AdviceInput, { memoryLimit }: AdviceContext): number | undefined {
  const weights = workers.flatMap(({ memory: { pss, rss } }) => pss ?? rss ?? []);
  if (memoryLimit === undefined || weights.length === 0) return undefined;
  const each = weights.reduce((sum, weight) => sum + weight, 0) / weights.length;
  return Math.floor((MEMORY_SHARE * memoryLimit) / each);
}

/** Threads of one worker wait for each other while processors are free. */
function gil({ settings, recent }: AdviceInput, { cores }: AdviceContext): Advice | undefined {
  const { perRequest, requestsPerSecond } = recent;
  if (perRequest === null) return undefined;
  const { cpu, gilWait, cpuWait, io } = perRequest;
  const whole = cpu + (gilWait ?? 0) + cpuWait + io;
  if (gilWait !== null && settings.threads > 1 && gilWait > MUCH_GIL_WAIT * whole) {
    const free = cores - requestsPerSecond * cpu;
    const threads = Math.max(1, Math.floor(settings.threads / 2));
    const workers = Math.ceil((settings.workers * settings.threads) / threads);
    return free > 0.5
      ? {
          change: `Run more workers with fewer threads: ${workers} x ${threads}`,
          why: `a request waits ${ms(gilWait)} of ${ms(whole)} for Python's lock (GIL), while ${free.toFixed(1)} of ${cores} processors are free`,
          expect: 'the same number of threads that hinder each other less; each worker takes its memory once more',
        }
      : {
          change: `Run fewer threads: ${settings.workers} x ${threads}`,
          why: `a request waits ${ms(gilWait)} of ${ms(whole)} for Python's lock (GIL), and no processor is free for more workers`,
          expect: 'the same throughput with shorter answers: waiting is moved to the queue, where it costs nothing',
        };
  }
  const own = requestsPerSecond * cpu;
  if (cpuWait > MUCH_CPU_WAIT * whole && own < MOSTLY_OTHERS * cores)
    return {
      change: 'Look at what else runs on this machine',
      why: `a request waits ${ms(cpuWait)} of ${ms(whole)} for a processor, while this server uses ${own.toFixed(1)} of ${cores}: others take them, or a quota does`,
      expect: 'all other advice is to be taken with care until that is settled',
    };
  if (cpuWait > MUCH_CPU_WAIT * whole && settings.workers > 1)
    return {
      change: `Run fewer workers, or give the server more than ${cores} processors`,
      why: `a request waits ${ms(cpuWait)} of ${ms(whole)} for a processor: more is ready to run than can`,
      expect: 'the same throughput, with less memory and shorter answers',
    };
  return undefined;
}

/** Far more slots than the load needs. */
function idle({ settings, recent, workers }: AdviceInput): Advice | undefined {
  const { utilization } = recent;
  if (utilization > IDLE || settings.workers === 1) return undefined;
  const memory = workers.flatMap(({ memory: { pss } }) => (pss === null ? [] : [pss]));
  const each = memory.length === 0 ? undefined : memory.reduce((sum, pss) => sum + pss, 0) / memory.length;
  const enough = Math.max(1, Math.ceil((utilization / 0.5) * settings.workers));
  if (enough >= settings.workers) return undefined;
  return {
    change: `If this is your busiest hour, ${plural(enough, 'worker')} will do instead of ${settings.workers}`,
    why: `${share(utilization)} of the threads are busy`,
    expect: each === undefined ? 'less memory' : `about ${megabytes((settings.workers - enough) * each)} less memory`,
  };
}

/** Memory that grows with time and requests. */
function memorySlope({ workers, totals }: AdviceInput, { earlier }: AdviceContext): Advice | undefined {
  if (earlier === undefined || earlier.seconds < 10 || totals.requests <= earlier.requests) return undefined;
  const grown = workers.flatMap(({ number, memory: { pss } }) => {
    const before = earlier.pss.get(number);
    return pss === null || before === undefined ? [] : [{ before, more: pss - before }];
  });
  const before = grown.reduce((sum, each) => sum + each.before, 0);
  const more = grown.reduce((sum, each) => sum + each.more, 0);
  if (before === 0) return undefined;
  const perHour = (more / earlier.seconds) * HOUR;
  if (perHour < GROWS * before) return undefined;
  const perRequest = more / (totals.requests - earlier.requests);
  const requests = Math.max(500, Math.round((0.5 * before) / grown.length / Math.max(perRequest, 1) / 100) * 100);
  return {
    change: `Recycle workers: --max-requests ${requests} --max-requests-jitter ${Math.round(requests / 10)}`,
    why: `workers grow by ${megabytes(perHour)} an hour, ${(perRequest / 1024).toFixed(1)} KB a request, by what ${Math.round(earlier.seconds)} s show`,
    expect: 'memory that stays below one and a half of what a worker has now; recycling drops no request',
  };
}

function ms(seconds: number): string {
  const value = seconds * 1000;
  return `${value < 0.995 ? value.toFixed(2) : value < 9.95 ? value.toFixed(1) : Math.round(value)} ms`;
}

function share(value: number): string {
  return `${(value * 100).toFixed(value < 0.095 ? 1 : 0)} %`;
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1024 / 1024)} MB`;
}
