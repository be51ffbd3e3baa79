/**
 * `npm run bench:claims`: what guides say about Gunicorn's workers, threads and memory, measured on one core of this machine and printed
 * beside it. Writes bench/results/claims.md and claims.json after each measurement: `--continue` goes on where it was stopped.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Cell } from '../../src/size/cell.ts';
import { Generator } from '../../src/size/generator.ts';
import { impose } from '../../src/size/impose.ts';
import type { LoadResult } from '../../src/size/load/load.ts';
import { cpuNsOf, read } from '../../src/size/proc.ts';
import { ServerUnderTest } from '../../src/size/server.ts';
import { median } from '../../src/size/statistics.ts';
import { commandLine, duration, positive } from '../command-line.ts';
import { freePort } from '../loads.ts';
import { CLAIMS, type Measured, type SetupId, type Site } from './claims.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const RESULTS = join(ROOT, 'bench', 'results');
/** Of a virtual environment with gunicorn, django, gevent, packaging, uvicorn, uvloop and httptools; what it lacks is left out. */
const PYTHON = process.env.PYTHON ?? join(ROOT, '.test', 'venv', 'bin', 'python');
const PAGE = 4096;
const MB = 1024 * 1024;
const IN_FLIGHT = 12;
/** Load average up to which the machine counts as idle. */
const QUIET = 0.5;
/** Memory is read when so many requests were answered. */
const REQUESTS = 1000;

interface Setup {
  readonly server: Cell['server'];
  readonly workers: number;
  readonly threads: number;
  readonly workerClass: 'sync' | 'gthread' | 'gevent' | 'asgi';
}

const SETUPS: Readonly<Record<SetupId, Setup>> = {
  sync1: { server: 'gunicorn', workers: 1, threads: 1, workerClass: 'sync' },
  sync2: { server: 'gunicorn', workers: 2, threads: 1, workerClass: 'sync' },
  sync3: { server: 'gunicorn', workers: 3, threads: 1, workerClass: 'sync' },
  gthread1x2: { server: 'gunicorn', workers: 1, threads: 2, workerClass: 'gthread' },
  gthread1x4: { server: 'gunicorn', workers: 1, threads: 4, workerClass: 'gthread' },
  gthread2x2: { server: 'gunicorn', workers: 2, threads: 2, workerClass: 'gthread' },
  gevent1: { server: 'gunicorn', workers: 1, threads: 1, workerClass: 'gevent' },
  uvicorn1: { server: 'gunicorn', workers: 1, threads: 1, workerClass: 'asgi' },
  nunicorn1x1: { server: 'nunicorn', workers: 1, threads: 1, workerClass: 'sync' },
  nunicorn1x2: { server: 'nunicorn', workers: 1, threads: 2, workerClass: 'gthread' },
  nunicorn2x2: { server: 'nunicorn', workers: 2, threads: 2, workerClass: 'gthread' },
};

const SITES: Readonly<Record<Site, { readonly app: string; readonly path: string }>> = {
  django: { app: 'django_shop.wsgi:application', path: '/books/' },
  waiting: { app: 'synthetic:application', path: '/' },
  hello: { app: 'hello:application', path: '/' },
};

type Figures = Partial<Record<`${SetupId} ${Site}`, readonly Measured[]>>;

interface Results {
  readonly at: string;
  readonly machine: string;
  readonly versions: string;
  /** Before the first round: what else ran. */
  readonly loadBefore: number;
  readonly figures: Figures;
}

const USAGE = `  --rounds N    3
  --seconds S   2, of each load
  --continue    go on where it was stopped
  --render      write the page anew, measure nothing`;

const options = commandLine(
  'bench:claims',
  USAGE,
  {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '2' },
    continue: { type: 'boolean', default: false },
    render: { type: 'boolean', default: false },
  },
  (values) => ({
    ...values,
    rounds: positive('rounds', values.rounds),
    seconds: duration('seconds', values.seconds),
  }),
);

const file = join(RESULTS, 'claims.json');
const known = options.render || options.continue ? (JSON.parse(readFileSync(file, 'utf8')) as Results) : undefined;
const results = known !== undefined && options.render ? known : await measureAll(known);
write(results);
console.log(toMarkdown(results));

function write(all: Results): void {
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(file, `${JSON.stringify(all, undefined, 1)}\n`);
  writeFileSync(join(RESULTS, 'claims.md'), toMarkdown(all));
}

