// Workers that are replaced, and a server that ends: what clients see meanwhile.
import { DeadlineError, until } from '../helpers/deadline.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { isAlive } from '../helpers/processes.ts';
import type { Server, ServerOptions } from '../helpers/server.ts';
import { patient, within } from './exchange.ts';
import { onceReady, onNewServers } from './parity.ts';

const LONG_MS = 30_000;

/** After a request to /gate, or with a file "gated", workers do not boot before there is a file "open". */
const GATED = `
import os, time
def path(name):
    return os.path.join(os.environ["HOME"], name)
if os.path.exists(path("gated")):
    open(path("booting"), "w").close()
    while not os.path.exists(path("open")):
        time.sleep(0.01)
def application(environ, start_response):
    if environ["PATH_INFO"] == "/gate":
        open(path("gated"), "w").close()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
`;
const GATED_APP: Omit<ServerOptions, 'kind'> = {
  app: 'gated:application',
  chdir: '{home}',
  files: { 'gated.py': GATED },
};
const FAULTS: Omit<ServerOptions, 'kind'> = { app: 'pathology.faults:application', chdir: FIXTURES };

/** Ends 0.3 s after it has been imported. */
const SHORT_LIVED = `
import os, threading
threading.Timer(0.3, os._exit, (1,)).start()
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
`;

function workerOf(server: Server): number {
  const [worker] = server.workers();
  if (worker === undefined) throw new Error(`no worker\n${server.output}`);
  return worker;
}

onNewServers('replacement', GATED_APP, [
  onceReady({
    name: 'HUP, while the new worker boots',
    options: GATED_APP,
    run: async (server) => {
      const before = workerOf(server);
      server.mark('gated');
      server.kill('SIGHUP');
      await server.marked('booting', LONG_MS);
      if (server.kind === 'gunicorn') await until(() => !isAlive(before), 'the end of the old worker', LONG_MS);
      const answer = await patient(server);
      server.mark('open');
      await server.ready();
      return [answer];
    },
    differs: {
      nunicorn: 'the old one serves until the new one is ready',
      gunicorn: 'nobody serves',
      why: 'A reload is no outage',
    },
  }),
  onceReady({
    name: '--max-requests, while the new worker boots',
    options: { ...GATED_APP, args: ['--max-requests', '1'], readyPath: '/gate' },
    run: async (server) => {
      await server.marked('booting', LONG_MS);
      const answer = await patient(server);
      server.mark('open');
      await server.ready();
      return [answer];
    },
    differs: {
      nunicorn: 'the old one serves until the new one is ready',
      gunicorn: 'nobody serves',
      why: 'Recycling is no outage',
    },
  }),
  onceReady({
    name: 'HUP, a client that keeps its connection',
    options: { ...FAULTS, threads: 2, args: ['--keep-alive', '60', '--graceful-timeout', '2'] },
    run: async (server) => {
      const before = workerOf(server);
      const connection = await server.connect();
      try {
        await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
        const first = await within(connection.response());
        server.kill('SIGHUP');
        await until(() => !isAlive(before), 'the end of the old worker', LONG_MS);
        await server.ready();
        await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
        return [first, await within(connection.response())];
      } finally {
        connection.close();
      }
    },
    differs: {
      nunicorn: 'goes on using it',
      gunicorn: 'finds it closed without a word, and its next request lost',
      why: "Connections are the front's, which stays",
    },
  }),
  onceReady({
    name: 'HUP while a request runs, then SIGINT',
    options: { ...FAULTS, args: ['--graceful-timeout', '30'] },
    run: async (server) => {
      const connection = await server.connect();
      await connection.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.marked('a.started');
      const from = server.log.length;
      server.kill('SIGHUP');
      await server.waitForLog(/Booting worker/, { from, ms: LONG_MS });
      server.kill('SIGINT');
      const heard = await server.waitForLog(/Handling signal: int/, { from, ms: 6000 }).then(
        () => 'SIGINT is handled while the request runs',
        (error: unknown) => {
          if (error instanceof DeadlineError) return 'SIGINT waits for the request';
          throw error;
        },
      );
      server.mark('a.open');
      const { code } = await server.exit(60_000);
      connection.close();
      return [heard, `exit code ${code}`];
    },
    differs: {
      nunicorn: 'is heard at once',
      gunicorn: 'is not heard before the old worker has ended, up to --graceful-timeout',
      why: 'The master waits for nobody',
    },
  }),
  {
    name: 'a worker that ends soon after each boot',
    options: { app: 'short:application', chdir: '{home}', files: { 'short.py': SHORT_LIVED } },
    run: async (server) => {
      const boots = (): number => server.log.split('Booting worker').length - 1;
      const waits = (): number => server.log.split('is started again in').length - 1;
      await until(
        () => boots() >= 12 || waits() >= 3,
        () => `many boots, or waits\n${server.output}`,
        60_000,
      );
      return waits() >= 3
        ? [...server.log.matchAll(/Worker \d+ is started again in .*/g)].slice(0, 3).map(([line]) => line)
        : ['is started again at once, each time'];
    },
    differs: {
      nunicorn: 'is started again after a while, each time a longer one',
      gunicorn: 'at once, without end',
      why: 'What does not work does not take the machine as well',
    },
  },
  onceReady({
    name: 'SIGTERM, requests that wait for a worker',
    options: FAULTS,
    run: async (server) => {
      const running = await server.connect();
      await running.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.marked('a.started');
      const waiting = await Promise.all(
        Array.from({ length: 3 }, async () => {
          const connection = await server.connect();
          await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
          return connection;
        }),
      );
      server.kill('SIGTERM');
      await server.waitForLog(/Handling signal: term/);
      server.mark('a.open');
      const answers = await Promise.all(
        [running, ...waiting].map((connection) => within(connection.response('GET', 60_000))),
      );
      for (const connection of [running, ...waiting]) connection.close();
      return [`running: ${answers[0]}`, `waiting: ${answers.slice(1).join(', ')}`];
    },
    differs: { nunicorn: 'they are served', gunicorn: 'they are reset', why: 'They came before the signal' },
  }),
  onceReady({
    name: 'SIGTERM, gthread, a client that keeps its connection',
    options: { ...FAULTS, threads: 2, args: ['--keep-alive', '60', '--graceful-timeout', '8'] },
    run: async (server) => {
      const connection = await server.connect();
      await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
      await connection.response();
      const begun = performance.now();
      server.kill('SIGTERM');
      await server.exit(60_000);
      connection.close();
      return [performance.now() - begun >= 7500 ? 'the end takes --graceful-timeout' : 'ends before'];
    },
  }),
]);
