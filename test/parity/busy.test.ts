// Slow clients, long requests and more requests than threads: who waits for whom, and what a client is told.
import { until } from '../helpers/deadline.ts';
import type { Connection } from '../helpers/http.ts';
import type { Kind, Server, ServerOptions } from '../helpers/server.ts';
import { exchanged, PATIENCE_MS, patient, WAITS, within } from './exchange.ts';
import { onceReady, onNewServers, type Transcript } from './parity.ts';

const MATRIX: Omit<ServerOptions, 'kind'> = { app: 'wsgi_matrix:application', threads: 2 };
const FAULTS: Omit<ServerOptions, 'kind'> = { app: 'pathology.faults:application' };

/** Flags that gunicorn has not. */
function ours(...flags: readonly string[]): (kind: Kind) => readonly string[] {
  return (kind) => (kind === 'nunicorn' ? flags : []);
}

/** Connections that have sent these bytes stay open while `then` runs. */
async function beside(server: Server, bytes: readonly string[], then: () => Promise<Transcript>): Promise<Transcript> {
  const connections: Connection[] = [];
  try {
    for (const text of bytes) {
      const connection = await server.connect();
      connections.push(connection);
      if (text !== '') await connection.send(text);
    }
    return await then();
  } finally {
    for (const connection of connections) connection.close();
  }
}

function get(path: string): string {
  return `GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`;
}

/** A request to /hold that has begun. `answer`: its status, when its gate is opened. */
async function held(server: Server, name: string): Promise<{ readonly answer: Promise<string> }> {
  const connection = await server.connect();
  await connection.send(get(`/hold?${name}`));
  const answer = within(connection.response('GET', 60_000));
  answer.finally(() => connection.close());
  await server.marked(`${name}.started`);
  return { answer };
}

const HALF_HEAD = 'GET / HTTP/1.1\r\nHos';
const HALF_BODY = 'POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello';
const NO_THREAD = 'Requests are read whole before a thread has them';
const LIMITS_OF_THEIR_OWN = 'Clients have limits of their own, and are told';

onNewServers('slow clients', MATRIX, [
  onceReady({
    name: 'two threads, two clients that send half a head',
    options: MATRIX,
    run: (server) => beside(server, [HALF_HEAD, HALF_HEAD], async () => [await patient(server)]),
    differs: { nunicorn: 'a third one is served', gunicorn: 'a third one waits for ever', why: NO_THREAD },
  }),
  onceReady({
    name: 'two threads, two clients that send half a body',
    options: MATRIX,
    run: (server) => beside(server, [HALF_BODY, HALF_BODY], async () => [await patient(server)]),
    differs: { nunicorn: 'a third one is served', gunicorn: 'a third one waits for ever', why: NO_THREAD },
  }),
  onceReady({
    name: 'one thread, two clients that send nothing',
    options: { ...MATRIX, threads: 1, args: ['-k', 'gthread'] },
    run: (server) => beside(server, ['', ''], async () => [await patient(server)]),
    differs: {
      nunicorn: 'a third one is served',
      gunicorn: 'each of them holds the thread for 5 s',
      why: 'The front has them',
    },
  }),
  onceReady({
    name: 'sync, clients that stay when they have their answer',
    options: { ...FAULTS, threads: 1 },
    run: async (server) => {
      const connections: Connection[] = [];
      const begun = performance.now();
      for (let client = 0; client < 4; client++) {
        const connection = await server.connect();
        connections.push(connection);
        await connection.send('GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n');
        await connection.response();
      }
      // Gunicorn waits for each of the first three, for 2 s.
      const waited = performance.now() - begun >= 5500;
      for (const connection of connections) connection.close();
      return [waited ? 'each client waits for the one before it to leave' : 'nobody waits'];
    },
    differs: {
      nunicorn: 'the next one is served',
      gunicorn: 'the next one waits 2 s for the end of each connection',
      why: 'The front ends connections',
    },
  }),
  onceReady({
    name: 'a client that stops in the head',
    options: { ...MATRIX, args: ours('--header-timeout', '1') },
    run: (server) => exchanged(server, HALF_HEAD, { patienceMs: PATIENCE_MS }),
    differs: { nunicorn: '408 after --header-timeout', gunicorn: 'has all the time', why: LIMITS_OF_THEIR_OWN },
  }),
  onceReady({
    name: 'a client that stops in the body',
    options: { ...MATRIX, args: ours('--body-timeout', '1') },
    run: (server) => exchanged(server, HALF_BODY, { patienceMs: PATIENCE_MS }),
    differs: { nunicorn: '408 after --body-timeout', gunicorn: 'has all the time', why: LIMITS_OF_THEIR_OWN },
  }),
  onceReady({
    name: 'two threads, two clients that do not read their answer',
    options: { ...MATRIX, args: ours('--response-timeout', '1') },
    run: async (server) => {
      const connections = await Promise.all([server.connect(), server.connect()]);
      for (const connection of connections) {
        connection.socket.pause();
        await connection.send(get('/big?20000000'));
      }
      const answer = await patient(server);
      for (const connection of connections) connection.close();
      return [answer];
    },
    differs: {
      nunicorn: 'are cut after --response-timeout, a third one is served',
      gunicorn: 'a third one waits for ever',
      why: LIMITS_OF_THEIR_OWN,
    },
  }),
  onceReady({
    name: 'a body of 20 bytes where 10 are allowed',
    options: { ...MATRIX, args: ours('--limit-request-body', '10') },
    run: (server) =>
      exchanged(server, `POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 20\r\n\r\n${'b'.repeat(20)}`),
    differs: { nunicorn: '413', gunicorn: 'has no such limit', why: 'A limit that others leave to a proxy' },
  }),
]);

