// Start and failure to start: log lines, exit codes, binds, pid file.
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { freePort } from '../helpers/ports.ts';
import type { Kind, Server } from '../helpers/server.ts';
import { ends, logLines } from './operator.ts';
import { type Differs, normalise, onceReady, onNewServers, type Scenario, type Transcript } from './parity.ts';

const APP = 'wsgi_matrix:application';
const START = /Starting|Listening at|Using worker|Booting worker|Handling signal|Worker exiting|Shutting down/;
const FAILURE = /Worker failed to boot|App failed to load|Shutting down: Master|Reason:/;

/** Both servers of a scenario run at the same time: each has a port of its own. */
async function ports(): Promise<Record<Kind, number>> {
  return { gunicorn: await freePort(), nunicorn: await freePort() };
}

const [ofTwo, ofEnvironment, ofLocalhost, alone] = [await ports(), await ports(), await ports(), await ports()];

async function answers(server: Server): Promise<void> {
  await until(
    async () => (await server.get('/').catch(() => null))?.status === 200,
    () => `the first 200\n${server.output}`,
    40_000,
  );
}

/** Tells what its process was given. */
const GIVEN = {
  app: 'given:application',
  files: {
    'given.py': `
import resource, sys
def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/input":
        return [b"read: " + repr(sys.stdin.readline()).encode()]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [b"500" if soft == 500 else b"the hard limit" if soft == hard else str(soft).encode()]
`,
  },
};

onNewServers('start', { app: APP, workers: 1 }, [
  {
    name: 'log of a start and a stop',
    run: async (server) => {
      await server.ready();
      server.kill('SIGTERM');
      return ends(server, START);
    },
  },
  {
    name: 'the whole log of a start',
    run: async (server) => {
      await server.ready();
      if (server.kind === 'nunicorn') await server.waitForLog(/Started: /);
      return logLines(server, /./).map((text) => text.replace(/Python \d\S* \(.*\)$/, 'Python VERSION (PATH)'));
    },
    differs: {
      nunicorn: 'says how many workers and threads, which Python, and when all workers are ready',
      gunicorn: 'does not',
      why: 'To see what runs',
    },
  },
  {
    name: 'the processes of a server with a logger of its own',
    options: {
      app: APP,
      args: ['-c', '{home}/gunicorn.conf.py'],
      files: {
        'gunicorn.conf.py':
          'from gunicorn import glogging\nclass Own(glogging.Logger):\n    pass\nlogger_class = Own\n',
      },
    },
    run: async (server) => {
      await server.ready();
      const programs = server.processes().map(({ exe }) => exe.replace(/[\d.]+$/, ''));
      return programs.toSorted();
    },
    differs: {
      nunicorn: 'master and front are Node; a Python process writes their lines of the log',
      gunicorn: 'master and worker, both Python',
      why: 'The master and the fronts run no Python. Without such a setting there is no such process',
    },
  },
  onceReady({
    name: "the app's standard input",
    options: { ...GIVEN, by: ['sh', '-c', 'echo typed > "$HOME/input"; exec "$@" < "$HOME/input"', 'sh'] },
    run: async (server) => [(await server.get('/input')).text()],
    differs: {
      nunicorn: 'is /dev/null',
      gunicorn: "is the server's: `breakpoint()` works in a terminal",
      why: 'Workers have process groups of their own, which cannot read from a terminal',
    },
  }),
  onceReady({
    name: 'how many descriptors the app may open',
    options: { ...GIVEN, by: ['sh', '-c', 'ulimit -S -n 500; exec "$@"', 'sh'] },
    run: async (server) => [(await server.get('/descriptors')).text()],
    differs: {
      nunicorn: 'as many as the hard limit allows',
      gunicorn: 'as many as the soft limit allows',
      why: 'Node raises its own limit at its start, and workers inherit it',
    },
  }),
  {
    name: 'log of a gthread server',
    options: { app: APP, threads: 3 },
    run: async (server) => {
      await server.ready();
      return logLines(server, START);
    },
  },
  {
    name: 'worker class gthread with one thread',
    options: { app: APP, args: ['-k', 'gthread'] },
    run: async (server) => {
      await server.ready();
      return logLines(server, /Using worker/);
    },
  },
  {
    name: 'two binds',
    options: { app: APP, bind: (kind) => [`127.0.0.1:${ofTwo[kind]}`, 'unix:{home}/app.sock'] },
    run: async (server) => {
      await server.ready();
      return logLines(server, /Listening at/);
    },
  },
  {
    name: 'log level warning',
    options: { app: APP, args: ['--log-level', 'warning'] },
    run: async (server) => {
      await answers(server);
      return logLines(server, /./);
    },
  },
  {
    name: 'error log in a file',
    options: { app: APP, args: ['--error-logfile', '{home}/error.log'] },
    run: async (server) => {
      await answers(server);
      const text = readFileSync(join(server.home, 'error.log'), 'utf8');
      return [...logLines(server, /./), text.includes('Listening at') ? 'in the file' : 'not in the file'];
    },
  },
  {
    name: 'output of the app',
    options: { app: APP, threads: 2 },
    run: async (server) => {
      await server.ready();
      await server.get('/errors');
      await until(() => server.log.includes('printed to stderr') && server.stdout.includes('printed'), 'the output');
      return [
        ...logLines(server, /wsgi\.errors|of two|printed/),
        ...server.stdout
          .split('\n')
          .filter((line) => line !== '')
          .map((line) => `stdout: ${line}`),
      ];
    },
  },
  {
    name: 'traceback of an error',
    options: { app: APP, threads: 2 },
    run: async (server) => {
      await server.ready();
      await server.get('/error/before?q=1');
      await server.waitForLog(/RuntimeError/);
      return logLines(server, /Error handling|Traceback|RuntimeError/);
    },
  },
  {
    name: 'an invalid request',
    options: { app: APP, threads: 2 },
    run: async (server) => {
      await server.ready();
      const connection = await server.connect();
      await connection.send('GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n');
      await connection.end();
      connection.close();
      await server.waitForLog(/Invalid request/);
      return logLines(server, /Invalid request/).map((line) => line.replace(/: .*/, ''));
    },
  },
]);

