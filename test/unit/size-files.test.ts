// What `nunicorn size` reads and writes: HAR files, access logs, k6 scripts, reports, control groups.
import { strict as assert } from 'node:assert';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { compareReports } from '../../src/size/check.ts';
import { toHtml } from '../../src/size/html.ts';
import { impose } from '../../src/size/impose.ts';
import { highestKept, k6Script, k6Text, readK6 } from '../../src/size/k6.ts';
import { adviceCommand, measuredCommand } from '../../src/size/measured.ts';
import { parseSizeOptions } from '../../src/size/options.ts';
import { littleError, type RateInfo, type Report } from '../../src/size/report.ts';
import { shellCommand } from '../../src/size/shell.ts';
import { toText } from '../../src/size/terminal.ts';
import { ofAccessLog, ofHar } from '../../src/size/traffic.ts';

const SLO = { percentile: 99, ms: 300 } as const;

describe('the mix of requests', () => {
  it("is that of the GETs of Gunicorn's access log", () => {
    const line = (request: string, status: number): string =>
      `127.0.0.1 - - [21/Nov/2026:05:02:12 +0000] "${request}" ${status} 14 "-" "curl/8"`;
    const { entries, notes } = ofAccessLog(
      [
        line('GET /books/?page=2 HTTP/1.1', 200),
        line('GET / HTTP/1.1', 200),
        line('GET /books/?page=2 HTTP/1.0', 304),
        line('POST /buy HTTP/1.1', 302),
        line('GET /gone HTTP/1.1', 404),
        'not a line',
        '',
      ].join('\n'),
    );
    assert.deepEqual(entries, [
      { path: '/books/?page=2', weight: 2 },
      { path: '/', weight: 1 },
    ]);
    assert.deepEqual(notes, [
      '1 request left out: POST, only GET is asked for',
      '1 request left out: not answered with 2xx or 3xx',
      '1 request left out: without a request line',
    ]);
  });

  it('is that of the first host of a HAR file', () => {
    const entry = (url: string, method = 'GET') => ({ request: { method, url }, response: { status: 200 } });
    const har = {
      log: {
        entries: [
          entry('https://shop.example/a?b=c'),
          entry('https://cdn.example/x.js'),
          entry('https://shop.example/a?b=c'),
        ],
      },
    };
    const { entries, notes } = ofHar(JSON.stringify(har), 'x.har');
    assert.deepEqual(entries, [{ path: '/a?b=c', weight: 2 }]);
    assert.deepEqual(notes, ['1 request left out: to other hosts']);
    assert.throws(() => ofHar('{}', 'x.har'), /x\.har is not a HAR file/);
  });
});