/** Rounds outermost, so that a slow minute of the machine hits all. `before`: what there is already. */
async function measureAll(before: Results | undefined): Promise<Results> {
  const [loadBefore = 0] = loadavg();
  const imposed = impose({ cpus: 1 });
  const generator = new Generator(imposed.generator);
  const folder = mkdtempSync(join(tmpdir(), 'nunicorn-bench-claims-'));
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    PYTHONDONTWRITEBYTECODE: '1',
    PYTHONPATH: join(ROOT, 'examples'),
    SHOP_DATABASE: join(folder, 'shop.sqlite3'),
    LOCKED_MS: '2',
    WAIT_MS: '8',
  };
  let all: Results = before ?? {
    at: new Date().toISOString().slice(0, 16).replace('T', ' '),
    machine: `${cpus()[0]?.model ?? 'unknown'}, one of ${cpus().length} cores (${imposed.cpu})`,
    versions: versions(),
    loadBefore,
    figures: {},
  };
  const failed = new Set<string>();
  const names = (Object.keys(SITES) as Site[]).flatMap((site) =>
    (Object.keys(SETUPS) as SetupId[]).flatMap((id) => (id === 'uvicorn1' && site !== 'hello' ? [] : [{ id, site }])),
  );
  const { rounds } = options;
  try {
    execFileSync(PYTHON, ['-m', 'django_shop.fill'], { env, cwd: join(ROOT, 'examples') });
    for (let round = 1; round <= rounds; round++)
      for (const [i, { id, site }] of names.entries()) {
        const name = `${id} ${site}` as const;
        const measured = all.figures[name] ?? [];
        if (failed.has(name) || measured.length >= round) continue;
        const at = `${(round - 1) * names.length + i + 1}/${rounds * names.length}`;
        try {
          const one = await measure(SETUPS[id], site, env, imposed.server, generator);
          all = { ...all, figures: { ...all.figures, [name]: [...measured, one] } };
          write(all);
          console.error(`${at} ${name}: ${Math.round(one.perSecond)}/s, ${Math.round(one.totalMb)} MB`);
        } catch (error) {
          failed.add(name);
          console.error(`${at} ${name} is left out: ${error instanceof Error ? error.message : error}`);
        }
      }
  } finally {
    generator.stop();
    imposed.release();
    rmSync(folder, { recursive: true, force: true });
  }
  return all;
}

function versions(): string {
  const script =
    'import sys, gunicorn, django; print(f"Python {sys.version.split()[0]}, Gunicorn {gunicorn.__version__}, Django {django.__version__}")';
  return execFileSync(PYTHON, ['-c', script], { encoding: 'utf8' }).trim();
}

async function measure(
  setup: Setup,
  site: Site,
  env: NodeJS.ProcessEnv,
  pin: (command: readonly string[]) => readonly string[],
  generator: Generator,
): Promise<Measured> {
  const { server: kind, workers, threads, workerClass } = setup;
  const port = await freePort();
  const { app, path } = SITES[site];
  const size = [
    '--bind',
    `127.0.0.1:${port}`,
    '--workers',
    `${workers}`,
    '--threads',
    `${threads}`,
    '--worker-class',
    workerClass,
  ];
  const words =
    workerClass === 'asgi'
      ? [PYTHON, '-m', 'uvicorn', '--port', `${port}`, '--no-access-log', 'hello_asgi:application']
      : kind === 'gunicorn'
        ? [PYTHON, '-m', 'gunicorn', ...size, '--no-control-socket', app]
        : [process.execPath, join(ROOT, 'bin', 'nunicorn.js'), '--python', PYTHON, ...size, app];
  const cell: Cell = { server: kind, workers, threads, fronts: 1, preload: false };
  const command = { kind: 'python' as const, words: pin(words), cwd: join(ROOT, 'bench', 'apps'), env };
  const answers = async (): Promise<boolean> => {
    try {
      return (await fetch(`http://127.0.0.1:${port}${path}`, { headers: { connection: 'close' } })).status === 200;
    } catch {
      return false;
    }
  };
  const server = await ServerUnderTest.start(cell, port, command, answers);
  try {
    const load = (durationMs: number): Promise<LoadResult> =>
      generator.run({
        host: '127.0.0.1',
        port,
        requests: [{ text: `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`, weight: 1, status: 200 }],
        arrivals: { kind: 'closed', inFlight: IN_FLIGHT },
        durationMs,
        warmUpMs: 100,
        connections: 64,
        keepAlive: true,
        timeoutMs: 10_000,
        spin: false,
        seed: 1,
      });
    let asked = (await load(500)).answeredInAll;
    const before = cpuNsOf(server.tree());
    const startedAt = performance.now();
    const { completed, seconds, answeredInAll } = await load(options.seconds * 1000);
    const cpu = (cpuNsOf(server.tree()) - before) / 1e6 / (performance.now() - startedAt);
    asked += answeredInAll;
    for (let more = 1; asked < REQUESTS && more > 0; asked += more) more = (await load(1000)).answeredInAll;
    const { workersMb, baseMb } = server.memory();
    const parts = server.parts();
    // Uvicorn's only worker is the process itself.
    const alone = parts.workers.length === 0;
    const rss = (alone ? parts.base : parts.workers).map(
      ({ pid }) => (Number(read(`/proc/${pid}/statm`)?.split(' ')[1] ?? 0) * PAGE) / MB,
    );
    return {
      perSecond: completed / seconds,
      cpu,
      totalMb: workersMb + baseMb,
      workerMb: (alone ? baseMb : workersMb) / workers,
      workerRssMb: median(rss),
    };
  } finally {
    await server.stop();
  }
}

