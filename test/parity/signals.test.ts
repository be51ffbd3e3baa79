// Signals to the master and to workers, idle and while a request runs.
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../helpers/deadline.ts';
import { exchange } from '../helpers/http.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { isAlive } from '../helpers/processes.ts';
import type { Server, ServerOptions } from '../helpers/server.ts';
import { ends, logLines } from './operator.ts';
import { type Differs, onNewServers, type Scenario, type Transcript } from './parity.ts';

const APP: Omit<ServerOptions, 'kind'> = { app: 'wsgi_matrix:application', threads: 2 };
const SIGNALS = /Handling signal|Hang up|Quick shutdown|Shutting down/;

interface Case {
  readonly name: string;
  readonly options?: Partial<ServerOptions>;
  readonly run: (server: Server) => Promise<Transcript>;
  readonly differs?: Differs;
}

function scenario({ name, options, run, differs }: Case): Scenario {
  return {
    name,
    options: { ...APP, ...options },
    run: async (server) => {
      await server.ready();
      return run(server);
    },
    ...(differs && { differs }),
  };
}

/** A request that runs until its gate is opened; the application has begun it. */
async function running(server: Server, gate: string): Promise<{ readonly ended: Promise<Transcript> }> {
  const ended = exchange(server.address, `GET /wait/${gate} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n`, {
    ms: 40_000,
  }).then(
    (response): Transcript => [`running request: ${response.status} ${response.text().slice(0, 20)}`],
    (): Transcript => ['running request: no answer'],
  );
  await until(async () => (await server.get(`/count/started-${gate}`)).text() === '1', 'the request to begin');
  return { ended };
}

async function workersAre(server: Server, count: number): Promise<string> {
  await until(
    () => server.workers().length === count,
    () => `${count} workers\n${server.output}`,
    30_000,
  );
  return `${count} workers`;
}

const CHAINS = `import os, signal
before = signal.getsignal(signal.SIGTERM)
def handler(number, frame):
    open(os.environ["HOME"] + "/cleaned-up", "w").close()
    before(number, frame)
signal.signal(signal.SIGTERM, handler)
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
`;
const EXITS = `import atexit, os
importer = os.getpid()
atexit.register(lambda: os.getpid() == importer and open(os.environ["HOME"] + "/exited", "w").close())
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
`;

