// `nunicorn size` from the command line to the report, on real servers.
import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import type { Report } from '../../src/size/report.ts';
import { until, withDeadline } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { measuring } from '../helpers/measuring.ts';
import { NUNICORN, PYTHON } from '../helpers/paths.ts';
import { processesOf } from '../helpers/processes.ts';

const skip = !NUNICORN_RUNS;
/** 2 ms of work, 10 ms of waiting. */
const APP = `
import time


def application(environ, start_response):
    end = time.thread_time() + 0.002
    while time.thread_time() < end:
        pass
    time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\\n"]


def broken(environ, start_response):
    start_response("500 Internal Server Error", [("Content-Length", "0")])
    return [b""]


def moved(environ, start_response):
    start_response("302 Found", [("Location", "/elsewhere"), ("Content-Length", "0")])
    return [b""]


def picky(environ, start_response):
    if environ["HTTP_HOST"] != "shop.example":
        start_response("400 Bad Request", [("Content-Length", "0")])
        return [b""]
    return application(environ, start_response)


def named(environ, start_response):
    body = environ["SERVER_SOFTWARE"].encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def mirror(environ, start_response):
    body = repr(sorted((k, v) for k, v in environ.items() if k.startswith("HTTP_"))).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


asked = 0


def counter(environ, start_response):
    global asked
    asked += 1
    body = b"x" * max(10, asked)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
`;

const SLEEPY_APP = `
import pathlib
import time

pathlib.Path("booting").touch()
time.sleep(60)
`;

/** 2 ms of work, 4 ms of standing still, 10 ms of waiting. */
const NODE_APP = `
const cell = new Int32Array(new SharedArrayBuffer(4));

export default (request, response) => {
  const before = process.cpuUsage();
  const used = () => {
    const { user, system } = process.cpuUsage(before);
    return user + system;
  };
  while (used() < 2000);
  Atomics.wait(cell, 0, 0, 4);
  setTimeout(() => response.end('ok'), 10);
};
`;

const PYTHON_APP = ['--python', PYTHON];

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly folder: string;
}