function toMarkdown({ at, machine, versions, loadBefore, figures }: Results): string {
  const of = (setup: SetupId, site: Site): Measured | undefined => {
    const list = figures[`${setup} ${site}`];
    if (list === undefined || list.length === 0) return undefined;
    const middle = (select: (measured: Measured) => number): number => median(list.map(select));
    return {
      perSecond: middle((each) => each.perSecond),
      cpu: middle((each) => each.cpu),
      totalMb: middle((each) => each.totalMb),
      workerMb: middle((each) => each.workerMb),
      workerRssMb: middle((each) => each.workerRssMb),
    };
  };
  const lines = [
    '# What guides say, measured',
    '',
    `Made by \`npm run bench:claims\`, ${at} UTC, from claims.json beside it. ${machine}; ${versions}. ${IN_FLIGHT} requests under way, medians of the rounds. Django: a list of 12 books from SQLite (\`examples/django_shop\`). Waiting: 2 ms of work, 8 ms of sleep. Memory after at least ${REQUESTS} requests.`,
    '',
    ...(loadBefore > QUIET
      ? [
          `**The machine was busy** (load average ${loadBefore.toFixed(1)} before the first round): memory holds, but rates and what follows from them are to be measured again on a quiet one.`,
          '',
        ]
      : []),
    '| What is said | where | here | figures |',
    '| --- | --- | --- | --- |',
    ...CLAIMS.map(({ says, source, answer }) => {
      const { verdict, figures: text } = answer(of);
      return `| ${says} | ${source} | **${verdict}** | ${text} |`;
    }),
    '',
    '## Figures',
    '',
    'Requests per second at full speed on one core, PSS of all processes in MB, PSS and RSS of a worker.',
    '',
    '| setup | Django | waiting | hello | all, MB | worker PSS | worker RSS |',
    '| --- | --- | --- | --- | --- | --- | --- |',
    ...(Object.keys(SETUPS) as SetupId[]).map((id) => {
      const { server, workers, threads, workerClass } = SETUPS[id];
      const [django, waiting, hello] = [of(id, 'django'), of(id, 'waiting'), of(id, 'hello')];
      const rate = (measured: Measured | undefined): string =>
        measured === undefined ? '' : String(Math.round(measured.perSecond));
      const memory = (value: number | undefined): string => (value === undefined ? '' : value.toFixed(0));
      return `| ${workerClass === 'asgi' ? 'uvicorn 1' : `${server} ${workers} x ${threads}${server === 'gunicorn' ? ` ${workerClass}` : ''}`} | ${rate(django)} | ${rate(waiting)} | ${rate(hello)} | ${memory((django ?? hello)?.totalMb)} | ${memory((django ?? hello)?.workerMb)} | ${memory((django ?? hello)?.workerRssMb)} |`;
    }),
    '',
  ];
  return `${lines.join('\n')}\n`;
}