onNewServers('signals', APP, [
  ...(['SIGTERM', 'SIGINT', 'SIGQUIT'] as const).map((signal) =>
    scenario({
      name: `${signal} to an idle server`,
      run: (server) => {
        server.kill(signal);
        return ends(server, SIGNALS);
      },
    }),
  ),
  scenario({
    name: 'SIGTERM while a request runs',
    options: { app: 'pathology.faults:application' },
    run: async (server) => {
      const connection = await server.connect();
      await connection.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.marked('a.started');
      server.kill('SIGTERM');
      await server.waitForLog(/Handling signal: term/);
      server.mark('a.open');
      const response = await connection.response();
      connection.close();
      return [`${response.status} ${response.text()}`, `exit code ${(await server.exit()).code}`];
    },
  }),
  scenario({
    name: 'SIGINT while a request runs that is about to end',
    options: { app: 'pathology.faults:application', threads: 1 },
    run: async (server) => {
      const connection = await server.connect();
      await connection.send('GET /hold?b HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.marked('b.started');
      server.kill('SIGINT');
      await server.waitForLog(/Handling signal: int/);
      if (server.kind === 'gunicorn') await until(() => server.workers().length === 0, 'the end of its workers');
      server.mark('b.open');
      const answer = await connection.response().then(
        ({ status }) => `${status}`,
        () => 'no answer',
      );
      connection.close();
      return [answer, `exit code ${(await server.exit()).code}`];
    },
    differs: {
      nunicorn: 'running requests have 2 s',
      gunicorn: 'workers are stopped at once',
      why: 'Most requests are done by then',
    },
  }),
  ...[1, 2].map((workers) =>
    scenario({
      name: `SIGUSR1 to every process of ${workers} worker${workers === 1 ? '' : 's'} while a request runs`,
      options: { app: 'pathology.faults:application', workers },
      run: async (server) => {
        const before = server.workers();
        const connection = await server.connect();
        await connection.send('GET /hold?c HTTP/1.1\r\nHost: test\r\n\r\n');
        await server.marked('c.started');
        for (const { pid } of server.processes()) process.kill(pid, 'SIGUSR1');
        await server.waitForLog(/Handling signal: usr1/);
        server.mark('c.open');
        const response = await connection.response();
        connection.close();
        return [`${response.status} ${response.text()}`, `the same workers: ${`${server.workers()}` === `${before}`}`];
      },
    }),
  ),
  scenario({
    name: 'SIGTERM, an app whose handler calls the one before it',
    options: { app: 'chains:application', chdir: '{home}', files: { 'chains.py': CHAINS } },
    run: async (server) => {
      server.kill('SIGTERM');
      const how = await ends(server, /Shutting down|SIGTERM/);
      return [...how, `cleaned up: ${server.hasMark('cleaned-up')}`];
    },
  }),
  scenario({
    name: 'SIGTERM, an app with exit handlers under --preload',
    options: { app: 'exits:application', chdir: '{home}', files: { 'exits.py': EXITS }, args: ['--preload'] },
    run: async (server) => {
      server.kill('SIGTERM');
      const how = await ends(server, /Shutting down/);
      return [...how, `of the process that imported it: ${server.hasMark('exited')}`];
    },
  }),
  scenario({
    name: 'SIGTERM, a request longer than --graceful-timeout',
    options: { args: ['--graceful-timeout', '1'] },
    run: async (server) => {
      const { ended } = await running(server, 'b');
      server.kill('SIGTERM');
      return [...(await ended), ...(await ends(server, /Shutting down/))];
    },
    differs: {
      nunicorn: 'the request gets 503',
      gunicorn: 'the connection ends without an answer',
      why: 'The client is told',
    },
  }),
  scenario({
    name: "SIGTERM, a handler of the app's own that exits, while a request runs",
    options: { app: 'pathology.faults:application', threads: 1 },
    run: async (server) => {
      await server.get('/on-term?heard');
      const connection = await server.connect();
      await connection.send('GET /hold?d HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.marked('d.started');
      server.kill('SIGTERM');
      await server.waitForLog(/Handling signal: term/);
      if (server.kind === 'gunicorn') await server.marked('heard');
      server.mark('d.open');
      const answer = await connection.response().then(
        ({ status }) => `${status}`,
        () => 'no answer',
      );
      connection.close();
      await server.marked('heard');
      return [`running request: ${answer}`, 'the handler was called'];
    },
    differs: {
      nunicorn: 'it is called when the requests of its worker have ended',
      gunicorn: 'it is called at once, and ends the request',
      why: 'Requests are let finish',
    },
  }),
  scenario({
    name: 'SIGTERM to a process that the app has forked',
    options: { app: 'forks_processes:application', args: ['--graceful-timeout', '1'] },
    run: async (server) => [(await server.get('/request')).text()],
    differs: {
      nunicorn: 'it ends',
      gunicorn: 'it goes on',
      why: 'Who ends it waits for its end: `Pool` and `terminate()` of multiprocessing',
    },
  }),
  scenario({
    name: 'SIGQUIT during a graceful stop',
    run: async (server) => {
      const { ended } = await running(server, 'c');
      server.kill('SIGTERM');
      await server.waitForLog(/Handling signal: term/);
      server.kill('SIGQUIT');
      await ended;
      return ends(server, /Handling signal: term|Quick shutdown/);
    },
  }),
  scenario({
    name: 'TTIN, TTIN, TTOU',
    run: async (server) => {
      const lines: string[] = [];
      for (const [signal, count] of [
        ['SIGTTIN', 2],
        ['SIGTTIN', 3],
        ['SIGTTOU', 2],
      ] as const) {
        const from = server.log.length;
        server.kill(signal);
        await server.waitForLog(/Handling signal/, { from });
        lines.push(await workersAre(server, count), ...logLines(server, /Handling signal/, from));
      }
      return lines;
    },
  }),
  scenario({
    name: 'TTOU of the last worker',
    run: async (server) => {
      server.kill('SIGTTOU');
      await server.waitForLog(/Handling signal: ttou/);
      return [(await server.get('/')).text(), await workersAre(server, 1)];
    },
  }),
  scenario({
    name: 'WINCH of a server that is no daemon',
    run: async (server) => {
      server.kill('SIGWINCH');
      return [(await server.get('/')).text(), await workersAre(server, 1)];
    },
  }),
  scenario({
    name: 'a worker that is killed',
    run: async (server) => {
      const [worker] = server.workers();
      if (worker === undefined) throw new Error('no worker');
      process.kill(worker, 'SIGKILL');
      await until(() => !isAlive(worker), 'its end');
      const line = await server.waitForLog(/Worker \(pid:\d+\) was sent .*/);
      return [line[0].replace(/\d+/, 'PID'), await workersAre(server, 1), (await server.get('/')).text()];
    },
  }),
  scenario({
    name: 'a worker that is killed while it runs a request',
    run: async (server) => {
      const { ended } = await running(server, 'killed');
      const [worker] = server.workers();
      if (worker === undefined) throw new Error('no worker');
      process.kill(worker, 'SIGKILL');
      return await ended;
    },
    differs: {
      nunicorn: 'the request gets 502',
      gunicorn: 'the connection ends without an answer',
      why: 'The front is there to say it',
    },
  }),
  ...(['SIGTERM', 'SIGINT', 'SIGQUIT'] as const).map((signal) =>
    scenario({
      name: `${signal} to a worker`,
      run: async (server) => {
        const [worker] = server.workers();
        if (worker === undefined) throw new Error('no worker');
        process.kill(worker, signal);
        // Gunicorn's gthread shuts its pool down inside the handler: where that takes a lock twice, its master ends it after --timeout.
        await until(() => !isAlive(worker), 'its end', 60_000);
        return [await workersAre(server, 1), (await server.get('/')).text()];
      },
    }),
  ),
  scenario({
    name: 'a worker that exits in a request',
    run: async (server) => {
      const [worker] = server.workers();
      const response = await server.get('/error/system-exit-3').then(
        ({ status }) => `${status}`,
        () => 'no answer',
      );
      // Gunicorn takes a worker that exits with code 3 for one that failed to boot.
      await until(() => server.hasExited || server.workers().length === 1, 'a worker or the end');
      if (server.hasExited) return [response, `the server ends with code ${(await server.exit()).code}`];
      return [response, server.workers()[0] === worker ? 'the worker stays' : 'another worker'];
    },
    differs: {
      nunicorn: '500; the worker stays',
      gunicorn: 'no answer; with SystemExit(3) the whole server ends',
      why: 'SystemExit is an error of one request',
    },
  }),
]);

onNewServers('log files', APP, [
  {
    name: 'USR1 opens error and access log anew',
    options: { ...APP, args: ['--error-logfile', '{home}/error.log', '--access-logfile', '{home}/access.log'] },
    run: async (server) => {
      const error = join(server.home, 'error.log');
      const access = join(server.home, 'access.log');
      await until(async () => (await server.get('/').catch(() => null))?.status === 200, 'the first 200');
      await until(() => readFileSync(access, 'utf8').includes('GET /'), 'the access line');
      renameSync(error, `${error}.1`);
      renameSync(access, `${access}.1`);
      server.kill('SIGUSR1');
      await until(() => existsSync(error) && existsSync(access), 'the new files');
      await server.get('/list/length');
      await until(() => readFileSync(access, 'utf8').includes('/list/length'), 'the access line in the new file');
      server.kill('SIGTERM');
      await server.exit();
      const lines = [
        readFileSync(`${error}.1`, 'utf8').includes('Handling signal: usr1')
          ? 'usr1 in the old one'
          : 'usr1 not in the old one',
        readFileSync(error, 'utf8').includes('Shutting down: Master') ? 'end in the new one' : 'end not in the new one',
      ];
      return lines;
    },
  },
]);

const RELOADS = `
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"one"]
`;

const CHANGING: Omit<ServerOptions, 'kind'> = {
  app: 'changing:application',
  chdir: '{home}',
  files: { 'changing.py': RELOADS },
};

function changed(server: Server, content: string): void {
  writeFileSync(join(server.home, 'changing.py'), content);
}

/**
 * Changes the code under `--reload` and waits for what comes of it. Gunicorn's reloader takes what it sees at its first
 * look for what was loaded, so a change before that look is lost on it: it gets the same change again.
 */
async function reloaded(server: Server, content: string, state: () => unknown, what: string): Promise<void> {
  changed(server, content);
  let again = performance.now() + RELOADER_LOOKS_MS;
  await until(
    () => {
      if (server.kind === 'gunicorn' && performance.now() > again) {
        changed(server, content);
        again = performance.now() + RELOADER_LOOKS_MS;
      }
      return state();
    },
    () => `${what}\n${server.output}`,
    30_000,
  );
}

/** Gunicorn's reloader looks once a second, and its worker needs a moment to start again. */
const RELOADER_LOOKS_MS = 5_000;

onNewServers('reload', CHANGING, [
  {
    name: 'HUP with new code',
    run: async (server) => {
      await server.ready();
      changed(server, RELOADS.replace('one', 'two'));
      const from = server.log.length;
      server.kill('SIGHUP');
      await until(async () => (await server.get('/').catch(() => null))?.text() === 'two', 'the new code');
      return logLines(server, /Handling signal|Hang up/, from);
    },
  },
  {
    name: 'HUP with code that cannot be imported',
    run: async (server) => {
      await server.ready();
      changed(server, 'raise RuntimeError("broken")');
      server.kill('SIGHUP');
      await server.waitForLog(/RuntimeError: broken/);
      await until(
        () => server.hasExited || /did not boot/.test(server.log),
        () => `an end or a word\n${server.output}`,
      );
      return [
        server.hasExited ? `exit code ${(await server.exit()).code}` : `it serves: ${(await server.get('/')).text()}`,
      ];
    },
    differs: {
      nunicorn: 'the old workers go on serving',
      gunicorn: 'the server exits',
      why: 'A bad deployment is no outage',
    },
  },
  {
    name: 'HUP with --preload and new code',
    options: { ...CHANGING, args: ['--preload'] },
    run: async (server) => {
      await server.ready();
      const [before] = server.workers();
      changed(server, RELOADS.replace('one', 'two'));
      server.kill('SIGHUP');
      await until(() => server.workers().length === 1 && server.workers()[0] !== before, 'another worker', 30_000);
      return [(await server.get('/')).text()];
    },
    differs: { nunicorn: 'the new code', gunicorn: 'the old code', why: 'That is what a reload is for' },
  },
  {
    name: '--reload, a file that has a SyntaxError',
    options: { ...CHANGING, args: ['--reload'] },
    run: async (server) => {
      await server.ready();
      const isTold = async () =>
        server.kind === 'nunicorn'
          ? server.log.includes('SyntaxError')
          : (await server.get('/').catch(() => null))?.status === 500;
      await reloaded(server, 'def', isTold, 'the traceback');
      const response = await server.get('/');
      return [`${response.status}${response.text().includes('SyntaxError') ? ' with the traceback' : ''}`];
    },
    differs: {
      nunicorn: 'the old code goes on serving, the traceback is in the log',
      gunicorn: 'a page with the traceback',
      why: 'One way of reloading',
    },
  },
  {
    name: '--reload, a start with a SyntaxError',
    options: { ...CHANGING, args: ['--reload'], files: { 'changing.py': 'def' } },
    run: async (server) => {
      if (server.kind === 'nunicorn') return [`exit code ${(await server.exit(30_000)).code}`];
      await until(async () => (await server.get('/').catch(() => null))?.status === 500, 'the page', 30_000);
      const isMended = async () => (await server.get('/').catch(() => null))?.text() === 'one';
      await reloaded(server, RELOADS, isMended, 'the mended code');
      return ['500, then the mended code'];
    },
    differs: {
      nunicorn: 'ends, with the traceback in the log',
      gunicorn: 'a page with the traceback, until the file is mended',
      why: 'A server that has never served ends when it cannot',
    },
  },
  {
    name: '--reload with --preload',
    options: { ...CHANGING, args: ['--reload', '--preload'] },
    run: async (server) => {
      await server.ready();
      const [before] = server.workers();
      const isAnother = () => server.workers().length === 1 && server.workers()[0] !== before;
      await reloaded(server, RELOADS.replace('one', 'two'), isAnother, 'another worker');
      return [(await server.get('/')).text()];
    },
    differs: { nunicorn: 'the new code', gunicorn: 'the old code', why: 'One way of reloading' },
  },
  {
    name: 'USR2, then WINCH to the old master, in a terminal',
    options: { ...CHANGING, args: ['--log-level', 'debug', '--pid', '{home}/server.pid'] },
    run: async (server) => {
      await server.ready();
      const [before = 0] = server.workers();
      server.kill('SIGUSR2');
      const file = join(server.home, 'server.pid.2');
      await until(
        () => server.workers().length === 2 && existsSync(file),
        () => `the worker of the new master\n${server.output}`,
        30_000,
      );
      server.kill('SIGWINCH');
      await until(
        () => !isAlive(before) || /SIGWINCH ignored/.test(server.log),
        () => `an effect\n${server.output}`,
        30_000,
      );
      const answer = isAlive(before) ? 'the old worker stays' : 'the old worker leaves';
      const next = Number(readFileSync(file, 'utf8'));
      process.kill(next, 'SIGTERM');
      // Gunicorn's worker may miss a signal that comes while it starts: it is killed after --graceful-timeout.
      await until(() => !isAlive(next), 'the end of the new master', 60_000);
      return [answer];
    },
    differs: {
      nunicorn: 'the old master rests while the new one serves',
      gunicorn: 'only a daemon does',
      why: "The guide's way of upgrading works everywhere, and a resized terminal stops nothing",
    },
  },
  {
    name: 'HUP keeps the number of workers',
    options: { ...CHANGING, workers: 2 },
    run: async (server) => {
      await server.ready();
      const before = server.workers();
      server.kill('SIGHUP');
      await until(
        () => server.workers().length === 2 && server.workers().every((pid) => !before.includes(pid)),
        () => `two new workers\n${server.output}`,
        30_000,
      );
      return [(await server.get('/')).text()];
    },
  },
  {
    name: 'HUP after TTIN',
    options: CHANGING,
    run: async (server) => {
      await server.ready();
      server.kill('SIGTTIN');
      await until(() => server.workers().length === 2, 'two workers');
      const before = server.workers();
      server.kill('SIGHUP');
      await until(
        () => server.workers().length > 0 && server.workers().every((pid) => !before.includes(pid)),
        () => `new workers\n${server.output}`,
        30_000,
      );
      return [`${server.workers().length} workers`];
    },
  },
  {
    name: 'HUP reads the configuration file anew',
    options: {
      app: 'environment:application',
      chdir: FIXTURES,
      files: { 'gunicorn.conf.py': 'raw_env = ["PARITY=one"]\nworkers = 1\n' },
    },
    run: async (server) => {
      await server.ready();
      writeFileSync(join(server.home, 'gunicorn.conf.py'), 'raw_env = ["PARITY=two"]\nworkers = 2\n');
      server.kill('SIGHUP');
      await until(
        async () =>
          (await server.get('/').catch(() => null))?.text().includes('PARITY=two') && server.workers().length === 2,
        () => `the new settings\n${server.output}`,
        30_000,
      );
      return ['PARITY=two', `${server.workers().length} workers`];
    },
  },
  {
    name: 'HUP with a configuration file that is wrong',
    options: { app: 'environment:application', chdir: FIXTURES, files: { 'gunicorn.conf.py': 'workers = 1\n' } },
    run: async (server) => {
      await server.ready();
      writeFileSync(join(server.home, 'gunicorn.conf.py'), 'workers = "many"\n');
      server.kill('SIGHUP');
      await until(() => server.hasExited || /many/.test(server.log), 'the error or the end', 30_000);
      return [
        server.hasExited ? `exit code ${(await server.exit()).code}` : `it serves: ${(await server.get('/')).status}`,
      ];
    },
  },
]);
