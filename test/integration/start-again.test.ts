// A process that the system does not start: the server goes on, and it is started when that is over.
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { Server, type ServerOptions, withServer } from '../helpers/server.ts';

const PYTHON = 'pathology.faults:application';
const HOOKS = { 'nunicorn.config.mjs': 'export default { when_ready() {} };\n' };
const CASES: readonly (readonly [role: string, of: string, options: ServerOptions])[] = [
  ['front', '', { app: PYTHON }],
  ['worker', ' of a Python app', { app: PYTHON }],
  ['worker', ' of a Node app', { app: './node/listener.cjs' }],
  ['mold', '', { app: PYTHON, workers: 2 }],
  ['log', '', { app: PYTHON, args: ['--log-syslog', '--log-syslog-to', 'udp://127.0.0.1:9'] }],
  ['hooks', '', { app: PYTHON, args: ['-c', '{home}/nunicorn.config.mjs'], files: HOOKS }],
];
const canLimit = NUNICORN_RUNS && spawnSync('prlimit', ['--version']).status === 0;

/** Up to `limit` descriptors for the master, which may have more already. */
function limit(server: Server, descriptors: number): void {
  const { status } = spawnSync('prlimit', ['--pid', String(server.pid), `--nofile=${descriptors}:`]);
  assert.equal(status, 0);
}

for (const [role, of, options] of CASES) {
  it(`${role}${of}`, { skip: canLimit ? false : 'prlimit limits no process here' }, async () => {
    await withServer(options, async (server) => {
      const pids = (): number[] =>
        server.processes().flatMap(({ pid, title }) => (title.startsWith(`nunicorn: ${role}`) ? [pid] : []));
      const before = await until(() => pids()[0], `nunicorn: ${role}`);
      limit(server, 3);
      process.kill(before, 'SIGKILL');
      await server.waitForLog(/could not be started: .*EMFILE/);
      limit(server, 1024);
      const again = (): boolean => pids().some((pid) => pid !== before);
      await until(again, () => `another process\n${server.output}`, 30_000);
      await until(async () => (await server.get('/')).status === 200, 'an answer', 30_000);
    });
  });
}

/** While there is a file `wrong`, the system has one thread for the app and no more. */
const FEW_THREADS = `import os, sys, threading
def few(start):
    def start_one(what, *args):
        if os.path.exists("wrong") and getattr(what, "name", None) != "nunicorn-thread-1":
            raise RuntimeError("can't start new thread")
        return start(what, *args)
    return start_one
threading.Thread.start = few(threading.Thread.start)
control = sys.modules["nunicorn_worker.control"]
control.start_new_thread = few(control.start_new_thread)
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
`;

for (const threads of [1, 2]) {
  it(`a worker of ${threads} thread(s) that lacks one`, { skip: !NUNICORN_RUNS }, async () => {
    const files = { 'few.py': FEW_THREADS };
    await withServer({ app: 'few', chdir: '{home}', files, threads }, async (server) => {
      const [before = 0] = server.workers();
      server.mark('wrong');
      process.kill(before, 'SIGKILL');
      await server.waitForLog(/A thread could not be started: can't start new thread[\s\S]*Worker 1 .* did not boot/);
      rmSync(join(server.home, 'wrong'));
      await until(async () => (await server.get('/')).status === 200, 'an answer', 30_000);
    });
  });
}

it("where the server's folder has been removed a worker says so, and those that run go on", {
  skip: !NUNICORN_RUNS,
}, async () => {
  await withServer({ app: PYTHON, workers: 2 }, async (server) => {
    // The front has connected to both.
    const held = server.get('/hold?one', '', 30_000);
    await server.marked('one.started');
    await server.get('/');
    server.mark('one.open');
    await held;
    for (const name of readdirSync(server.temporary)) rmSync(join(server.temporary, name), { recursive: true });
    const [first = 0] = server.workers();
    process.kill(first, 'SIGKILL');
    await server.waitForLog(
      /Error: \S+\/nunicorn-\w+ has been removed, and no new worker can start without it: restart/,
    );
    assert.equal((await server.get('/')).status, 200);
  });
});

it("where the server's folder has been removed a new front says that it cannot reach the workers", {
  skip: !NUNICORN_RUNS,
}, async () => {
  await withServer({ app: PYTHON }, async (server) => {
    for (const name of readdirSync(server.temporary)) rmSync(join(server.temporary, name), { recursive: true });
    const [front = 0] = server.fronts();
    process.kill(front, 'SIGKILL');
    await server.waitForLog(
      /Worker 1 \(pid:\d+\) gets no requests: \S+\/nunicorn-\w+ has been removed\. Restart the server/,
    );
  });
});

/** Longer than one variable of the environment may be (execve(2)): Node throws the error of such a start. */
const TOO_LONG = JSON.stringify({ raw_env: [`LONG=${'x'.repeat(200_000)}`] });

for (const [of, options] of [
  ['worker of a Python app', { app: PYTHON, workers: 1 }],
  ['mold', { app: PYTHON, workers: 2 }],
  ['worker of a Node app', { app: './node/listener.cjs', workers: 1 }],
] as const) {
  it(`a ${of} that the system does not start at a reload`, { skip: !NUNICORN_RUNS }, async () => {
    const args = ['-c', '{home}/conf.json'];
    await withServer({ ...options, args, files: { 'conf.json': '{}' } }, async (server) => {
      writeFileSync(join(server.home, 'conf.json'), TOO_LONG);
      server.kill('SIGHUP');
      await server.waitForLog(/could not be started: spawn E2BIG/);
      assert.equal((await server.get('/')).status, 200);
      writeFileSync(join(server.home, 'conf.json'), '{}');
      const from = server.log.length;
      server.kill('SIGHUP');
      await server.waitForLog(/Reloaded: all workers are ready/, { from, ms: 30_000 });
      assert.equal((await server.get('/')).status, 200);
    });
  });
}

it('a server whose first worker the system does not start says so', { skip: !NUNICORN_RUNS }, async () => {
  for (const workers of [1, 2]) {
    const server = await Server.spawn({
      app: PYTHON,
      workers,
      args: ['-c', '{home}/conf.json'],
      files: { 'conf.json': TOO_LONG },
    });
    try {
      assert.equal((await server.exit()).code, 3);
      assert.match(server.log, /could not be started: spawn E2BIG/);
    } finally {
      server.destroy();
    }
  }
});
