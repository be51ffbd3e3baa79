// What each server makes of a request, well formed or not.
import { Connection } from '../helpers/http.ts';
import { asked, exchanged, type View } from './exchange.ts';
import { type Differs, onNewServers, onOneServer, type Scenario } from './parity.ts';

const HOST = 'Host: test\r\n';
const CHUNKED = 'Transfer-Encoding: chunked\r\n';
/** Gunicorn waits for ever for what does not come. */
const PATIENCE_MS = 1500;

interface Case extends View {
  readonly name: string;
  readonly bytes: string;
  readonly differs?: Differs;
}

function sent({ name, bytes, differs, ...view }: Case): Scenario {
  return { name, run: (server) => exchanged(server, bytes, view), ...(differs && { differs }) };
}

function get(target: string, headers = '', version = 'HTTP/1.1'): string {
  return `GET ${target} ${version}\r\n${HOST}${headers}\r\n`;
}

function post(headers: string, body: string): string {
  return `POST /echo HTTP/1.1\r\n${HOST}${headers}\r\n${body}`;
}

function many(count: number): string {
  return Array.from({ length: count }, (_, i) => `X-${i}: 1\r\n`).join('');
}

onOneServer('requests', { app: 'wsgi_matrix:application', workers: 1, threads: 4 }, [
  sent({
    name: 'two spaces before the target',
    bytes: `GET  / HTTP/1.1\r\n${HOST}\r\n`,
    differs: { nunicorn: 'is served', gunicorn: '400', why: "Node's parser" },
  }),
  ...(
    [
      ['RTSP/1.0', get('/', '', 'RTSP/1.0')],
      ['two empty lines before the request line', `\r\n\r\n${get('/')}`],
      ['a bare LF before the request line', `\n${get('/')}`],
      ['Host in a trailer', post(CHUNKED, '5\r\nhello\r\n0\r\nHost: other\r\n\r\n')],
      ['a chunk extension without a name', post(CHUNKED, '5;=a\r\nhello\r\n0\r\n\r\n')],
    ] as const
  ).map(([name, bytes]) =>
    sent({ name, bytes, differs: { nunicorn: 'is served', gunicorn: '400', why: "Node's parser" } }),
  ),
  sent({
    name: 'a space before a chunk extension',
    bytes: post(CHUNKED, '5 ;a=b\r\nhello\r\n0\r\n\r\n'),
    differs: { nunicorn: '400', gunicorn: 'is served', why: "Node's parser" },
  }),
  ...(
    [
      ['a request line of two parts', `GET /\r\n${HOST}\r\n`],
      ['a request line of four parts', `GET / x HTTP/1.1\r\n${HOST}\r\n`],
      ['no target', `GET  HTTP/1.1\r\n${HOST}\r\n`],
      ['HTTP/0.9', get('/', '', 'HTTP/0.9')],
      ['HTTP/1.10', get('/', '', 'HTTP/1.10')],
      ['a protocol that is not HTTP', get('/', '', 'ICE/1.0')],
      ['a target without a slash', get('x')],
      ['a target of *', get('*')],
      ['OPTIONS *', `OPTIONS * HTTP/1.1\r\n${HOST}\r\n`],
      ['a method in lower case', `get / HTTP/1.1\r\n${HOST}\r\n`],
      ['two Host lines', get('/', 'Host: other\r\n')],
      ['two Content-Type lines', post('Content-Type: a/b\r\nContent-Type: c/d\r\n', '')],
      ['a folded header', get('/', 'X-Folded: a\r\n b\r\n')],
      ['a space before the colon', get('/', 'X-Space : a\r\n')],
      ['a header without colon', get('/', 'X-None\r\n')],
      ['a header without name', get('/', ': a\r\n')],
      ['a header name that is no token', get('/', 'X(Y): a\r\n')],
      ['a header name beyond ASCII', get('/', 'X-\xe4: a\r\n')],
      ['NUL in a header', get('/', 'X-Nul: a\0b\r\n')],
      ['a bare CR in a header', get('/', 'X-Cr: a\rb\r\n')],
      ['two Content-Length that differ', post('Content-Length: 5\r\nContent-Length: 6\r\n', 'hello')],
      ['two equal Content-Length', post('Content-Length: 5\r\nContent-Length: 5\r\n', 'hello')],
      ...['+5', '-1', 'abc', '5,5', '0x5', '1_0', '5.0', ''].map(
        (length) =>
          [`Content-Length ${JSON.stringify(length)}`, post(`Content-Length: ${length}\r\n`, 'hello')] as const,
      ),
      ['chunked and Content-Length', post(`Content-Length: 5\r\n${CHUNKED}`, '0\r\n\r\n')],
      ['chunked, chunked', post('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n')],
      ['chunked over HTTP/1.0', `POST /echo HTTP/1.0\r\n${CHUNKED}\r\n0\r\n\r\n`],
      ['an unknown expectation', get('/', 'Expect: the-unexpected\r\n')],
      ['101 headers', get('/', many(100))],
      ['a header of 20 KB', get('/', `X-Long: ${'h'.repeat(20_000)}\r\n`)],
      ['100 headers', get('/', many(99))],
      ['a header of 8000 bytes', get('/', `X-Long: ${'h'.repeat(8000)}\r\n`)],
      ['HTTP/1.0 without Host', 'GET / HTTP/1.0\r\n\r\n'],
      ...['PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'PURGE', 'TRACE'].map(
        (method) => [`method ${method}`, `${method} / HTTP/1.1\r\n${HOST}\r\n`] as const,
      ),
      ['a body with a length', post('Content-Length: 5\r\n', 'hello')],
      ['a body in chunks', post(CHUNKED, '5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n')],
      ['chunk extensions and trailers', post(CHUNKED, '5;a=b\r\nhello\r\n00\r\nX-Trailer: 1\r\n\r\n')],
      ['Expect: 100-continue', post('Expect: 100-continue\r\nContent-Length: 5\r\n', 'hello')],
      ['Connection: close', get('/', 'Connection: close\r\n')],
      ['Connection: keep-alive over HTTP/1.0', get('/', 'Connection: keep-alive\r\n', 'HTTP/1.0')],
      ['//two/slashes', get('//two/slashes')],
      ['the absolute form', get('http://example.org/')],
    ] as const
  ).map(([name, bytes]) => sent({ name, bytes })),

  sent({
    name: 'HTTP/1.1 without Host',
    bytes: 'GET / HTTP/1.1\r\n\r\n',
    differs: { nunicorn: '400', gunicorn: 'is served', why: 'RFC 9112, 3.2' },
  }),
  sent({
    name: 'lines that end with a bare LF',
    bytes: 'GET / HTTP/1.1\nHost: test\n\n',
    patienceMs: PATIENCE_MS,
  }),
  sent({
    name: 'an empty line before the request line',
    bytes: `\r\n${get('/')}`,
  }),
  sent({
    name: 'garbage',
    bytes: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n',
  }),
  sent({
    name: 'HTTP/1.2',
    bytes: get('/', '', 'HTTP/1.2'),
    differs: { nunicorn: '400', gunicorn: 'is served', why: "Node's parser" },
  }),
  sent({
    name: 'HTTP/2.0',
    bytes: get('/', '', 'HTTP/2.0'),
    differs: { nunicorn: '505', gunicorn: '400', why: 'RFC 9110, 15.6.6' },
  }),
  sent({
    name: 'a request line of 5000 bytes',
    bytes: get(`/?${'q'.repeat(5000)}`),
  }),
  sent({
    name: 'Transfer-Encoding: gzip, chunked',
    bytes: post('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n'),
    differs: { nunicorn: '501', gunicorn: 'is served, still compressed', why: 'No app expects it' },
  }),
  sent({
    name: 'a path with bytes above 127',
    bytes: get('/caf\xe9'),
  }),
  sent({
    name: 'method FOO',
    bytes: `FOO / HTTP/1.1\r\n${HOST}\r\n`,
    differs: { nunicorn: '400', gunicorn: 'is served', why: "Node's parser knows the registered methods only" },
  }),
  sent({
    name: 'CONNECT',
    bytes: `CONNECT test:443 HTTP/1.1\r\n${HOST}\r\n`,
    differs: { nunicorn: '501', gunicorn: 'reaches the app, and ends the connection', why: 'nunicorn is no proxy' },
  }),
  sent({
    name: 'two requests at once',
    bytes: get('/') + get('/list/length'),
    answers: 2,
    patienceMs: PATIENCE_MS,
  }),
  sent({
    name: 'a request after a body that the app left unread',
    bytes: `POST /unread HTTP/1.1\r\n${HOST}Content-Length: 100000\r\n\r\n${'x'.repeat(100_000)}${get('/')}`,
    answers: 2,
    patienceMs: PATIENCE_MS,
    differs: { nunicorn: 'is served', gunicorn: 'the connection is closed', why: 'The front has read the body' },
  }),
  ...(
    [
      ['a size that is no number', 'xyz\r\nhello\r\n0\r\n\r\n'],
      ['a sign', '+5\r\nhello\r\n0\r\n\r\n'],
      ['0x', '0x5\r\nhello\r\n0\r\n\r\n'],
      ['an empty size', '\r\nhello\r\n0\r\n\r\n'],
      ['a chunk longer than it says', '3\r\nhello\r\n0\r\n\r\n'],
      ['no CRLF after a chunk', '5\r\nhelloxx0\r\n\r\n'],
      ['a bare LF after the size', '5\nhello\r\n0\r\n\r\n'],
    ] as const
  ).map(([name, chunks]) =>
    sent({
      name: `chunk error: ${name}`,
      bytes: post(CHUNKED, chunks),
    }),
  ),

  sent({
    name: 'transfer coding identity',
    bytes: post('Transfer-Encoding: identity\r\n', ''),
    differs: {
      nunicorn: '501, as any coding but chunked',
      gunicorn: '400',
      why: 'RFC 9112 has no such coding any more',
    },
  }),
  sent({
    name: 'an unknown transfer coding',
    bytes: post('Transfer-Encoding: br\r\n', ''),
    differs: {
      nunicorn: '501 Not Implemented',
      gunicorn: '501 Bad Request',
      why: 'The reason phrase of the status',
    },
  }),
  sent({
    name: 'a control character in the target',
    bytes: get('/environ\x7f'),
    noBody: true,
  }),
  sent({
    name: 'Content-Length beyond 64 bits',
    bytes: post('Content-Length: 18446744073709551621\r\n', 'hello'),
    patienceMs: PATIENCE_MS,
    differs: { nunicorn: '400', gunicorn: 'waits for the body', why: 'Another server on the way may take it for 5' },
  }),
  sent({
    name: '20 KB of chunk extensions',
    bytes: post(CHUNKED, `5;${'e'.repeat(20_000)}\r\nhello\r\n0\r\n\r\n`),
    differs: { nunicorn: '413', gunicorn: '400', why: "Node's parser: it is too large, not malformed" },
  }),
  sent({
    name: 'Connection: close, TE',
    bytes: get('/', 'Connection: close, TE\r\n'),
    differs: { nunicorn: 'closes', gunicorn: 'keeps the connection', why: 'RFC 9110, 7.6.1: it is a list' },
  }),
  sent({
    name: 'Upgrade: h2c',
    bytes: get('/', 'Connection: Upgrade\r\nUpgrade: h2c\r\n'),
    differs: {
      nunicorn: 'the connection ends after the answer',
      gunicorn: 'it is kept',
      why: "Node's parser loses what follows such a request in the same packet",
    },
  }),
  {
    name: 'a body that ends before its length',
    run: async (server) => {
      const connection = await Connection.open(server.address);
      try {
        await connection.send(post('Content-Length: 10\r\n', 'hello'));
        connection.halfClose();
        const answer = await connection.response().then(
          (response) => `${response.status} ${JSON.stringify(response.text())}`,
          () => 'closed without an answer',
        );
        return [answer];
      } finally {
        connection.close();
      }
    },
    differs: {
      nunicorn: 'never reaches the app',
      gunicorn: 'the app gets what there is, as a whole body',
      why: 'Half of a request is none',
    },
  },
  {
    name: 'a client that leaves in the middle of its upload',
    run: async (server) => {
      const connection = await Connection.open(server.address);
      await connection.send('POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello');
      connection.halfClose();
      await connection.end();
      connection.close();
      return [`the app has run ${(await server.get('/count/bodies')).text()} time(s)`];
    },
    differs: { nunicorn: 'the app is not called', gunicorn: 'it is', why: 'Half of a request is none' },
  },
]);