function fails(name: string, app: string, args: readonly string[] = [], differs?: Differs): Scenario {
  return {
    name,
    options: { app, args },
    run: (server) => ends(server, FAILURE),
    ...(differs && { differs }),
  };
}

const PRELOAD: Differs = {
  nunicorn: 'exit code 3, or 4 if the app is not found',
  gunicorn: 'exit code 1 and a bare traceback',
  why: 'The same codes as without --preload',
};

/** An app that no request can reach: refused at the start, or each time. */
async function endsOrAnswers500(server: Server): Promise<Transcript> {
  const answered = async (): Promise<boolean> =>
    await server.get('/').then(
      ({ status }) => status === 500,
      () => false,
    );
  await until(async () => server.hasExited || (await answered()), 'the end, or an answer');
  return server.hasExited ? ends(server, FAILURE) : ['answers with 500'];
}

onNewServers('exit codes', { app: APP }, [
  fails('a module that does not exist', 'no_such_module:application'),
  fails('an attribute that does not exist', 'wsgi_matrix:nothing'),
  fails('something that cannot be called', 'pathology.not_callable:application'),
  fails('a factory that makes nothing', 'pathology.not_callable:factory()'),
  fails('a syntax error', 'pathology.syntax_error:application'),
  fails('an exception at import', 'pathology.raises_at_import:application'),
  {
    name: 'SystemExit at import',
    options: { app: 'pathology.system_exit_at_import:application' },
    run: async (server) => {
      const boots = (): number => server.log.split('Booting worker').length - 1;
      await until(() => server.hasExited || boots() > 5, 'the end, or many starts');
      return server.hasExited ? ends(server, FAILURE) : ['starts the worker again and again'];
    },
    differs: { nunicorn: 'exit code 3', gunicorn: 'starts it for ever', why: 'It will not get better' },
  },
  {
    name: 'an ASGI application',
    options: { app: 'pathology.not_callable:asgi' },
    run: endsOrAnswers500,
    differs: { nunicorn: 'exit code 4', gunicorn: 'answers each request with 500', why: 'It will not get better' },
  },
  {
    name: 'a factory that is not called',
    options: { app: 'pathology.not_callable:factory' },
    run: endsOrAnswers500,
    differs: { nunicorn: 'exit code 4', gunicorn: 'answers each request with 500', why: 'It will not get better' },
  },
  fails('an app that is no expression', 'wsgi_matrix:1+', [], {
    nunicorn: 'is refused before anything is started',
    gunicorn: 'by the worker',
    why: 'The sooner the better; the exit code is the same',
  }),
  fails('no app', ''),
  fails('an unknown worker class', APP, ['-k', 'nonsense']),
  fails('a worker count that is no number', APP, ['-w', 'many']),
  fails('a flag without its value', APP, ['--workers']),
  fails('a flag that does not exist', APP, ['--no-such-flag']),
  fails('a bind that is none', APP, ['--bind', 'nonsense:port']),
  fails('a user that does not exist', APP, ['--user', 'no-such-user-here']),
  fails('a chdir that does not exist', APP, ['--chdir', '/no/such/folder']),
  fails('a configuration file that does not exist', APP, ['-c', '/no/such/file.py']),
  fails('an error log that cannot be opened', APP, ['--error-logfile', '/no/such/folder/log']),
  fails('--preload of a module that does not exist', 'no_such_module:application', ['--preload'], PRELOAD),
  fails('--preload of an exception at import', 'pathology.raises_at_import:application', ['--preload'], PRELOAD),
  {
    name: '--version',
    options: { app: '', args: ['--version'] },
    run: async (server) => {
      const { code } = await server.exit();
      return [normalise(server.stdout.trim().replace(/\d+\.\d+\.\d+/, 'VERSION')), `exit code ${code}`];
    },
  },
  {
    name: '--help',
    options: { app: '', args: ['--help'] },
    run: async (server) => {
      const { code } = await server.exit();
      return [server.stdout.toLowerCase().includes('usage: ') ? 'a usage' : 'none', `exit code ${code}`];
    },
  },
]);

