/**
 * What guides say about workers, threads and memory, in our words, with where they say it and how what was measured answers it.
 * The guides are short texts on setting up Gunicorn as people share them; they are named by language and subject.
 */

export type SetupId =
  | 'sync1'
  | 'sync2'
  | 'sync3'
  | 'gthread1x2'
  | 'gthread1x4'
  | 'gthread2x2'
  | 'gevent1'
  | 'uvicorn1'
  | 'nunicorn1x1'
  | 'nunicorn1x2'
  | 'nunicorn2x2';

export type Site = 'django' | 'waiting' | 'hello';

export interface Measured {
  /** At full speed on one core. */
  readonly perSecond: number;
  /** Of the core, 0 to 1. */
  readonly cpu: number;
  /** PSS of all processes together, and of a worker; RSS of a worker as `ps` shows it. MB. */
  readonly totalMb: number;
  readonly workerMb: number;
  readonly workerRssMb: number;
}

/** Undefined: not measured, as where a package is missing. */
export type Lookup = (setup: SetupId, site: Site) => Measured | undefined;

export interface Answer {
  readonly verdict: 'holds' | 'does not hold' | 'depends' | 'not measured';
  readonly figures: string;
}

export interface Claim {
  readonly says: string;
  readonly source: string;
  readonly answer: (of: Lookup) => Answer;
}

const SERVER_GUIDE = 'Uzbek guide, Django on a server with 1 CPU and 1 GB';
const RULE_SOURCES = 'Uzbek guide section 1, both Russian guides on Gunicorn, Russian notes on Gunicorn and Uvicorn';
const NOTES = 'Russian notes on Gunicorn and Uvicorn';

/** Beside it a figure counts as what the guide says. */
const WITHIN = 0.25;

