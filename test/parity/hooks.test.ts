// Server hooks: in which order they are called, with what, in which process.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../helpers/deadline.ts';
import { post } from '../helpers/http.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { isAlive } from '../helpers/processes.ts';
import type { Server, ServerOptions } from '../helpers/server.ts';
import { type Differs, onNewServers, type Scenario, type Transcript } from './parity.ts';

const EVERY = join(FIXTURES, 'hooks', 'every.conf.py');
const OPTIONS: Omit<ServerOptions, 'kind'> = {
  app: 'wsgi_matrix:application',
  args: ['-c', EVERY],
  env: { TRANSCRIPT: '{home}/transcript' },
};

function lines(server: Server): readonly string[] {
  return readFileSync(join(server.home, 'transcript'), 'utf8').trimEnd().split('\n');
}

function calls(server: Server, pattern: RegExp): number {
  return lines(server).filter((line) => pattern.test(line)).length;
}

async function called(server: Server, pattern: RegExp, times = 1): Promise<void> {
  await until(
    () => calls(server, pattern) >= times,
    () => `${pattern} ${times} times in\n${lines(server).join('\n')}\n${server.output}`,
    30_000,
  );
}

/** What each process has called, in its order: what two processes do at the same time has none. */
function byProcess(server: Server, seen = /./): Transcript {
  const all = lines(server).filter((line) => /^(master|worker)/.test(line) && seen.test(line));
  const processes = [...new Set(all.map((line) => (/^worker \d+/.exec(line) ?? ['master'])[0]))].toSorted();
  return processes.flatMap((name) => all.filter((line) => line.startsWith(name)));
}

async function stopped(server: Server, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  server.kill(signal);
  await server.exit(40_000);
}

interface Case {
  readonly name: string;
  readonly options?: Partial<ServerOptions>;
  readonly act: (server: Server) => Promise<void>;
  /** Which lines count. */
  readonly seen?: RegExp;
  readonly differs?: Differs;
}

function scenario({ name, options, act, seen, differs }: Case): Scenario {
  return {
    name,
    options: { ...OPTIONS, ...options, args: [...(OPTIONS.args ?? []), ...(options?.args ?? [])] as readonly string[] },
    run: async (server) => {
      await server.ready();
      await act(server);
      if (!server.hasExited) await stopped(server);
      return byProcess(server, seen);
    },
    ...(differs && { differs }),
  };
}

/** A request; whether it is answered is no matter here. */
function get(path: string, headers = ''): (server: Server) => Promise<void> {
  return async (server) => {
    await server.get(path, headers).catch(() => null);
  };
}

function workerOf(server: Server): number {
  const [worker] = server.workers();
  if (worker === undefined) throw new Error(`no worker\n${server.output}`);
  return worker;
}

/** A signal to the worker, and another one in its place. */
function signalled(signal: NodeJS.Signals): (server: Server) => Promise<void> {
  return async (server) => {
    const worker = workerOf(server);
    await called(server, /^worker 1 post_request/); // the client has its answer a moment earlier
    process.kill(worker, signal);
    await until(() => !isAlive(worker), 'its end', 30_000);
    await called(server, /^worker 2 post_worker_init/);
    await called(server, /^master child_exit/);
    await server.ready();
  };
}

/** Signals that ask a worker to go. */
const REPLACED_FIRST: readonly string[] = ['SIGTERM', 'SIGINT', 'SIGQUIT'];
const REQUESTS = /^worker \d+ (pre|post)_request/;