const taken = await freePort();
const holder = createServer().listen(taken, '127.0.0.1');
after(() => holder.close());

function mode(path: string): string {
  return (statSync(path).mode & 0o777).toString(8);
}

async function socketMode(server: Server): Promise<Transcript> {
  await server.ready();
  const path = join(server.home, 'app.sock');
  const lines = [`mode ${mode(path)}`];
  server.kill('SIGTERM');
  await server.exit();
  return [...lines, existsSync(path) ? 'stays' : 'is removed'];
}

const SOCKET = ['unix:{home}/app.sock'];

onNewServers('binds', { app: APP }, [
  {
    name: 'a port in use',
    options: { app: APP, bind: [`127.0.0.1:${taken}`] },
    run: async (server) => {
      const lines = await ends(server, /Connection in use/);
      return [...new Set(lines.map((line) => line.replace(/in use: .*/, 'in use')))];
    },
  },
  { name: 'a Unix socket', options: { app: APP, bind: SOCKET }, run: socketMode },
  {
    name: 'a Unix socket with umask 007',
    options: { app: APP, bind: SOCKET, args: ['--umask', '007'] },
    run: socketMode,
  },
  {
    name: 'a Unix socket whose path is relative',
    options: { app: APP, bind: [], chdir: '{home}', args: ['-b', 'unix:app.sock', '--pythonpath', FIXTURES] },
    run: async (server) => {
      await server.waitForLog(/Listening at/);
      const path = join(server.home, 'app.sock');
      await until(() => existsSync(path), path);
      return logLines(server, /Listening at/);
    },
    differs: { nunicorn: 'is logged with its whole path', gunicorn: 'as it was given', why: 'It is found by it' },
  },
  {
    name: 'a file that is no socket',
    options: { app: APP, bind: SOCKET, files: { 'app.sock': 'precious' } },
    run: async (server) => {
      const { code } = await server.exit(30_000);
      return [`exit code ${code}`, readFileSync(join(server.home, 'app.sock'), 'utf8')];
    },
  },
  {
    name: 'PORT of the environment',
    options: { app: APP, bind: [], env: (kind) => ({ PORT: String(ofEnvironment[kind]) }) },
    run: async (server) => {
      await server.waitForLog(/Listening at/);
      return logLines(server, /Listening at/).map((line) => line.replace(/:\d+ /, ':N '));
    },
  },
  {
    name: 'localhost',
    options: { app: APP, bind: (kind) => [`localhost:${ofLocalhost[kind]}`] },
    run: async (server) => {
      await server.waitForLog(/Listening at/);
      return logLines(server, /Listening at/);
    },
  },
  {
    name: 'a port alone',
    options: { app: APP, bind: (kind) => [`:${alone[kind]}`] },
    run: async (server) => {
      await server.waitForLog(/Listening at/);
      return logLines(server, /Listening at/);
    },
  },
]);

