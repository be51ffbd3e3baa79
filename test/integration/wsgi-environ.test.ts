// The environ that the application gets, key by key.
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { exchange, type Response } from '../helpers/http.ts';
import { matrix } from '../helpers/matrix.ts';
import { ROOT } from '../helpers/paths.ts';
import type { Server } from '../helpers/server.ts';

type Environ = Readonly<Record<string, unknown>>;

const { version: VERSION } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };

function environOf(response: Response): Environ {
  assert.equal(response.status, 200, response.text());
  return JSON.parse(response.text()) as Environ;
}

async function environ(server: Server, headers = '', target = '/environ', version = 'HTTP/1.1'): Promise<Environ> {
  return environOf(
    await exchange(server.address, `GET ${target} ${version}\r\nHost: example.org:81\r\n${headers}\r\n`),
  );
}

matrix({ app: 'wsgi_matrix:application', workers: 1 }, (scenario, { kind, threads }) => {
  scenario('the request line and the addresses', async (server) => {
    const env = await environ(server, '', '/environ/a?q=1&r=%20');
    const { REMOTE_PORT, ...rest } = env;
    assert.match(String(REMOTE_PORT), /^\d+$/);
    const expected: Environ = {
      REQUEST_METHOD: 'GET',
      QUERY_STRING: 'q=1&r=%20',
      RAW_URI: '/environ/a?q=1&r=%20',
      SERVER_PROTOCOL: 'HTTP/1.1',
      SCRIPT_NAME: '',
      PATH_INFO: '/environ/a',
      HTTP_HOST: 'example.org:81',
      SERVER_NAME: '127.0.0.1',
      SERVER_PORT: String(server.port),
      REMOTE_ADDR: '127.0.0.1',
      'wsgi.version': [1, 0],
      'wsgi.url_scheme': 'http',
      'wsgi.input_terminated': true,
      'wsgi.run_once': false,
      'wsgi.multiprocess': false,
    };
    for (const [key, value] of Object.entries(expected)) assert.deepEqual(rest[key], value, key);
  });

  scenario('no body, no CONTENT_TYPE and no CONTENT_LENGTH', async (server) => {
    const env = await environ(server);
    assert.ok(!('CONTENT_TYPE' in env));
    assert.ok(!('CONTENT_LENGTH' in env));
  });

  scenario('CONTENT_TYPE and CONTENT_LENGTH have no HTTP_ twins', async (server) => {
    const bytes = 'POST /environ HTTP/1.1\r\nHost: test\r\nContent-Type: text/x; a=b\r\nContent-Length: 3\r\n\r\nabc';
    const env = environOf(await exchange(server.address, bytes));
    assert.equal(env.CONTENT_TYPE, 'text/x; a=b');
    assert.equal(env.CONTENT_LENGTH, '3');
    assert.ok(!('HTTP_CONTENT_TYPE' in env));
    assert.ok(!('HTTP_CONTENT_LENGTH' in env));
  });

  scenario('a chunked body has no CONTENT_LENGTH but HTTP_TRANSFER_ENCODING', async (server) => {
    const bytes = 'POST /environ HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n';
    const env = environOf(await exchange(server.address, bytes));
    assert.ok(!('CONTENT_LENGTH' in env));
    assert.equal(env.HTTP_TRANSFER_ENCODING, 'chunked');
  });

  scenario('it is a real dict and all CGI values are str', async (server) => {
    const response = await server.get('/environ', 'X-Some: thing\r\n');
    assert.equal(response.header('x-real-dict'), 'yes');
    assert.equal(response.header('x-all-str'), 'yes');
  });

  scenario('the keys of the WSGI server are there', async (server) => {
    const env = await environ(server);
    for (const key of ['wsgi.input', 'wsgi.errors', 'wsgi.file_wrapper', 'wsgi.early_hints', 'wsgi.multithread']) {
      assert.ok(key in env, key);
    }
    for (const key of ['DOCUMENT_ROOT', 'REMOTE_USER']) assert.ok(!(key in env), key);
  });

  scenario.differs('SERVER_SOFTWARE', 'names itself', async (server) => {
    assert.equal((await environ(server)).SERVER_SOFTWARE, `nunicorn/${VERSION}`);
  });

  scenario.differs('wsgi.multithread only with more than one thread', 'true on gthread', async (server) => {
    assert.equal((await environ(server))['wsgi.multithread'], threads > 1);
  });

  scenario.differs('one thread is the main thread', 'as sync', async (server) => {
    assert.equal((await server.get('/stack')).text(), threads === 1 ? 'main' : 'other');
  });

  scenario('header names become HTTP_ keys in latin-1', async (server) => {
    const env = await environ(server, 'X-Lat: caf\xe9\r\nX-Utf: caf\xc3\xa9\r\nX-Empty:\r\nX-Space: \t padded \t\r\n');
    assert.equal(env.HTTP_X_LAT, 'caf\xe9');
    assert.equal(env.HTTP_X_UTF, 'caf\xc3\xa9');
    assert.equal(env.HTTP_X_EMPTY, '');
    assert.equal(env.HTTP_X_SPACE, 'padded');
  });

  scenario('duplicate headers are joined with a comma', async (server) => {
    assert.equal((await environ(server, 'X-Foo: 1\r\nX-Bar: 0\r\nx-foo: 2\r\n')).HTTP_X_FOO, '1,2');
  });

  scenario('duplicates of headers that node:http takes once are joined as well', async (server) => {
    const env = await environ(server, 'User-Agent: a\r\nUser-Agent: b\r\nReferer: c\r\nReferer: d\r\n');
    assert.equal(env.HTTP_USER_AGENT, 'a,b');
    assert.equal(env.HTTP_REFERER, 'c,d');
  });

  scenario.differs('duplicate Cookie headers are joined with "; "', 'joins them with ","', async (server) => {
    assert.equal((await environ(server, 'Cookie: a=1\r\nCookie: b=2\r\n')).HTTP_COOKIE, 'a=1; b=2');
  });

  scenario('header names with underscores are dropped', async (server) => {
    const env = await environ(server, 'X_Under: 1\r\nX-Forwarded_For: 2\r\nX-Kept: 3\r\n');
    assert.ok(!('HTTP_X_UNDER' in env));
    assert.ok(!('HTTP_X_FORWARDED_FOR' in env));
    assert.equal(env.HTTP_X_KEPT, '3');
  });

  scenario('a header cannot take the place of another key', async (server) => {
    const env = await environ(server, 'Proxy: evil\r\nHttp-Host: evil\r\nWsgi.Url-Scheme: evil\r\n');
    assert.equal(env.HTTP_HOST, 'example.org:81');
    assert.equal(env['wsgi.url_scheme'], 'http');
  });

  scenario('X-Forwarded-Proto of a trusted peer decides the scheme', async (server) => {
    for (const header of ['X-Forwarded-Proto: https', 'X-Forwarded-Protocol: ssl', 'X-Forwarded-Ssl: on']) {
      assert.equal((await environ(server, `${header}\r\n`))['wsgi.url_scheme'], 'https', header);
    }
    assert.equal((await environ(server, 'X-Forwarded-Proto: http\r\n'))['wsgi.url_scheme'], 'http');
  });

  scenario('scheme headers that contradict each other are a 400', async (server) => {
    const response = await server.get('/environ', 'X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n');
    assert.equal(response.status, 400);
  });

  scenario('X-Forwarded-For changes nothing', async (server) => {
    const env = await environ(server, 'X-Forwarded-For: 9.9.9.9\r\n');
    assert.equal(env.REMOTE_ADDR, '127.0.0.1');
    assert.equal(env.HTTP_X_FORWARDED_FOR, '9.9.9.9');
  });

  scenario('SCRIPT_NAME of a trusted peer is taken off the path', async (server) => {
    const env = await environ(server, 'SCRIPT_NAME: /mnt\r\n', '/mnt/environ');
    assert.equal(env.SCRIPT_NAME, '/mnt');
    assert.equal(env.PATH_INFO, '/environ');
    const outside = await server.get('/environ', 'SCRIPT_NAME: /mnt\r\n');
    assert.equal(outside.status, 500);
  });

  const PATHS: readonly (readonly [target: string, path: string, query?: string])[] = [
    ['/environ/caf%C3%A9', '/environ/caf\xc3\xa9'],
    ['/environ/%E9', '/environ/\xe9'],
    ['/environ/a%2Fb', '/environ/a/b'],
    ['/environ/a%00b', '/environ/a\0b'],
    ['/environ/%zz%4', '/environ/%zz%4'],
    ['/environ/100%', '/environ/100%'],
    ['/environ/%25%32%35', '/environ/%25'],
    ['/environ/a+b', '/environ/a+b'],
    ['/environ/a;p=1', '/environ/a;p=1'],
    ['/environ//double///slash', '/environ//double///slash'],
    ['/environ/a/../b/./c', '/environ/a/../b/./c'],
    ['/environ/?', '/environ/', ''],
    ['/environ/?a?b#', '/environ/', 'a?b'],
    ['/environ/?q=%C3%A9', '/environ/', 'q=%C3%A9'],
    ['/environ/x#frag?q=1', '/environ/x', ''],
    ['/environ/"<>\\^`{|}', '/environ/"<>\\^`{|}'],
  ];
  for (const [target, path, query] of PATHS) {
    scenario(`the path of ${target}`, async (server) => {
      const env = await environ(server, '', target);
      assert.equal(env.PATH_INFO, path);
      assert.equal(env.QUERY_STRING, query ?? '');
      assert.equal(env.RAW_URI, target);
    });
  }

  scenario('a path that begins with two slashes is kept', async (server) => {
    // The app has no such path; the answer is its own 404, not a redirect or an error.
    const response = await server.get('//environ');
    assert.equal(response.text(), 'no such path');
  });

  scenario('the absolute form gives its path', async (server) => {
    const env = await environ(server, '', 'http://example.org:81/environ/x?q=1');
    assert.equal(env.PATH_INFO, '/environ/x');
    assert.equal(env.QUERY_STRING, 'q=1');
    assert.equal(env.RAW_URI, 'http://example.org:81/environ/x?q=1');
  });

  scenario('HTTP/1.0', async (server) => {
    const env = environOf(await exchange(server.address, 'GET /environ HTTP/1.0\r\n\r\n'));
    assert.equal(env.SERVER_PROTOCOL, 'HTTP/1.0');
    assert.equal(env.SERVER_NAME, '127.0.0.1');
    assert.ok(!('HTTP_HOST' in env));
  });

  scenario('the environment of the process names the server', async (server) => {
    // Frameworks look there; gunicorn sets it too.
    assert.match(String((await environ(server)).SERVER_SOFTWARE), new RegExp(`^${kind}/`));
  });
});