onNewServers('hooks', OPTIONS, [
  scenario({ name: 'start, SIGTERM', act: async () => {} }),
  scenario({
    name: 'start, SIGTERM, two workers',
    options: { workers: 2 },
    act: async () => {},
    seen: /^master (?!child_exit)/,
  }),
  scenario({ name: 'start with --preload', options: { args: ['--preload'] }, act: async () => {} }),
  scenario({ name: 'SIGINT', act: (server) => stopped(server, 'SIGINT') }),
  scenario({ name: 'SIGQUIT', act: (server) => stopped(server, 'SIGQUIT') }),
  scenario({ name: 'a request', act: get('/list/length?a=1&b=%20#c'), seen: REQUESTS }),
  scenario({
    name: 'a request with a body and headers',
    act: async (server) => {
      await post(server.address, '/list/length', 'hello', 'X-Own: 1\r\nContent-Type: text/plain\r\n');
    },
    seen: REQUESTS,
  }),
  scenario({
    name: 'a header that is sent twice',
    differs: {
      nunicorn: 'it is in req.headers once, joined',
      gunicorn: 'as it was sent',
      why: 'They are made from the environ',
    },
    act: get('/list/length', 'X-Own: 1\r\nX-Own: 2\r\n'),
    seen: REQUESTS,
  }),
  scenario({ name: 'a streamed answer', act: get('/generator'), seen: REQUESTS }),
  scenario({ name: 'an error of the app', act: get('/error/before'), seen: REQUESTS }),
  scenario({ name: 'pre_request raises', act: get('/list/length?pre_request_raises'), seen: REQUESTS }),
  scenario({ name: 'post_request raises', act: get('/list/length?post_request_raises'), seen: REQUESTS }),
  scenario({
    name: 'pre_request sets worker.alive to False',
    differs: { nunicorn: 'the next worker is forked first', gunicorn: 'the worker leaves first', why: 'Nobody waits' },
    act: async (server) => {
      await server.get('/list/length?leave');
      await called(server, /^worker 2 post_worker_init/);
      await called(server, /^master child_exit/);
    },
    seen: /^master (pre_fork|child_exit)|^worker 1/,
  }),
  scenario({
    name: 'TTIN, TTOU',
    differs: {
      nunicorn: 'TTOU takes the worker with the highest number away',
      gunicorn: 'the oldest',
      why: 'Numbers stay 1 to N',
    },
    act: async (server) => {
      server.kill('SIGTTIN');
      await called(server, /^worker 2 post_worker_init/);
      server.kill('SIGTTOU');
      await called(server, /^master child_exit/);
    },
    seen: /^master/,
  }),
  scenario({
    name: 'HUP',
    act: async (server) => {
      server.kill('SIGHUP');
      await called(server, /^worker 2 post_worker_init/);
      await called(server, /^master child_exit/);
      await server.ready();
    },
    seen: /^master|^worker 1/,
  }),
  scenario({
    name: 'HUP with --preload',
    differs: {
      nunicorn: 'a new mold, in which the hooks of the start run too',
      gunicorn: 'on_reload alone',
      why: 'What they leave behind is needed in the workers of the new mold, which have the new code',
    },
    options: { args: ['--preload'] },
    act: async (server) => {
      server.kill('SIGHUP');
      await called(server, /^worker \d post_worker_init/, 2);
      await called(server, /^(master child_exit|worker 1 worker_exit)/);
      if (server.kind === 'nunicorn') await called(server, /^master when_ready/, 2);
      await server.ready();
    },
    seen: /^master (?!child_exit|on_exit)/,
  }),
  ...(['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGABRT', 'SIGKILL'] as const).map((signal) =>
    scenario({
      name: `${signal} to a worker`,
      act: signalled(signal),
      seen: /^worker 1|^master (pre_fork|child_exit)/,
      ...(REPLACED_FIRST.includes(signal) && {
        differs: {
          nunicorn: 'the next worker is forked first',
          gunicorn: 'the worker leaves first',
          why: 'Nobody waits',
        },
      }),
    }),
  ),
  scenario({
    name: 'a request that runs into --timeout',
    differs: {
      nunicorn: 'the request is interrupted, the worker leaves in order',
      gunicorn: 'worker_abort, and the worker is killed',
      why: 'One request does not take its neighbours along; worker_abort is called when a worker is given up',
    },
    options: { args: ['--timeout', '1'] },
    act: async (server) => {
      await server.get('/wait/for-ever', '', 30_000).catch(() => null);
      await server.ready();
    },
    seen: /worker_abort|worker_exit|child_exit/,
  }),
  scenario({
    name: 'USR2',
    act: async (server) => {
      server.kill('SIGUSR2');
      await called(server, /post_worker_init/, 2);
      const [, pid] = lines(server).filter((line) => line.startsWith('pid '));
      process.kill(Number(pid?.slice('pid '.length)), 'SIGTERM');
      await called(server, /^master on_exit/);
    },
    seen: /^master (pre_exec|on_starting|on_exit)/,
  }),
]);

const NOTE = `import os
def note(text):
    with open(os.environ["TRANSCRIPT"], "a") as file:
        file.write(text + "\\n")
`;

const HELD = `
import time
def application(environ, start_response):
    if environ["PATH_INFO"] == "/held":
        try:
            open(os.environ["HOME"] + "/held", "w").close()
            while not os.path.exists(os.environ["HOME"] + "/open"):
                time.sleep(0.01)
        finally:
            note("the request ends")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
`;

