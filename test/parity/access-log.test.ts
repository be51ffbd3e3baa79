// The access log: each atom, escaping, what has a line.
import { until } from '../helpers/deadline.ts';
import { exchange } from '../helpers/http.ts';
import type { Server } from '../helpers/server.ts';
import { type Differs, normalise, onNewServers, type Scenario, type Transcript } from './parity.ts';

interface Case {
  readonly name: string;
  readonly format?: string;
  readonly bytes?: string;
  readonly args?: readonly string[];
  readonly mask?: RegExp;
  readonly differs?: Differs;
}

const HELLO = 'GET /list/length?a=1 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n';

/** The lines of the access log, on standard output, of one request. */
async function logged(server: Server, bytes: string, mask: RegExp | undefined): Promise<Transcript> {
  await server.ready();
  const lines = (): string[] => server.stdout.split('\n').filter((line) => line !== '');
  // `ready` has made a first request.
  await until(() => lines().length > 0, 'the line of the first request');
  const before = lines().length;
  const response = await exchange(server.address, bytes);
  if (response.status === 400) {
    server.kill('SIGTERM');
    await server.exit();
  } else {
    await until(
      () => lines().length > before,
      () => `a line\n${server.output}`,
    );
  }
  return lines()
    .slice(before)
    .map((line) => normalise(mask === undefined ? line : line.replace(mask, 'MASKED'), server));
}

function line({ name, format, bytes = HELLO, args = [], mask, differs }: Case): Scenario {
  const formatArgs = format === undefined ? [] : ['--access-logformat', format];
  return {
    name,
    options: {
      app: 'wsgi_matrix:application',
      threads: 2,
      args: ['--access-logfile', '-', ...formatArgs, ...args],
    },
    run: (server) => logged(server, bytes, mask),
    ...(differs && { differs }),
  };
}

const ACCESS = {
  app: 'wsgi_matrix:application',
  threads: 2,
  args: ['--access-logfile', '-', '--access-logformat', '%(s)s %(U)s'],
};

/** The lines of the access log when the server has ended, without those of the requests that found it ready. */
async function linesOf(server: Server): Promise<Transcript> {
  server.kill('SIGTERM');
  await server.exit(40_000);
  return server.stdout.split('\n').filter((text) => text !== '' && !text.endsWith(' /'));
}

onNewServers('access log', { app: 'wsgi_matrix:application' }, [
  line({ name: 'the default format' }),
  line({ name: 'h l u', format: '%(h)s %(l)s %(u)s' }),
  line({
    name: 'u of a user with Basic authentication',
    format: '%(u)s',
    bytes: HELLO.replace('\r\n\r\n', '\r\nAuthorization: Basic YWxpOnNlY3JldA==\r\n\r\n'),
  }),
  line({ name: 't', format: '%(t)s' }),
  line({ name: 'r m U q H', format: '%(r)s|%(m)s|%(U)s|%(q)s|%(H)s' }),
  line({ name: 'U of an escaped path', format: '%(U)s', bytes: HELLO.replace('/list/length', '/list%2Flength') }),
  line({ name: 's b B', format: '%(s)s %(b)s %(B)s' }),
  line({ name: 's b B of 204', format: '%(s)s %(b)s %(B)s', bytes: HELLO.replace('/list/length', '/204') }),
  line({
    name: 's b B of a generator',
    format: '%(s)s %(b)s %(B)s',
    bytes: HELLO.replace('/list/length', '/generator'),
  }),
  line({ name: 's b B of HEAD', format: '%(s)s %(b)s %(B)s', bytes: HELLO.replace('GET', 'HEAD') }),
  line({
    name: 's b B of a file',
    format: '%(s)s %(b)s %(B)s',
    bytes: HELLO.replace('/list/length', '/file'),
    differs: {
      nunicorn: 'the bytes that were sent',
      gunicorn: '0, as sendfile is not counted',
      why: 'It is the size of the body',
    },
  }),
  line({ name: 'f a without them', format: '%(f)s %(a)s' }),
  line({
    name: 'f a',
    format: '"%(f)s" "%(a)s"',
    bytes: HELLO.replace('\r\n\r\n', '\r\nReferer: http://x/?a="b"\r\nUser-Agent: curl "8"\r\n\r\n'),
  }),
  line({ name: 'T D M L', format: '%(T)s %(D)s %(M)s %(L)s', mask: /^0 \d+ \d+ 0\.\d{6}$/ }),
  line({ name: 'p', format: '%(p)s', mask: /^<\d+>$/ }),
  line({ name: 'a request header', format: '%({host}i)s %({Host}i)s %({x-none}i)s' }),
  line({ name: 'a response header', format: '%({content-length}o)s %({Content-Type}o)s %({x-none}o)s' }),
  line({ name: 'server of the response headers', format: '%({server}o)s' }),
  line({ name: 'an unknown atom', format: '%(zzz)s|%({x}z)s' }),
  line({ name: 'percent signs', format: '100%% %(s)s' }),
  line({ name: 'widths', format: '[%(s)6s] [%(m)-6s]' }),
  line({
    name: 'an error of the app',
    format: '%(s)s %(b)s',
    bytes: HELLO.replace('/list/length', '/error/before'),
    differs: { nunicorn: 'the size of the error page', gunicorn: '0', why: 'It is what was sent' },
  }),
  line({
    name: 'a refused request',
    format: '%(s)s %(r)s',
    bytes: 'GET /x HTTP/1.1\r\nHost: test\r\nHost: other\r\nConnection: close\r\n\r\n',
  }),
  line({
    name: 'quotes and control characters',
    format: '%({x-own}i)s',
    bytes: HELLO.replace('\r\n\r\n', '\r\nX-Own: a"b\\c\td\r\n\r\n'),
    differs: {
      nunicorn: 'control characters and backslashes are escaped as well as quotes',
      gunicorn: 'quotes only',
      why: 'A request cannot forge a line',
    },
  }),
  {
    name: 'a filter that the app adds to gunicorn.access',
    options: {
      ...ACCESS,
      app: 'filtering:application',
      files: {
        'filtering.py': `
import logging
from wsgi_matrix import application
logging.getLogger("gunicorn.access").addFilter(lambda record: "/generator" not in record.getMessage())
`,
      },
    },
    run: async (server) => {
      await server.ready();
      await server.get('/generator');
      await server.get('/list/length');
      return linesOf(server);
    },
    differs: {
      nunicorn: 'has no effect: the line is written',
      gunicorn: 'filters',
      why: 'The front writes the lines. What is set on the logger by `logconfig_dict` or a `logger_class` has its effect',
    },
  },
  {
    name: 'an OSError of the app',
    options: ACCESS,
    run: async (server) => {
      await server.ready();
      await server.get('/error/oserror').catch(() => null);
      await server.get('/list/length');
      return linesOf(server);
    },
    differs: {
      nunicorn: 'has its line',
      gunicorn: 'has none',
      why: 'An error of the app is answered, whatever its class',
    },
  },
  {
    name: 'a request whose worker is killed',
    options: { ...ACCESS, app: 'pathology.faults:application' },
    run: async (server) => {
      await server.ready();
      await server.get('/kill?SIGKILL').catch(() => null);
      await server.ready();
      return linesOf(server);
    },
    differs: { nunicorn: '502, as 503 and 504 have theirs', gunicorn: 'has none', why: 'It is an answer' },
  },
  line({
    name: 'a request over HTTP/1.0',
    format: '%(r)s',
    bytes: 'GET / HTTP/1.0\r\n\r\n',
  }),
]);