/** Runs the command to its end in a folder with the application, and proves that nothing is left of it. */
async function run(
  args: readonly string[],
  look: (ended: Ended) => void,
  meanwhile: (child: {
    readonly stderr: () => string;
    readonly kill: (signal: NodeJS.Signals) => void;
    readonly folder: string;
  }) => Promise<void> = async () => {},
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'nt-size-'));
  const temporary = mkdtempSync(join(folder, 'tmp-'));
  const marker = randomUUID();
  try {
    writeFileSync(join(folder, 'sized.py'), APP);
    writeFileSync(join(folder, 'sized.mjs'), NODE_APP);
    writeFileSync(join(folder, 'sleepy.py'), SLEEPY_APP);
    const child = spawn(process.execPath, [NUNICORN, 'size', ...args], {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, TMPDIR: temporary, PYTHONDONTWRITEBYTECODE: '1', NUNICORN_TEST_MARKER: marker },
    });
    assert(child.pid !== undefined);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (data) => {
      stdout += data;
    });
    child.stderr.on('data', (data) => {
      stderr += data;
    });
    const closed = once(child, 'close');
    await meanwhile({ stderr: () => stderr, kill: (signal) => child.kill(signal), folder });
    await withDeadline(closed, () => `the end of nunicorn size\n${stdout}\n${stderr}`, 120_000);
    look({ code: child.exitCode, stdout, stderr, folder });
    if (existsSync(temporary)) assert.deepEqual(readdirSync(temporary), [], 'left in the temporary folder');
    const left = () =>
      processesOf(child.pid ?? 0, `NUNICORN_TEST_MARKER=${marker}`, new Set()).filter(({ state }) => state !== 'Z');
    await until(
      () => left().length === 0,
      () => `processes left: ${JSON.stringify(left())}`,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function readReport(folder: string): Report {
  return JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8')) as Report;
}

it('measures an application and recommends a command line, with the evidence as JSON', { skip }, async () => {
  await measuring((attempt) =>
    run(
      [
        '--path',
        '/',
        '--slo',
        'p50<5s',
        '--budget',
        `${attempt * 20}s`,
        '--json',
        'report.json',
        ...PYTHON_APP,
        'sized',
      ],
      ({ code, stdout, stderr, folder }) => {
        const report = readReport(folder);
        const { recommendation, costs } = report;
        assert(costs !== undefined, stdout);
        // However busy the machine: sleeping takes at least as long as it was told to, and the work at least its CPU time.
        assert(costs.waitMs > 5, `waits ${costs.waitMs} ms`);
        assert(costs.lockedMs + costs.freeMs > 1.9, `CPU ${costs.lockedMs + costs.freeMs} ms`);
        assert(report.cells.length >= 4);
        assert(stdout.includes('2 x cores + 1'), stdout);
        assert.equal(code, recommendation === undefined ? 1 : 0, `${stdout}\n${stderr}`);
        if (recommendation === undefined) {
          assert.match(report.verdict.kind, /too noisy to say|not enough measured/, stdout);
          return;
        }
        // It waits five sixths of the time: whatever the machine, more than a few slots are worth it.
        assert(
          recommendation.workers * recommendation.threads >= 3 || report.verdict.kind === 'too noisy to say',
          stdout,
        );
        const { workers, threads, interval, command, perSecond } = recommendation;
        assert.equal(command, `nunicorn --python ${PYTHON} --workers ${workers} --threads ${threads} sized`);
        assert(stdout.includes(`    ${command}\n`), stdout);
        assert(stdout.includes(`workers = ${workers}`), stdout);
        assert(interval.low <= perSecond && perSecond <= interval.high);
      },
    ),
  );
});

it('compares with Gunicorn also where the length of an answer depends on the server', { skip }, async () => {
  await measuring((attempt) =>
    run(
      [
        ...['--path', '/', '--slo', 'p50<5s', '--budget', `${attempt * 20}s`, '--json', 'report.json'],
        ...['--compare', 'gunicorn', ...PYTHON_APP, 'sized:named'],
      ],
      ({ stdout, folder }) => {
        const { cells } = readReport(folder);
        const [gunicorn] = cells.filter(({ cell, capacity }) => cell.server === 'gunicorn' && capacity !== undefined);
        assert(gunicorn?.capacity !== undefined, stdout);
        assert(gunicorn.capacity > 0, stdout);
        assert.doesNotMatch(stdout, /failed \(body\)/);
      },
    ),
  );
});

it('measures an application that answers with what it was asked, such as its own address', { skip }, async () => {
  await measuring((attempt) =>
    run(
      [
        ...['--path', '/', '--slo', 'p50<5s', '--budget', `${attempt * 20}s`, '--json', 'report.json'],
        ...[...PYTHON_APP, 'sized:mirror'],
      ],
      ({ stdout, stderr, folder }) => {
        assert.doesNotMatch(stderr, /cannot be measured/);
        assert(readReport(folder).costs !== undefined, stdout);
        assert.doesNotMatch(stdout, /failed \(another length/);
      },
    ),
  );
});

it('says why no answer counts, where each has another length', { skip }, async () => {
  await run(['--path', '/', '--budget', '10s', ...PYTHON_APP, 'sized:counter'], ({ code, stderr }) => {
    assert.match(
      stderr,
      /not one request was answered as it should be .*: \d+ failed \(another length than the first answer\)/,
    );
    assert.equal(code, 1);
  });
});

it('measures a Node app: the event loop under async, threads under gthread', { skip }, async () => {
  const load = (attempt: number): string[] => [
    ...['--path', '/', '--slo', 'p50<5s', '--budget', `${attempt * 15}s`, '--json', 'report.json'],
  ];
  await measuring((attempt) =>
    run([...load(attempt), './sized.mjs'], ({ stdout, folder }) => {
      const { costs, cells, machine, recommendation } = readReport(folder);
      assert(costs?.kind === 'async', stdout);
      assert(costs.lockedMs > 1.9, `CPU ${costs.lockedMs} ms`);
      // What the event loop says of itself: busy for longer than it computes.
      assert(costs.blockedMs > 2, `stands still for ${costs.blockedMs} ms\n${stdout}`);
      assert(costs.waitMs > 5, `waits ${costs.waitMs} ms`);
      assert(cells.length >= 3);
      assert(cells.every(({ cell }) => cell.threads === 1));
      assert.equal(machine.python, null);
      if (recommendation !== undefined)
        assert.equal(recommendation.command, `nunicorn --workers ${recommendation.workers} ./sized.mjs`);
    }),
  );
  await measuring((attempt) =>
    run([...load(attempt), '-k', 'gthread', './sized.mjs'], ({ stdout, folder }) => {
      const { costs, cells, recommendation } = readReport(folder);
      assert(costs?.kind === 'pool', stdout);
      assert(costs.freeMs > 1.5, `CPU ${costs.freeMs} ms`);
      assert(costs.waitMs > 10, `waits ${costs.waitMs} ms`);
      assert(cells.some(({ cell }) => cell.threads > 1));
      if (recommendation !== undefined) assert.match(recommendation.command, /^nunicorn --worker-class gthread /);
    }),
  );
});

it('gives the report of what is there when it is interrupted, and says that a redirect was measured', {
  skip,
}, async () => {
  await run(
    ['--path', '/', '--budget', '100s', ...PYTHON_APP, 'sized:moved'],
    ({ stdout, stderr }) => {
      assert.match(stdout, /Stopped after \d+ s\./);
      assert.match(stderr, /stopping/);
      assert.match(stdout, /\/ is answered with 302 to \/elsewhere: what is measured is the redirect/);
    },
    async ({ stderr, kill }) => {
      await until(
        () => stderr().includes('measuring settings'),
        () => `the first settings\n${stderr()}`,
        60_000,
      );
      kill('SIGINT');
    },
  );
});

it('stops at once while a server boots', { skip }, async () => {
  await run(
    ['--path', '/', '--budget', '100s', ...PYTHON_APP, 'sleepy'],
    ({ stdout }) => assert.match(stdout, /^Stopped after \d+ s\./),
    async ({ stderr, kill, folder }) => {
      await until(
        () => existsSync(join(folder, 'booting')),
        () => `the boot of the app\n${stderr()}`,
        60_000,
      );
      kill('SIGINT');
    },
  );
});

it('leaves no server behind when it is killed', { skip }, async () => {
  await run(
    ['--path', '/', '--budget', '100s', ...PYTHON_APP, 'sized'],
    ({ folder }) => {
      // Its own folder is what nobody could remove.
      for (const name of readdirSync(folder))
        if (name.startsWith('tmp-')) rmSync(join(folder, name), { recursive: true });
    },
    async ({ stderr, kill }) => {
      await until(
        () => stderr().includes('measuring settings'),
        () => `the first settings\n${stderr()}`,
        60_000,
      );
      kill('SIGKILL');
    },
  );
});

it('finds out before it measures that its report could not be written', { skip }, async () => {
  await run(
    ['--path', '/', '--budget', '100s', '--html', 'missing/report.html', ...PYTHON_APP, 'sized'],
    ({ code, stderr }) => {
      assert.equal(code, 1);
      assert.match(stderr, /^\nError: missing\/report\.html cannot be written: ENOENT/);
    },
  );
});

it('says what an answer of 400 and one of 500 mean', { skip }, async () => {
  await run(['--path', '/', '--budget', '10s', ...PYTHON_APP, 'sized:broken'], ({ code, stderr }) => {
    assert.equal(code, 1);
    assert.match(stderr, /\/ is answered with 500/);
  });
  await run(['--path', '/', '--budget', '10s', ...PYTHON_APP, 'sized:picky'], ({ code, stderr }) => {
    assert.equal(code, 1);
    assert.match(stderr, /ALLOWED_HOSTS .* --host/);
  });
});
