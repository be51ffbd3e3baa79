// The environ that an application gets.
import { strict as assert } from 'node:assert';
import { exchange } from '../helpers/http.ts';
import type { Server } from '../helpers/server.ts';
import { type Differs, normalise, onNewServers, onOneServer, type Scenario, type Transcript } from './parity.ts';

/** Keys with a difference of their own: shown only where they are the subject. */
const APART = ['SERVER_SOFTWARE', 'wsgi.multithread', 'wsgi.input', 'gunicorn.socket', 'nunicorn.extend_deadline'];

interface Request {
  readonly target?: string;
  readonly headers?: string;
  readonly version?: string;
  readonly body?: string;
  /** Only these keys. */
  readonly keys?: readonly string[];
}

async function environ(server: Server, request: Request = {}): Promise<Transcript> {
  const { target = '/environ', headers = '', version = 'HTTP/1.1', body, keys } = request;
  const head = body === undefined ? 'GET' : 'POST';
  const response = await exchange(
    server.address,
    `${head} ${target} ${version}\r\nHost: example.org:81\r\n${headers}\r\n${body ?? ''}`,
  );
  if (response.status !== 200) return [`${response.status} ${response.reason}`];
  const found = JSON.parse(response.text()) as Record<string, unknown>;
  if (typeof found.REMOTE_PORT === 'string') {
    assert.match(found.REMOTE_PORT, /^\d+$/);
    found.REMOTE_PORT = 'PORT';
  }
  if (found.SERVER_PORT === String('port' in server.address ? server.port : '')) found.SERVER_PORT = 'PORT';
  return Object.entries(found)
    .filter(([key]) => (keys === undefined ? !APART.includes(key) : keys.includes(key)))
    .map(([key, value]) => [key, keys === undefined && /^"<\w+>"$/.test(JSON.stringify(value)) ? 'an object' : value])
    .map(([key, value]) => normalise(`${key}: ${JSON.stringify(value)}`, server))
    .sort();
}

function asked(name: string, request: Request, differs?: Differs): Scenario {
  return { name, run: (server) => environ(server, request), ...(differs && { differs }) };
}