describe('the command line', () => {
  const parse = (...words: string[]) => parseSizeOptions(words, {}, process.cwd(), 80);

  it('knows a Node app, and what of the options has no meaning for it', async () => {
    const app = 'test/fixtures/node/listener.cjs';
    const kindOf = async (...words: string[]): Promise<string> => {
      const request = await parse('--path', '/', ...words, app);
      return request.kind === 'size' ? request.options.served.kind : request.kind;
    };
    assert.equal(await kindOf(), 'async');
    assert.equal(await kindOf('--threads', '4'), 'pool');
    assert.equal(await kindOf('-k', 'gthread'), 'pool');
    await assert.rejects(parse('--path', '/', '--compare', 'gunicorn', app), /listener\.cjs is a Node app/);
    await assert.rejects(parse('--path', '/', '--max-connections-db', '9', app), /pool of connections/);
  });

  it("keeps the server's options apart from its own, in any order", async () => {
    const request = await parse(
      '--timeout',
      '5',
      '--path',
      '/',
      'shop.wsgi',
      '--budget',
      '40s',
      '-w',
      '3',
      '--memory=1G',
      '--path',
      '/b',
    );
    assert(request.kind === 'size');
    const { options } = request;
    assert.equal(options.served.app, 'shop.wsgi');
    assert.equal(options.served.kind, 'python');
    assert.deepEqual(options.traffic, { kind: 'paths', paths: ['/', '/b'] });
    const cell = { server: 'nunicorn', workers: 2, threads: 4, fronts: 1, preload: false } as const;
    assert.equal(adviceCommand(cell, options.served), 'nunicorn --timeout 5 --workers 2 --threads 4 shop.wsgi');
    assert.deepEqual(options.configured, { workers: 3, threads: 1 });
    assert.equal(options.budgetMs, 40_000);
    assert.equal(options.memoryMb, 1024);
  });

  it("keeps what is measured away from the user's files, addresses and collectors", async () => {
    const request = await parse(
      ...['--path', '/', '--pid', '/run/x.pid', '--statsd-host', 'collector:8125', '--log-syslog', '--log-syslog-to'],
      ...['udp://logs:514', '--access-logfile', 'access.log', '--error-logfile', 'error.log', '--admin-bind'],
      ...['127.0.0.1:9100', '--admin-token', 'secret', '--control-socket', '/run/x.ctl', '--timeout', '7', 'shop.wsgi'],
    );
    assert(request.kind === 'size');
    const cell = { server: 'nunicorn', workers: 2, threads: 4, fronts: 1, preload: false } as const;
    const around = { temporary: '/tmp/x', sinkPort: 5140, python: '/usr/bin/python3' };
    const { words } = measuredCommand(cell, 8001, request.options.served, around);
    const text = words.slice(2).join(' ');
    assert.doesNotMatch(text, /x\.pid|collector|logs:514|error\.log|9100|secret|x\.ctl/);
    assert.match(text, /^--timeout 7 /);
    assert.match(text, / --statsd-host=127\.0\.0\.1:5140 /);
    assert.match(text, / --log-syslog --log-syslog-to=udp:\/\/127\.0\.0\.1:5140 /);
    assert.match(text, / --access-logfile=\/tmp\/x\/access\.log /);
    // Counting costs: a server that counts is measured as one.
    assert.match(text, / --admin-bind= .*--admin-bind=unix:\/tmp\/x\/admin-8001\.sock /);
    assert.match(adviceCommand(cell, request.options.served), /--pid \/run\/x\.pid/);
  });

  it('refuses what cannot be measured', async () => {
    await assert.rejects(parse('--path', '/', '--daemon', 'shop.wsgi'), /daemon is set/);
    await assert.rejects(parse('--path', '/', '--reload', 'shop.wsgi'), /reload is set/);
  });

  it('says what is missing or wrong', async () => {
    await assert.rejects(parse('shop.wsgi'), /what shall be asked for\?.*--path/);
    await assert.rejects(parse('--path', '/', '--har', 'x', 'shop.wsgi'), /exclude each other/);
    await assert.rejects(parse('--path', '/', '--budget', '2s', 'shop.wsgi'), /at least 10s/);
    await assert.rejects(parse('--path', '/', '--memory', 'much', 'shop.wsgi'), /such as 900M/);
    await assert.rejects(parse('--path', '/', '--wrokers', '2', 'shop.wsgi'), /--workers/);
    await assert.rejects(parse('--import', 'x.json'), /--import needs --slo/);
  });

  it('is quoted where a shell would take it apart', () => {
    assert.equal(
      shellCommand(['nunicorn', '-b', '127.0.0.1:8000', "a:make('x')"]),
      "nunicorn -b 127.0.0.1:8000 'a:make('\\''x'\\'')'",
    );
  });
});

describe('k6', () => {
  const step = (perSecond: number, p99Ms: number, more = {}) => ({
    perSecond,
    completedPerSecond: perSecond,
    p50Ms: 10,
    p90Ms: 20,
    p99Ms,
    failedShare: 0,
    dropped: 0,
    ...more,
  });

  it('gets the same requests, host, headers and rates around the expected one', () => {
    const script = k6Script([{ path: '/a"b', weight: 2 }], 'shop.example', ['Cookie: a=b'], 100);
    assert(script.includes('[["/a\\"b",2]]'), script);
    assert(script.includes('{"Host":"shop.example","Cookie":"a=b"}'), script);
    assert(script.includes('[20,40,60,70,80,90,100,110,120]'), script);
  });

  it('keeps the SLO up to the last step before the first that does not', () => {
    assert.equal(highestKept(SLO, [step(20, 30), step(60, 100), step(40, 50), step(80, 301), step(100, 200)]), 60);
    assert.equal(highestKept(SLO, [step(20, 30), step(40, 30, { dropped: 3 })]), 20);
    assert.equal(highestKept(SLO, [step(20, 30, { failedShare: 0.01 })]), undefined);
    assert.match(
      k6Text(SLO, [step(20, 30), step(40, 30, { completedPerSecond: 30 })], 'f'),
      /falls behind.*not kept\np99<300ms is kept up to 20\/s/,
    );
  });

  it('refuses what such a script has not written', () => {
    assert.throws(() => readK6('{"metrics":{}}', 'x.json'), /x\.json is not the summary/);
  });
});