const LENIENT = [
  '--permit-obsolete-folding',
  '--strip-header-spaces',
  '--permit-unconventional-http-method',
  '--permit-unconventional-http-version',
  '--casefold-http-method',
];
const STRICT: Differs = {
  nunicorn: '400, and a warning at the start that the switch has no effect',
  gunicorn: 'is served',
  why: "Node's parser refuses it. Its `--insecure-http-parser` would take it, and much else that smuggles requests",
};

onOneServer('requests to a lenient server', { app: 'wsgi_matrix:application', workers: 1, threads: 4, args: LENIENT }, [
  sent({
    name: 'HTTP/2.0',
    bytes: get('/', '', 'HTTP/2.0'),
    differs: {
      nunicorn: 'is served, and the connection ends',
      gunicorn: 'is served, and the connection is kept',
      why: "Node's parser",
    },
  }),
  ...(
    [
      ['a folded header', get('/', 'X-Folded: a\r\n b\r\n')],
      ['a space before the colon', get('/', 'X-Space : a\r\n')],
      ['a method in lower case', `get / HTTP/1.1\r\n${HOST}\r\n`],
      ['a method of two letters', `GO / HTTP/1.1\r\n${HOST}\r\n`],
    ] as const
  ).map(([name, bytes]) => sent({ name, bytes, differs: STRICT })),
  sent({
    name: 'HTTP/3.0',
    bytes: get('/', '', 'HTTP/3.0'),
    differs: { nunicorn: '400', gunicorn: 'is served', why: "Node's parser" },
  }),
]);

onNewServers('requests to a sync server', { app: 'wsgi_matrix:application' }, [
  {
    name: 'keep-alive',
    run: async (server) => {
      await server.ready();
      return asked(server, '/');
    },
    differs: {
      nunicorn: 'the connection is kept, whatever the worker class',
      gunicorn: 'sync closes it after each answer',
      why: "Connections are the front's: an idle one holds no worker",
    },
  },
]);