/** A server with this configuration file, from its start to its end; what it has noted. */
function noting(name: string, config: string, differs: Differs): Scenario {
  return {
    name,
    options: {
      ...OPTIONS,
      args: ['-c', '{home}/gunicorn.conf.py'],
      files: { 'gunicorn.conf.py': NOTE + config },
    },
    run: async (server) => {
      await server.ready();
      await stopped(server);
      return lines(server);
    },
    differs,
  };
}

onNewServers('hooks', OPTIONS, [
  noting(
    'how often the configuration file is run',
    'note("the file is run")\ndef post_fork(server, worker):\n    note("post_fork")\n',
    {
      nunicorn: 'once to read the settings, and in the process that forks the workers',
      gunicorn: 'once, in the master',
      why: 'The master runs no Python. A single worker, where there are no hooks of the master, is not forked and runs the file itself',
    },
  ),
  noting(
    'where on_starting runs',
    'def on_starting(server):\n    note("the master" if os.getpid() == server.pid else "another process")\n',
    {
      nunicorn: 'in the process that forks the workers',
      gunicorn: 'in the master',
      why: 'The master runs no Python',
    },
  ),
  {
    name: 'worker_int at SIGINT, while a request runs',
    options: {
      app: 'held:application',
      chdir: '{home}',
      args: ['-c', '{home}/gunicorn.conf.py'],
      env: { TRANSCRIPT: '{home}/transcript' },
      files: { 'gunicorn.conf.py': `${NOTE}def worker_int(worker):\n    note("worker_int")\n`, 'held.py': NOTE + HELD },
    },
    run: async (server) => {
      await server.ready();
      const connection = await server.connect();
      await connection.send('GET /held HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.marked('held');
      server.kill('SIGINT');
      await server.waitForLog(/Handling signal: int/);
      // Gunicorn ends the request itself.
      if (server.kind === 'nunicorn') server.mark('open');
      await server.exit(40_000);
      connection.close();
      return lines(server);
    },
    differs: {
      nunicorn: 'is called when the request has ended, or its 2 s are over',
      gunicorn: 'is called at once, and ends the request',
      why: 'Requests are let finish',
    },
  },
  noting(
    'what server can do',
    `def on_starting(server):
    for name in ("spawn_worker", "spawn_workers", "kill_worker", "manage_workers", "reload", "halt"):
        note(name + (": yes" if hasattr(server, name) else ": no"))
`,
    {
      nunicorn: 'has no method that starts or stops workers',
      gunicorn: 'has the methods of Arbiter',
      why: "Workers are the master's: send it a signal, `os.kill(server.pid, ...)`",
    },
  ),
]);

const NOT_BOOTING = `
import os
def child_exit(server, worker):
    with open(os.environ["TRANSCRIPT"], "a") as file:
        file.write("master child_exit %d\\n" % worker.age)
def on_exit(server):
    with open(os.environ["TRANSCRIPT"], "a") as file:
        file.write("master on_exit\\n")
`;

onNewServers('hooks of a start that fails', OPTIONS, [
  {
    name: 'the app cannot be imported',
    differs: {
      nunicorn: 'child_exit is called for the worker that did not boot',
      gunicorn: 'it is not',
      why: 'A hook that counts workers counts right',
    },
    options: {
      app: 'missing:application',
      args: ['-c', '{home}/gunicorn.conf.py'],
      files: { 'gunicorn.conf.py': NOT_BOOTING, transcript: '' },
    },
    run: async (server) => [`exit code ${(await server.exit(40_000)).code}`, ...lines(server)],
  },
  ...(
    [
      ['on_starting', 'server'],
      ['when_ready', 'server'],
      ['nworkers_changed', 'server, new, old'],
      ['pre_fork', 'server, worker'],
      ['post_fork', 'server, worker'],
      ['post_worker_init', 'worker'],
    ] as const
  ).map(
    ([hook, given]): Scenario => ({
      name: `${hook} raises`,
      options: {
        app: 'wsgi_matrix:application',
        args: ['-c', '{home}/gunicorn.conf.py'],
        files: { 'gunicorn.conf.py': `def ${hook}(${given}):\n    raise ValueError("${hook}")\n` },
      },
      run: async (server) => {
        const { code } = await server.exit(40_000);
        return [`exit code ${code}`, ...(/ValueError: .*/.exec(server.log) ?? ['no word in the log'])];
      },
    }),
  ),
]);