function pidFile(server: Server): string {
  return join(server.home, 'server.pid');
}

const PID_ARGS = ['--pid', '{home}/server.pid'];

onNewServers('pid file', { app: APP, args: PID_ARGS }, [
  {
    name: 'content, mode, removal',
    run: async (server) => {
      await server.ready();
      const content = readFileSync(pidFile(server), 'utf8').replace(String(server.pid), 'PID');
      const lines = [JSON.stringify(content), mode(pidFile(server))];
      server.kill('SIGTERM');
      await server.exit();
      return [...lines, existsSync(pidFile(server)) ? 'stays' : 'is removed'];
    },
  },
  {
    name: 'of a process that lives',
    options: { app: APP, args: PID_ARGS, files: { 'server.pid': `${process.pid}\n` } },
    run: async (server) => {
      const { code } = await server.exit();
      const said = /Already running on PID \d+/.test(server.log);
      return [
        `exit code ${code}`,
        said ? 'Already running' : server.log,
        readFileSync(pidFile(server), 'utf8').trim() === String(process.pid) ? 'untouched' : 'changed',
      ];
    },
  },
  {
    name: 'of a process that is gone',
    options: { app: APP, args: PID_ARGS, files: { 'server.pid': '999999\n' } },
    run: async (server) => {
      await server.ready();
      return [readFileSync(pidFile(server), 'utf8').replace(String(server.pid), 'PID')];
    },
  },
  {
    name: 'with garbage',
    options: { app: APP, args: PID_ARGS, files: { 'server.pid': 'garbage' } },
    run: async (server) => {
      await server.ready();
      return [readFileSync(pidFile(server), 'utf8').replace(String(server.pid), 'PID')];
    },
  },
  {
    name: 'that another process has taken over',
    run: async (server) => {
      await server.ready();
      writeFileSync(pidFile(server), '1\n');
      server.kill('SIGTERM');
      await server.exit();
      return [existsSync(pidFile(server)) ? 'stays' : 'is removed'];
    },
  },
  {
    name: 'in a folder that does not exist',
    options: { app: APP, args: ['--pid', '/no/such/folder/server.pid'] },
    run: async (server) => {
      const { code } = await server.exit();
      return [`exit code ${code}`];
    },
  },
  {
    name: 'removed when the app does not load',
    options: { app: 'no_such_module:application', args: PID_ARGS },
    run: async (server) => {
      const { code } = await server.exit();
      return [`exit code ${code}`, existsSync(pidFile(server)) ? 'stays' : 'is removed'];
    },
  },
]);