const SCENARIOS: readonly Scenario[] = [
  asked('a plain GET', {}),
  asked('HTTP/1.0', { version: 'HTTP/1.0' }),
  asked('a query', { target: '/environ?a=1&b=%20' }),
  ...[
    '/environ/caf%C3%A9',
    '/environ/%E9',
    '/environ/a%2Fb',
    '/environ/a%00b',
    '/environ/%zz%4',
    '/environ/100%',
    '/environ/%25%32%35',
    '/environ/a+b;p=1',
    '/environ//double///slash',
    '/environ/a/../b/./c',
    '/environ/?a?b#',
    '/environ/x#frag?q=1',
    '/environ/"<>\\^`{|}',
    'http://example.org:81/environ/x?q=1',
  ].map((target) => asked(`the path of ${target.replace('`', "'")}`, { target })),
  asked(
    'the absolute form, with another host',
    { target: 'http://other.example:82/environ/x', keys: ['HTTP_HOST', 'RAW_URI', 'PATH_INFO'] },
    {
      nunicorn: 'HTTP_HOST is the host of the target',
      gunicorn: 'it is that of Host',
      why: 'RFC 9112, 3.2.2: an origin server must ignore Host then',
    },
  ),
  asked('CONTENT_TYPE and CONTENT_LENGTH', {
    headers: 'Content-Type: text/plain\r\nContent-Length: 5\r\n',
    body: 'hello',
  }),
  asked('a chunked body', { headers: 'Transfer-Encoding: chunked\r\n', body: '5\r\nhello\r\n0\r\n\r\n' }),
  asked('an empty body', { headers: 'Content-Length: 0\r\n', body: '' }),
  asked('header names', { headers: 'X-Mixed-Case: a\r\nx-lower: b\r\nX.Dot: c\r\nX~Tilde: d\r\n' }),
  asked('a value in latin-1', { headers: 'X-Name: caf\xe9\r\n' }),
  asked('blanks around a value', { headers: 'X-Blank: \t a b \t\r\nX-Empty:\r\n' }),
  asked('duplicate headers', { headers: 'X-D: 1\r\nX-D: 2\r\nAccept: a/b\r\nAccept: c/d\r\n' }),
  asked('duplicates of headers that usually come once', {
    headers: 'User-Agent: a\r\nUser-Agent: b\r\nAuthorization: a\r\nAuthorization: b\r\nReferer: a\r\nReferer: b\r\n',
  }),
  asked(
    'duplicate cookies',
    { headers: 'Cookie: a=1\r\nCookie: b=2\r\n' },
    {
      nunicorn: 'joined with `; `',
      gunicorn: 'joined with `,`',
      why: 'RFC 6265, 5.4: with a comma they cannot be told apart',
    },
  ),
  asked('a header name with an underscore', { headers: 'X_Under: 1\r\nX-Fine: 2\r\n' }),
  asked('HTTP_HOST as a header', { headers: 'HTTP_HOST: evil\r\nRemote-Addr: 1.2.3.4\r\n' }),
  asked('Proxy', { headers: 'Proxy: http://evil\r\n' }),
  asked('X-Forwarded-Proto of a trusted peer', { headers: 'X-Forwarded-Proto: https\r\n' }),
  asked('X-Forwarded-Ssl of a trusted peer', { headers: 'X-Forwarded-Ssl: on\r\n' }),
  asked('X-Forwarded-Proto: http', { headers: 'X-Forwarded-Proto: http\r\n' }),
  asked('scheme headers that contradict', { headers: 'X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n' }),
  asked('X-Forwarded-For', { headers: 'X-Forwarded-For: 9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n' }),
  asked('SCRIPT_NAME of a trusted peer', { target: '/mnt/environ', headers: 'SCRIPT_NAME: /mnt\r\n' }),
  asked(
    'SCRIPT_NAME that is not the beginning of the path',
    { headers: 'SCRIPT_NAME: /mnt\r\n' },
    { nunicorn: '500 Internal Server Error', gunicorn: '500 Bad Request', why: 'The reason phrase of the status' },
  ),
  asked('Connection and TE', { headers: 'Connection: close, TE\r\nTE: trailers\r\nUpgrade: h2c\r\n' }),
  asked('SERVER_SOFTWARE', { keys: ['SERVER_SOFTWARE'] }),
  asked(
    'the object of wsgi.input',
    { keys: ['wsgi.input'] },
    {
      nunicorn: 'a `BytesIO` or a file, and seekable',
      gunicorn: 'an object that reads from the client',
      why: 'The body is complete before the app runs',
    },
  ),
  asked(
    'the server of the environ',
    { keys: ['gunicorn.socket', 'nunicorn.extend_deadline'] },
    {
      nunicorn: '`nunicorn.extend_deadline`, a function that takes seconds, and no `gunicorn.socket`',
      gunicorn: '`gunicorn.socket`',
      why: "The client's socket is the front's",
    },
  ),
];

onOneServer('environ', { app: 'wsgi_matrix:application', workers: 1, threads: 4 }, SCENARIOS);

async function once(server: Server, request: Request = {}): Promise<Transcript> {
  await server.ready();
  return environ(server, request);
}

onNewServers('environ of other servers', { app: 'wsgi_matrix:application' }, [
  {
    name: 'wsgi.multithread and wsgi.multiprocess of one sync worker',
    run: (server) => once(server, { keys: ['wsgi.multithread', 'wsgi.multiprocess'] }),
  },
  {
    name: 'two workers with three threads',
    options: { app: 'wsgi_matrix:application', workers: 2, threads: 3 },
    run: (server) => once(server, { keys: ['wsgi.multithread', 'wsgi.multiprocess'] }),
  },
  {
    name: 'gthread with one thread',
    options: { app: 'wsgi_matrix:application', args: ['-k', 'gthread'] },
    run: (server) => once(server, { keys: ['wsgi.multithread', 'wsgi.multiprocess'] }),
    differs: { nunicorn: 'wsgi.multithread is false', gunicorn: 'true', why: 'PEP 3333 asks for more than one thread' },
  },
  {
    name: 'SERVER_SOFTWARE, as it is',
    run: async (server) => {
      await server.ready();
      const found = JSON.parse((await server.get('/environ')).text()) as Record<string, unknown>;
      return [String(found.SERVER_SOFTWARE).replace(/\d+\.\d+\.\d+/, 'VERSION')];
    },
    differs: { nunicorn: 'nunicorn and its version', gunicorn: 'gunicorn and its version', why: 'Each names itself' },
  },
  {
    name: 'the thread of the app under gthread',
    options: { app: 'wsgi_matrix:application', args: ['-k', 'gthread'] },
    run: async (server) => {
      await server.ready();
      return [(await server.get('/stack')).text()];
    },
    differs: {
      nunicorn: "one thread is Python's main thread",
      gunicorn: 'is another one',
      why: '`signal.alarm` works, and a request can be interrupted',
    },
  },
  {
    name: 'a peer that is not trusted',
    options: { app: 'wsgi_matrix:application', args: ['--forwarded-allow-ips', '10.0.0.1'] },
    run: (server) => once(server, { headers: 'X-Forwarded-Proto: https\r\nSCRIPT_NAME: /mnt\r\n' }),
  },
  {
    name: 'SCRIPT_NAME of the environment',
    options: { app: 'wsgi_matrix:application', env: { SCRIPT_NAME: '/env' }, readyPath: '/env/' },
    run: (server) => once(server, { target: '/env/environ' }),
  },
  {
    name: 'raw_env',
    options: { app: 'environment:application', args: ['--env', 'PARITY=yes', '-e', 'PARITY_TWO=a=b'] },
    run: async (server) => {
      await server.ready();
      return (await server.get('/')).text().split('\n');
    },
  },
]);