describe('limits', () => {
  /** /proc and a control group of version 2, as files. */
  function withCgroup(
    controllers: string,
    test: (folder: string, read: (path: string) => string | undefined) => void,
  ): void {
    const folder = mkdtempSync(join(tmpdir(), 'nt-cgroup-'));
    const files: Record<string, string> = {
      '/proc/self/status': 'Cpus_allowed_list:\t0-3\n',
      '/proc/self/cgroup': '0::/app\n',
      '/proc/self/mountinfo': '',
    };
    try {
      mkdirSync(join(folder, 'app'));
      writeFileSync(join(folder, 'cgroup.controllers'), controllers);
      test(folder, (path) => files[path]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  it('are those of a control group of its own, each server with its memory limit', () => {
    withCgroup('cpu memory', (cgroup, read) => {
      const imposed = impose({ cpus: 1.5, memoryMb: 900 }, { read, cgroup });
      assert.deepEqual(
        [imposed.cpu, imposed.memory, imposed.cores, imposed.apart],
        ['cgroup v2', 'cgroup v2', 1.5, false],
      );
      const group = join(cgroup, 'app', `nunicorn-size-${process.pid}`);
      assert.equal(readFileSync(join(group, 'cpu.max'), 'utf8'), '150000 100000');
      const [shell, , script, enter, ...command] = imposed.server(['node', 'x']);
      assert.deepEqual([shell, script, command], ['sh', 'echo $$ > "$0" && exec "$@"', ['node', 'x']]);
      assert.equal(enter, join(group, 'server-1', 'cgroup.procs'));
      assert.equal(readFileSync(join(group, 'server-1', 'memory.max'), 'utf8'), String(900 * 1024 * 1024));
    });
  });

  it('are pinned cores where no group can be made, and memory is watched: it says so', () => {
    withCgroup('cpu memory', (_, read) => {
      const imposed = impose({ cpus: 1.5, memoryMb: 900 }, { read, cgroup: '/nowhere' });
      assert.deepEqual([imposed.cpu, imposed.memory, imposed.cores], ['CPU affinity', 'watched', 2]);
      assert.deepEqual([...imposed.serverCores], [2, 3]);
      assert.deepEqual(imposed.server(['x']), ['taskset', '0xc', 'x']);
      assert.deepEqual(imposed.generator(['x']), ['taskset', '0x3', 'x']);
      assert.match(
        imposed.notes.join('\n'),
        /no cgroup could be made[\s\S]*1\.5 CPUs cannot be imposed[\s\S]*not imposed but watched/,
      );
    });
  });

  it('are refused where there is less', () => {
    withCgroup('', (cgroup, read) => {
      assert.throws(() => impose({ cpus: 8 }, { read, cgroup }), /--cpus 8: 4 cores can be used here/);
      assert.equal(impose({}, { read, cgroup }).cpu, 'none');
      assert.equal(impose({}, { read, cgroup }).shared, true);
    });
  });
});

const RATE: RateInfo = {
  workers: 1,
  threads: 5,
  fronts: 1,
  preload: false,
  name: '1x5',
  perSecond: 180,
  interval: { low: 172, high: 188 },
  memoryMb: 70,
  command: 'nunicorn --workers 1 --threads 5 shop.wsgi',
};

function report(more: Partial<Report> = {}): Report {
  const cell = { server: 'nunicorn', workers: 1, threads: 5, fronts: 1, preload: false } as const;
  return {
    version: 1,
    nunicorn: '0.1.0',
    at: '2026-11-21T05:00:00.000Z',
    app: 'shop.wsgi',
    argv: ['--path', '/<b>', 'shop.wsgi'],
    cwd: '/srv',
    machine: { cpu: 'a cpu', cores: 2, memoryMb: 4000, system: 'Linux', node: '22.0.0', python: '3.11.7' },
    limits: { cores: 1, cpu: 'CPU affinity', memory: 'none', shared: false },
    traffic: [{ path: '/<b>', weight: 1, status: 200 }],
    slo: SLO,
    sloGiven: true,
    budgetMs: 60_000,
    usedMs: 58_000,
    interrupted: false,
    generatorPerSecond: 9000,
    referencePerSecond: 130,
    variation: 0.02,
    othersShare: 0.01,
    cells: [
      {
        cell,
        name: '1x5',
        why: 'predicted knee',
        predicted: { perSecond: 190, limit: 'lock', memoryMb: 70 },
        capacity: 188,
        capacities: [187, 189],
        reference: { perSecond: 130, p50Ms: 30, p99Ms: 80, predictedP99Ms: 70 },
        carried: { perSecond: 180, interval: { low: 172, high: 188 } },
        trials: [{ perSecond: 180, within: true, p50Ms: 50, p99Ms: 200, failures: 0 }],
        memoryMb: 70,
        memoryAfterRequests: 1200,
        remarks: [],
      },
    ],
    leftOut: [{ name: '3x1', because: 'needs about 1000 MB, more than 85 % of 900 MB' }],
    verdict: { kind: 'best', because: 'It carries 12 % more than the runner-up.', toDo: [], alike: [] },
    recommendation: RATE,
    rule: { because: 'needs about 1000 MB, more than 85 % of 900 MB' },
    predictionError: { median: 0.02, worst: 0.03, cells: 1 },
    remarks: [],
    ...more,
  };
}

describe('the report', () => {
  it('ends in a terminal with the command and the lines of gunicorn.conf.py', () => {
    const text = toText(report());
    assert.match(text, /Recommendation: 1 worker, 5 threads: 180\/s within the SLO \(95 %: 172\.\.188\), 70 MB\./);
    assert.match(text, /2 x cores \+ 1 would have given: nothing measured, needs about 1000 MB/);
    assert.match(text, / {4}nunicorn --workers 1 --threads 5 shop\.wsgi\n/);
    assert.match(text, / {4}workers = 1\n {4}threads = 5\n/);
  });

  it('does not call it a recommendation when it is too noisy to say', () => {
    const verdict = { kind: 'too noisy to say', because: 'Too noisy.', toDo: ['Again.'], alike: [] } as const;
    const text = toText(report({ verdict }));
    assert.match(text, /Too noisy\.\nAgain\./);
    assert.match(text, /If you must choose now: 1 worker/);
    assert.doesNotMatch(text, /Recommendation/);
  });

  it('is a page that needs no network, with the text of users escaped', () => {
    const html = toHtml(report());
    assert.doesNotMatch(html, /https?:|<script|@import|url\(/);
    assert(html.includes('/&lt;b&gt;') && !html.includes('/<b>'));
    assert.doesNotMatch(html, /NaN|undefined|Infinity/);
    assert.doesNotMatch(
      toHtml(report({ cells: [], verdict: { kind: 'not enough measured', because: '', toDo: [], alike: [] } })),
      /NaN|Infinity/,
    );
  });

  it('checks L = X * R', () => {
    const latency = { meanMs: 100, p50Ms: 0, p90Ms: 0, p99Ms: 0, maxMs: 0 };
    const load = { meanInFlight: 10, latency } as Parameters<typeof littleError>[0]['load'];
    assert.equal(littleError({ load, perSecond: 100 }), 0);
    assert(Math.abs(littleError({ load, perSecond: 80 }) - 0.2) < 1e-9);
  });
});

describe('the check of an advice', () => {
  const before = { ...report(), recommendation: RATE };

  it('holds when the setting is still the best, or alike', () => {
    assert.equal(compareReports(before, report()).outcome, 'holds');
    const other = { ...RATE, name: '1x6' };
    const alike = report({ recommendation: other, verdict: { ...report().verdict, alike: ['1x5'] } });
    assert.equal(compareReports(before, alike).outcome, 'holds');
  });

  it('does not hold when another is better, or when it carries less', () => {
    const better = report({ recommendation: { ...RATE, name: '2x5', perSecond: 300 } });
    assert.match(compareReports(before, better).because, /2x5 is better now: 300\/s, 1x5 carries 180\/s/);
    const [cell] = report().cells;
    assert(cell !== undefined);
    const slower = report({ cells: [{ ...cell, carried: { perSecond: 90, interval: { low: 85, high: 95 } } }] });
    assert.match(compareReports(before, slower).because, /carries 50 % less/);
    assert.equal(compareReports(before, slower).outcome, 'does not hold');
  });

  it('cannot be made when it is too noisy to say', () => {
    const noisy = report({ verdict: { kind: 'too noisy to say', because: 'Noise.', toDo: [], alike: [] } });
    assert.deepEqual(compareReports(before, noisy), { outcome: 'cannot be checked', because: 'Noise.' });
  });
});