export const CLAIMS: readonly Claim[] = [
  {
    says: 'A worker of a plain Django project takes 120 to 200 MB, 150 on average',
    source: `${SERVER_GUIDE}, section 12`,
    answer: (of) =>
      given(of('sync1', 'django'), (sync) => ({
        verdict:
          sync.workerMb >= 120 && sync.workerMb <= 200
            ? 'holds'
            : sync.workerRssMb >= 120
              ? 'depends'
              : 'does not hold',
        figures: `${mb(sync.workerMb)} of memory of its own share (PSS), ${mb(sync.workerRssMb)} as ps shows it (RSS), for this project`,
      })),
  },
  {
    says: 'sync takes 160 MB, gthread 170, gevent 140: the class decides',
    source: `${SERVER_GUIDE}, section 12`,
    answer: (of) =>
      given(of('sync1', 'django'), of('gthread1x2', 'django'), of('gevent1', 'django'), (sync, gthread, gevent) => ({
        verdict:
          Math.max(gthread.workerMb / sync.workerMb, gevent.workerMb / sync.workerMb) < 1.1 &&
          gevent.workerMb < sync.workerMb
            ? 'holds'
            : 'does not hold',
        figures: `sync ${mb(sync.workerMb)}, gthread ${mb(gthread.workerMb)}, gevent ${mb(gevent.workerMb)}: the project decides, not the class`,
      })),
  },
  {
    says: 'A worker of Gunicorn takes about 30 MB',
    source: NOTES,
    answer: (of) =>
      given(of('sync1', 'hello'), of('sync1', 'django'), (hello, django) => ({
        verdict: 'depends',
        figures: `${mb(hello.workerMb)} with hello world, ${mb(django.workerMb)} with Django (PSS)`,
      })),
  },
  {
    says: '1 worker 150 MB, 2 workers 300, 1 x 2 threads 180, 2 x 2 threads 350 (in all)',
    source: `${SERVER_GUIDE}, section 11`,
    answer: (of) =>
      given(
        of('sync1', 'django'),
        of('sync2', 'django'),
        of('gthread1x2', 'django'),
        of('gthread2x2', 'django'),
        (one, two, threads, four) => ({
          verdict: [
            near(one.totalMb, 150),
            near(two.totalMb, 300),
            near(threads.totalMb, 180),
            near(four.totalMb, 350),
          ].every(Boolean)
            ? 'holds'
            : 'does not hold',
          figures: `${mb(one.totalMb)}, ${mb(two.totalMb)}, ${mb(threads.totalMb)}, ${mb(four.totalMb)} (PSS): a second worker costs ${mb(two.totalMb - one.totalMb)}, a second thread ${mb(threads.totalMb - one.totalMb)}`,
        }),
      ),
  },
  {
    says: 'On 1 CPU: 1 worker uses 25 % of it, 2 workers or 1 x 2 threads 50 %, 2 x 2 threads 100 %',
    source: `${SERVER_GUIDE}, section 11`,
    answer: (of) =>
      given(
        of('sync1', 'django'),
        of('gthread2x2', 'django'),
        of('sync1', 'waiting'),
        of('gthread2x2', 'waiting'),
        (one, four, waits, waits4) => ({
          verdict: one.cpu > 0.8 ? 'does not hold' : 'depends',
          figures: `at full speed one worker uses ${percent(one.cpu)} with Django (2 x 2: ${percent(four.cpu)}); ${percent(waits.cpu)} with an application that waits four fifths of the time (2 x 2: ${percent(waits4.cpu)})`,
        }),
      ),
  },
  {
    says: '2 workers x 2 threads carry four times as much as the plain command (1 sync worker)',
    source: `${SERVER_GUIDE}, section 10`,
    answer: (of) => times(of, 'gthread2x2', 4),
  },
  {
    says: '1 worker x 2 threads is best for 1 CPU, and three times as fast as the plain command',
    source: `${SERVER_GUIDE}, sections 10 and 11`,
    answer: (of) => times(of, 'gthread1x2', 3),
  },
  {
    says: '1 worker with 2 threads runs 3 requests at a time',
    source: `${SERVER_GUIDE}, section 10`,
    answer: (of) =>
      given(of('sync1', 'waiting'), of('gthread1x2', 'waiting'), (one, two) => ({
        verdict: two.perSecond / one.perSecond > 2.5 ? 'holds' : 'does not hold',
        figures: `2: an application that waits goes ${(two.perSecond / one.perSecond).toFixed(2)} times as fast as with one thread`,
      })),
  },
  {
    says: '2 x cores + 1 workers are the number to take',
    source: RULE_SOURCES,
    answer: (of) =>
      given(
        of('sync1', 'django'),
        of('sync3', 'django'),
        of('sync3', 'waiting'),
        of('gthread2x2', 'waiting'),
        of('sync1', 'waiting'),
        (one, rule, waits, four, waits1) => ({
          verdict: 'depends',
          figures: `3 workers on 1 core carry ${(rule.perSecond / one.perSecond).toFixed(2)} times what 1 does with Django, for ${mb(rule.totalMb - one.totalMb)} more memory; with an application that waits ${(waits.perSecond / waits1.perSecond).toFixed(2)} times, where 2 x 2 threads carry ${(four.perSecond / waits1.perSecond).toFixed(2)} times`,
        }),
      ),
  },
  {
    says: 'Gunicorn answers 3,000 to 10,000 requests a second',
    source: NOTES,
    answer: (of) =>
      given(of('sync1', 'hello'), of('gthread2x2', 'hello'), of('sync1', 'django'), (sync, gthread, django) => ({
        verdict: 'depends',
        figures: `hello world on one core: sync ${Math.round(sync.perSecond)}/s (a new connection for each), gthread 2 x 2 ${Math.round(gthread.perSecond)}/s; Django with SQLite ${Math.round(django.perSecond)}/s: the application decides`,
      })),
  },
  {
    says: 'gevent serves an application that waits better than threads',
    source: 'Uzbek guide, section 1 (gevent for 1 CPU) and section 12 (gevent for many requests)',
    answer: (of) =>
      given(
        of('gevent1', 'django'),
        of('gthread1x2', 'django'),
        of('gevent1', 'waiting'),
        of('gthread1x4', 'waiting'),
        (gevent, gthread, waits, threads) => ({
          verdict: 'depends',
          figures: `Django with SQLite: gevent ${Math.round(gevent.perSecond)}/s, gthread 1 x 2 ${Math.round(gthread.perSecond)}/s; waiting that gevent knows of (sleep): ${Math.round(waits.perSecond)}/s, gthread 1 x 4 ${Math.round(threads.perSecond)}/s`,
        }),
      ),
  },
  {
    says: '35,000 to 40,000 requests a second and 20 MB a worker with Uvicorn',
    source: NOTES,
    answer: (of) =>
      given(of('uvicorn1', 'hello'), of('gthread2x2', 'hello'), (uvicorn, gthread) => ({
        verdict: uvicorn.perSecond > 30_000 ? 'holds' : 'does not hold',
        figures: `hello world on one core: ${Math.round(uvicorn.perSecond)}/s (Gunicorn gthread ${Math.round(gthread.perSecond)}/s), ${mb(uvicorn.workerMb)}`,
      })),
  },
];

/** How much more than the plain command a setup carries, with an application that computes and one that waits. */
function times(of: Lookup, setup: SetupId, claimed: number): Answer {
  return given(
    of('sync1', 'django'),
    of(setup, 'django'),
    of('sync1', 'waiting'),
    of(setup, 'waiting'),
    (plain, django, waits, waiting) => {
      const gains = [django.perSecond / plain.perSecond, waiting.perSecond / waits.perSecond];
      const held = gains.filter((gain) => gain >= claimed * (1 - WITHIN)).length;
      return {
        verdict: held === gains.length ? 'holds' : held === 0 ? 'does not hold' : 'depends',
        figures: `${gains[0]?.toFixed(2)} times with Django, ${gains[1]?.toFixed(2)} times with an application that waits four fifths of the time`,
      };
    },
  );
}

function near(value: number, claimed: number): boolean {
  return Math.abs(value / claimed - 1) <= WITHIN;
}

/** Answers if everything was measured. */
function given<const M extends readonly (Measured | undefined)[]>(
  ...args: [...M, (...measured: { [K in keyof M]: Measured }) => Answer]
): Answer {
  const answer = args.at(-1) as (...measured: Measured[]) => Answer;
  const measured = args.slice(0, -1) as (Measured | undefined)[];
  const there = measured.filter((each) => each !== undefined);
  return there.length === measured.length
    ? answer(...there)
    : { verdict: 'not measured', figures: 'a package is missing here' };
}

function mb(value: number): string {
  return `${Math.round(value)} MB`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
