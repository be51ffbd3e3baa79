// What reaches a client for all that an application may answer.
import { counted } from '../helpers/count.ts';
import { asked, asked10, exchanged, PATIENCE_MS, type View } from './exchange.ts';
import { type Differs, onOneServer, type Scenario } from './parity.ts';

const APP_ERROR: Differs = {
  nunicorn: '500 and a traceback in the log',
  gunicorn: 'the connection ends without an answer',
  why: 'An error of the app is answered, whatever its class',
};
const NO_BYTES: Differs = {
  nunicorn: '500, as nothing has been sent yet',
  gunicorn: 'a head with 200, then the connection is cut',
  why: 'The client is told that it failed',
};
const LENGTH_KNOWN: Differs = {
  nunicorn: 'a list or tuple gets a Content-Length',
  gunicorn: 'it is sent chunked, or until the connection ends',
  why: 'Its length is known',
};

function answers(path: string, { differs, ...view }: View & { differs?: Differs } = {}): Scenario {
  return { name: path, run: (server) => asked(server, path, view), ...(differs && { differs }) };
}

onOneServer('responses', { app: 'wsgi_matrix:application', workers: 1, threads: 4 }, [
  ...[
    '/',
    '/list',
    '/list/two',
    '/list/length',
    '/list/empty',
    '/list/empty-piece',
    '/tuple',
    '/status/201',
    '/status/custom',
    '/write',
    '/write/length',
    '/generator',
    '/generator/late',
    '/generator/empty-first',
    '/no-start',
    '/start-twice',
    '/start-twice-after-output',
    '/exc-info-after',
    '/close/list',
    '/close/error-first',
    '/close/error-later',
    '/close/raises',
    '/length/short',
    '/length/excess',
    '/length/excess-one-piece',
    '/length/excess-write',
    '/length/invalid',
    '/204',
    '/204/body',
    '/304/body',
    '/header/latin1',
    '/header/latin1-streamed',
    '/header/duplicates',
    '/header/case',
    '/header/whitespace',
    '/header/appended-later',
    '/header/hop-by-hop',
    '/header/many',
    '/header/int',
    '/header/bytes',
    '/header/beyond-latin1',
    '/header/cr',
    '/header/lf',
    '/header/crlf',
    '/header/nul',
    '/header/name-crlf',
    '/header/name-space',
    '/header/name-empty',
    '/header/name-colon',
    '/header/name-non-ascii',
    '/status/empty',
    '/status/int',
    '/status/crlf',
    '/status/lf',
    '/status/text',
    '/status/bytes',
    '/error/before',
    '/error/after',
    '/error/memory',
    '/error/recursion',
    '/error/mid-body',
    '/error/mid-body-length',
    '/return/none',
    '/return/int',
    '/return/str-later',
    '/file',
    '/file/length',
    '/file/length-shorter',
    '/file/offset',
    '/file/bytesio',
    '/file/close',
    '/file/iterated',
    '/early-hints',
    '/big?100000',
    '/stream/bytes?300000',
  ].map((path) => answers(path)),
  ...[
    '/error/oserror',
    '/error/oserror-after',
    '/error/file-not-found',
    '/error/broken-pipe',
    '/error/timeout',
    '/error/stop-iteration',
    '/error/generator-exit',
  ].map((path) => answers(path, { differs: APP_ERROR })),
  ...['/return/str', '/return/bytes'].map((path) => answers(path, { differs: NO_BYTES })),
  answers('/generator/start-after-empty', {
    differs: {
      nunicorn: 'start_response after an empty first piece is taken',
      gunicorn: '500',
      why: 'PEP 3333: before the first piece that is not empty',
    },
  }),
  answers('/length/twice', {
    framing: true,
    differs: {
      nunicorn: 'two equal Content-Length are sent as one',
      gunicorn: 'both are sent',
      why: 'A client could not tell where the body ends',
    },
  }),
  answers('/length/twice-different', {
    framing: true,
    differs: {
      nunicorn: '500',
      gunicorn: 'both are sent',
      why: 'A client could not tell where the body ends',
    },
  }),
  answers('/return/bytearray', {
    differs: { nunicorn: 'a bytearray is sent', gunicorn: 'the connection is cut', why: 'Any bytes will do' },
  }),
  answers('/exc-info-before', {
    differs: {
      nunicorn: 'the headers of the second call replace those of the first',
      gunicorn: 'both are sent',
      why: 'PEP 3333: the application replaces its headers',
    },
  }),
  {
    name: 'order',
    run: (server) => asked(server, '/header/case', { order: true }),
    differs: {
      nunicorn: "the app's headers, then Server, Date, Connection",
      gunicorn: "Server, Date, Connection, then the app's headers",
      why: 'node:http adds its own at the end; the order of different fields has no meaning (RFC 9110, 5.3)',
    },
  },
  {
    name: 'framing of a list without a length',
    run: (server) => asked(server, '/list', { framing: true }),
    differs: LENGTH_KNOWN,
  },
  { name: 'framing of a generator', run: (server) => asked(server, '/generator', { framing: true }) },
  {
    name: 'write() of a request that has ended',
    run: async (server) => [...(await asked(server, '/write/keep')), ...(await asked(server, '/write/kept'))],
    differs: {
      nunicorn: 'an AssertionError in the app',
      gunicorn: 'the bytes are dropped',
      why: 'The app is told that nobody gets them',
    },
  },
  {
    name: 'a close() that goes on, and the next request of the connection',
    run: async (server) => {
      const requests = ['/close/gate?6,length', '/'].map((path) => `GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
      const lines = await exchanged(server, requests.join(''), { answers: 2, patienceMs: PATIENCE_MS });
      await asked(server, '/open/close');
      return lines;
    },
    differs: {
      nunicorn: 'another thread answers it',
      gunicorn: 'it waits for the close()',
      why: 'The client has its whole answer',
    },
  },
  {
    name: 'HEAD of an endless stream',
    run: async (server) => {
      const lines = await asked(server, '/close/endless', {}, 'HEAD');
      const closed = counted(server, 'endless', 1, PATIENCE_MS);
      const fate = await closed.then(
        () => 'the stream is closed',
        () => 'the stream goes on',
      );
      return [...lines, fate];
    },
    differs: {
      nunicorn: 'the stream is closed',
      gunicorn: 'it holds its thread for ever',
      why: 'Nobody gets its pieces',
    },
  },
  { name: 'framing of write()', run: (server) => asked(server, '/write', { framing: true }) },
  ...['/', '/list', '/generator/head', '/header/many', '/error/before', '/file/length', '/length/short'].map(
    (path): Scenario => ({ name: `HEAD ${path}`, run: (server) => asked(server, path, {}, 'HEAD') }),
  ),
  ...['/', '/list', '/generator', '/header/hop-by-hop', '/error/mid-body', '/early-hints', '/204'].map(
    (path): Scenario => ({ name: `HTTP/1.0 ${path}`, run: (server) => asked10(server, path) }),
  ),
  {
    name: 'HTTP/1.0 framing of a list',
    run: (server) => asked10(server, '/list', { framing: true }),
    differs: LENGTH_KNOWN,
  },
  {
    name: 'HTTP/1.0 framing of a generator',
    run: (server) => asked10(server, '/generator', { framing: true }),
    differs: {
      nunicorn: 'the status line says HTTP/1.1, the body ends with the connection',
      gunicorn: 'the status line says HTTP/1.0',
      why: 'node:http; RFC 9110, 2.5 allows it',
    },
  },
  {
    name: 'HTTP/1.0 keep-alive with a length',
    run: (server) => asked10(server, '/', {}, 'Connection: keep-alive\r\n'),
  },
  {
    name: 'HTTP/1.0 keep-alive of a list without a length',
    run: (server) => asked10(server, '/list', {}, 'Connection: keep-alive\r\n'),
    differs: LENGTH_KNOWN,
  },
]);