onNewServers('busy', FAULTS, [
  onceReady({
    name: 'more requests than --max-queue',
    options: { ...FAULTS, args: ours('--max-queue', '1') },
    run: async (server) => {
      const { answer } = await held(server, 'a');
      const answers: string[] = [];
      const all = Array.from({ length: 3 }, () => within(server.get('/', '', 60_000)).then((one) => answers.push(one)));
      await until(() => answers.length === 2, 'two answers', PATIENCE_MS).catch(() => {});
      const early = answers.join(' ') || WAITS;
      server.mark('a.open');
      await Promise.all(all);
      return [`while all threads are busy: ${early}`, `then: ${await answer} ${answers.toSorted().join(' ')}`];
    },
    differs: {
      nunicorn: '503 at once for what the queue does not hold',
      gunicorn: "all wait in the kernel's backlog",
      why: 'A client knows where it stands',
    },
  }),
  onceReady({
    name: 'longer than --queue-timeout in the queue',
    options: { ...FAULTS, args: ours('--queue-timeout', '1') },
    run: async (server) => {
      const { answer } = await held(server, 'a');
      const early = await patient(server, '/mark?late');
      server.mark('a.open');
      const first = await answer;
      await patient(server, '/mark?after'); // comes after it in the queue, if it is still there
      return [early, first, server.hasMark('late') ? 'has run' : 'has not run'];
    },
    differs: {
      nunicorn: '504, and the app is not called',
      gunicorn: 'waits',
      why: 'A client knows where it stands',
    },
  }),
  onceReady({
    name: 'four workers with two threads, eight requests at once',
    options: { ...FAULTS, workers: 4, threads: 2 },
    run: async (server) => {
      for (let trial = 0; trial < 4; trial++) {
        const names = Array.from({ length: 8 }, (_, at) => `${trial}-${at}`);
        const answers = names.map((name) => within(server.get(`/hold?${name}`, '', 60_000)));
        const atOnce = await until(
          () => names.every((name) => server.hasMark(`${name}.started`)),
          'all to run',
          PATIENCE_MS,
        ).catch(() => false);
        for (const name of names) server.mark(`${name}.open`);
        await Promise.all(answers);
        if (!atOnce) return ['a request waits although a thread is free'];
      }
      return ['all run at once, each time'];
    },
    differs: {
      nunicorn: 'each has a thread',
      gunicorn: 'a worker takes more than it has threads, while others are idle',
      why: 'A request goes to a worker that is free',
    },
  }),
  onceReady({
    name: 'gthread, a request longer than --timeout',
    // A worker of gunicorn tells once a second that it lives, and is killed if it is late.
    options: { ...FAULTS, threads: 2, args: ['--timeout', '2'] },
    run: async (server) => {
      const connection = await server.connect();
      try {
        await connection.send(get('/hold?long'));
        const early = await within(connection.response('GET', PATIENCE_MS));
        server.mark('long.open');
        return early === WAITS ? [early, await within(connection.response())] : [early];
      } finally {
        connection.close();
      }
    },
    differs: {
      nunicorn: '504',
      gunicorn: 'may take as long as it likes',
      why: 'One request does not run for ever; see --timeout above',
    },
  }),
  onceReady({
    name: 'sync, a request longer than --timeout',
    options: { ...FAULTS, args: ['--timeout', '1'] },
    run: async (server) => {
      const [before] = server.workers();
      const connection = await server.connect();
      try {
        await connection.send(get('/sleep'));
        const answer = await within(connection.response('GET', 30_000));
        // The client stays: gunicorn's worker lingers for it, and is killed meanwhile.
        const said = server.kind === 'gunicorn' ? /was sent SIG|exited with code/ : /a_function_that_sleeps/;
        await server.waitForLog(said, { ms: 30_000 });
        await server.ready();
        return [
          answer,
          Number((await server.get('/pid')).text()) === before ? 'the worker stays' : 'another worker',
          /Perhaps out of memory/.test(server.log) ? 'perhaps out of memory, says the log' : 'no word of memory',
          /GET \/sleep/.test(server.log) ? 'the log names the request' : 'the log does not name the request',
          server.log.includes('a_function_that_sleeps') ? 'and shows where it stood' : 'nor where it stood',
        ];
      } finally {
        connection.close();
      }
    },
    differs: {
      nunicorn: '504; the request is interrupted, the worker replaced, the log has method, path and stack',
      gunicorn: '500; the worker is killed, and said to be out of memory perhaps',
      why: 'The client is told, and the log says what it was',
    },
  }),
]);
