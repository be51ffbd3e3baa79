// From the head of a request to environ: gunicorn's rules, and those of nunicorn's that differ.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type ConnectionFacts,
  EnvironBuilder,
  type HeadPolicy,
  percentDecode,
  RequestError,
  splitTarget,
} from '../../src/front/environ.ts';

const POLICY: HeadPolicy = {
  secureSchemeHeaders: { 'X-FORWARDED-PROTOCOL': 'ssl', 'X-FORWARDED-PROTO': 'https', 'X-FORWARDED-SSL': 'on' },
  forwarderHeaders: ['SCRIPT_NAME', 'PATH_INFO'],
  headerMap: 'drop',
  anyVersion: false,
  scriptName: '',
};
const TCP = 'SERVER_NAME\x00127.0.0.1\0SERVER_PORT\x008000\0REMOTE_ADDR\x0010.0.0.7\0REMOTE_PORT\x0040000';
const STRANGER: ConnectionFacts = { block: TCP, unixPath: null, trusted: false, scheme: 'http' };
const PROXY: ConnectionFacts = { block: TCP, unixPath: null, trusted: true, scheme: 'http' };
const UNIX: ConnectionFacts = { block: 'REMOTE_ADDR\0', unixPath: '/run/app.sock', trusted: true, scheme: 'http' };
const HOST = ['Host', 'example.org'] as const;

interface Asked {
  readonly method?: string;
  readonly target?: string;
  readonly minor?: number;
  /** Without Host, which is added unless `host` is false. */
  readonly headers?: readonly string[];
  readonly host?: boolean;
  readonly facts?: ConnectionFacts;
  readonly scriptName?: string;
  readonly policy?: Partial<HeadPolicy>;
  readonly major?: number;
  readonly builder?: EnvironBuilder;
}

const LIMITS = { line: 4094, fields: 100, fieldSize: 8190 };

function build(asked: Asked) {
  const builder =
    asked.builder ?? new EnvironBuilder({ ...POLICY, scriptName: asked.scriptName ?? '', ...asked.policy }, LIMITS);
  const headers = [...(asked.host === false ? [] : HOST), ...(asked.headers ?? [])];
  const { method = 'GET', target = '/', major = 1, minor = 1, facts = STRANGER } = asked;
  return builder.build(method, target, major, minor, headers, facts);
}

/** The environ of a block. A key that is there twice is a mistake. */
function read(block: string): Record<string, string> {
  const parts = block.split('\0');
  assert.equal(parts.length % 2, 0, `a name without a value: ${JSON.stringify(block)}`);
  const environ: Record<string, string> = {};
  for (let at = 0; at < parts.length; at += 2) {
    const [name = '', value = ''] = parts.slice(at, at + 2);
    assert.ok(!(name in environ), `${name} twice`);
    environ[name] = value;
  }
  return environ;
}

const environ = (asked: Asked): Record<string, string> => read(build(asked).block);

function refused(asked: Asked, status: number, message?: RegExp): void {
  assert.throws(
    () => build(asked),
    (error: unknown) =>
      error instanceof RequestError && error.status === status && (message?.test(error.message) ?? true),
  );
}

test('a whole environ', () => {
  assert.deepEqual(
    environ({
      method: 'POST',
      target: '/a%20b?q=%201',
      headers: ['Content-Type', 'text/plain', 'Content-Length', '3'],
    }),
    {
      REQUEST_METHOD: 'POST',
      RAW_URI: '/a%20b?q=%201',
      PATH_INFO: '/a b',
      QUERY_STRING: 'q=%201',
      SERVER_PROTOCOL: 'HTTP/1.1',
      HTTP_HOST: 'example.org',
      CONTENT_TYPE: 'text/plain',
      CONTENT_LENGTH: '3',
      SERVER_NAME: '127.0.0.1',
      SERVER_PORT: '8000',
      REMOTE_ADDR: '10.0.0.7',
      REMOTE_PORT: '40000',
      'wsgi.url_scheme': 'http',
    },
  );
});

test('HTTP/1.0', () => {
  assert.equal(environ({ minor: 0 }).SERVER_PROTOCOL, 'HTTP/1.0');
});

// ---- headers

const HEADERS: readonly (readonly [
  name: string,
  headers: readonly string[],
  expected: Readonly<Record<string, string>>,
])[] = [
  ['the first and the last may be empty', ['X-A', '', 'X-B', ''], { HTTP_X_A: '', HTTP_X_B: '' }],
  ['latin-1 stays', ['X-Lat', 'caf\xe9 \xff'], { HTTP_X_LAT: 'caf\xe9 \xff' }],
  ['any case of a name', ['x-mIxEd', '1'], { HTTP_X_MIXED: '1' }],
  ['two are joined with a comma', ['X-Foo', '1', 'X-Foo', '2'], { HTTP_X_FOO: '1,2' }],
  ['three, in different cases', ['X-Foo', '1', 'x-foo', '2', 'X-FOO', '3'], { HTTP_X_FOO: '1,2,3' }],
  [
    'others between',
    ['X-A', '1', 'X-B', '2', 'X-A', '3', 'X-C', '4', 'X-B', '5'],
    { HTTP_X_A: '1,3', HTTP_X_B: '2,5', HTTP_X_C: '4' },
  ],
  ['empty ones are joined too', ['X-A', '', 'X-A', '', 'X-B', 'b'], { HTTP_X_A: ',', HTTP_X_B: 'b' }],
  [
    'cookies are joined with a semicolon',
    ['Cookie', 'a=1', 'X-A', '1', 'cookie', 'b=2; c=3'],
    { HTTP_COOKIE: 'a=1; b=2; c=3', HTTP_X_A: '1' },
  ],
  [
    'a name that is the end of another',
    ['X-A-B', '1', 'A-B', '2', 'X-A-B', '3', 'A-B', '4'],
    { HTTP_X_A_B: '1,3', HTTP_A_B: '2,4' },
  ],
  [
    'a value that is the name of a header',
    ['X-A', 'HTTP_X_B', 'X-B', '1', 'X-B', '2'],
    { HTTP_X_A: 'HTTP_X_B', HTTP_X_B: '1,2' },
  ],
  ['a value that is the name of the header itself', ['X-A', 'HTTP_X_A', 'X-A', '2'], { HTTP_X_A: 'HTTP_X_A,2' }],
  [
    'underscores are dropped',
    ['X_Under', '1', 'X-Fine', '2', 'X_Under', '3', 'Content_Length', '4', '_', '5'],
    { HTTP_X_FINE: '2' },
  ],
  [
    'an underscore forges nothing',
    ['X_Forwarded-For', '6.6.6.6', 'X-Forwarded-For', '10.0.0.1'],
    { HTTP_X_FORWARDED_FOR: '10.0.0.1' },
  ],
  [
    'names of environ keys',
    ['Request-Method', 'EVIL', 'Path-Info', '/evil'],
    { HTTP_REQUEST_METHOD: 'EVIL', HTTP_PATH_INFO: '/evil' },
  ],
  [
    'names of JavaScript',
    ['__proto__', '1', 'constructor', '2', 'toString', '3'],
    { HTTP_CONSTRUCTOR: '2', HTTP_TOSTRING: '3' },
  ],
  ['Proxy is passed on as any', ['Proxy', 'evil'], { HTTP_PROXY: 'evil' }],
  ['chunked stays to be seen', ['Transfer-Encoding', 'chunked'], { HTTP_TRANSFER_ENCODING: 'chunked' }],
  ['Expect stays to be seen', ['Expect', '100-continue'], { HTTP_EXPECT: '100-continue' }],
];
for (const [name, headers, expected] of HEADERS) {
  test(`headers: ${name}`, () => {
    for (const facts of [STRANGER, PROXY]) {
      const all = Object.entries(environ({ headers, facts }));
      const got = Object.fromEntries(all.filter(([key]) => /^(HTTP_|CONTENT_)/.test(key) && key !== 'HTTP_HOST'));
      assert.deepEqual(got, expected);
    }
  });
}

test('a builder keeps nothing of the request before', () => {
  const builder = new EnvironBuilder(POLICY, LIMITS);
  for (let round = 0; round < 3; round++) {
    const got = environ({ builder, headers: ['X-A', '1', 'Cookie', 'a'] });
    assert.deepEqual([got.HTTP_X_A, got.HTTP_COOKIE], ['1', 'a']);
  }
  assert.equal(environ({ builder }).HTTP_X_A, undefined);
});

test('a refused request leaves nothing behind', () => {
  const builder = new EnvironBuilder(POLICY, LIMITS);
  refused({ builder, headers: ['X-A', '1', 'Host', 'two'] }, 400);
  assert.equal(environ({ builder, headers: ['X-A', '2'] }).HTTP_X_A, '2');
});

test('any headers give what joining them by hand gives', () => {
  const name = fc.constantFrom('X-A', 'x-a', 'X-B', 'Cookie', 'COOKIE', 'A', 'HTTP-X-A', 'X_A', 'Accept');
  const value = fc.constantFrom('', '1', 'HTTP_X_A', 'HTTP_COOKIE', 'HTTP_A', 'a, b', '\xe9', 'HTTP_HOST');
  fc.assert(
    fc.property(fc.array(fc.tuple(name, value), { maxLength: 12 }), fc.nat(12), (headers, hostAt) => {
      const raw: string[] = headers.flat();
      raw.splice(Math.min(raw.length, hostAt - (hostAt % 2)), 0, ...HOST);
      const expected = new Map<string, string>();
      for (let at = 0; at < raw.length; at += 2) {
        const key = `HTTP_${raw[at]?.toUpperCase().replaceAll('-', '_')}`;
        if (raw[at]?.includes('_')) continue;
        const before = expected.get(key);
        const joint = key === 'HTTP_COOKIE' ? '; ' : ',';
        expected.set(key, before === undefined ? `${raw[at + 1]}` : before + joint + raw[at + 1]);
      }
      const got = Object.entries(environ({ host: false, headers: raw })).filter(([key]) => key.startsWith('HTTP_'));
      assert.deepEqual(Object.fromEntries(got), Object.fromEntries(expected));
    }),
    { numRuns: 1000 },
  );
});

test('many different names neither fill the memory nor hide a duplicate', () => {
  const builder = new EnvironBuilder(POLICY, LIMITS);
  for (let round = 0; round < 100; round++) {
    const fresh = Array.from({ length: 97 }, (_, at) => [`X-${round}-${at}`, `${at}`]);
    const middle = [...fresh.slice(0, 50), ['X-Twice', '1'], ...fresh.slice(50), ['X-Twice', '2']].flat();
    const got = environ({ builder, headers: middle });
    assert.equal(got.HTTP_X_TWICE, '1,2');
    assert.equal(got[`HTTP_X_${round}_96`], '96');
    refused({ builder, headers: [...fresh.flat().map((text) => text.replace('X-', 'Y-')), 'Host', 'second'] }, 400);
  }
  const size = (Reflect.get(builder, 'known') as Map<string, unknown>).size;
  assert.ok(size < 3000, `${size} names are kept`);
});

test('long names do not fill the memory either', () => {
  const builder = new EnvironBuilder(POLICY, LIMITS);
  for (let round = 0; round < 500; round++) {
    const name = `X-${round}-${'a'.repeat(8000)}`;
    const got = environ({ builder, headers: [name, '1', 'X-Other', '2', name.toLowerCase(), '3'] });
    assert.equal(got[`HTTP_${name.toUpperCase().replaceAll('-', '_')}`], '1,3');
  }
  const names = [...(Reflect.get(builder, 'known') as Map<string, unknown>).keys()];
  const characters = names.join('').length;
  assert.ok(characters < 1_000_000, `${characters} characters of names are kept`);
});

// ---- what is refused

test('two Host or two Content-Type headers, in any case and from anybody, are refused', () => {
  for (const facts of [STRANGER, PROXY, UNIX]) {
    for (const minor of [0, 1]) {
      refused({ facts, minor, headers: ['host', 'example.org'] }, 400, /two headers 'host'/);
      refused({ facts, minor, headers: ['Content-Type', 'a', 'X-A', '1', 'content-type', 'a'] }, 400, /two headers/);
    }
  }
});

test('HTTP/1.1 without Host is refused, HTTP/1.0 is served', () => {
  refused({ host: false }, 400, /'HOST' is missing/);
  const got = environ({ host: false, minor: 0 });
  assert.deepEqual([got.SERVER_NAME, got.SERVER_PORT, got.HTTP_HOST], ['127.0.0.1', '8000', undefined]);
});

test('an empty Host is one', () => {
  assert.equal(environ({ host: false, headers: ['Host', ''] }).HTTP_HOST, '');
});

const CODINGS: readonly (readonly [value: string, status: number])[] = [
  ['chunked', 0],
  ['Chunked', 0],
  ['identity', 501],
  ['gzip', 501],
  ['gzip, chunked', 501],
  ['chunked, chunked', 501],
  ['chunked, gzip', 501],
  ['xchunked', 501],
  ['', 501],
];
for (const [value, status] of CODINGS) {
  test(`Transfer-Encoding '${value}' is ${status === 0 ? 'served' : `answered ${status}`}`, () => {
    const asked = { method: 'POST', headers: ['Transfer-Encoding', value] };
    if (status === 0) assert.deepEqual([build(asked).hasBody, build(asked).contentLength], [true, -1]);
    else refused(asked, status);
  });
}

test('HTTP/1.0 has no Transfer-Encoding', () => {
  refused({ minor: 0, headers: ['Transfer-Encoding', 'chunked'] }, 400);
});

test('whether there is a body', () => {
  assert.deepEqual([build({}).hasBody, build({}).contentLength], [false, -1]);
  const none = build({ headers: ['Content-Length', '0'] });
  assert.deepEqual([none.hasBody, none.contentLength], [false, 0]);
  const some = build({ headers: ['content-length', '17'] });
  assert.deepEqual([some.hasBody, some.contentLength], [true, 17]);
});

// ---- schemes

const SAID: readonly (readonly [headers: readonly string[], scheme: string])[] = [
  [[], 'http'],
  [['X-Forwarded-Proto', 'https'], 'https'],
  [['x-forwarded-proto', 'https'], 'https'],
  [['X-Forwarded-Proto', 'http'], 'http'],
  [['X-Forwarded-Proto', 'HTTPS'], 'http'],
  [['X-Forwarded-Proto', 'on'], 'http'],
  [['X-Forwarded-Ssl', 'on'], 'https'],
  [['X-Forwarded-Protocol', 'ssl'], 'https'],
  [['X-Forwarded-Proto', 'https', 'X-Forwarded-Ssl', 'on'], 'https'],
  [['X-Forwarded-Proto', 'https', 'X-Forwarded-Proto', 'https'], 'https'],
];
for (const [headers, scheme] of SAID) {
  test(`scheme of '${headers.join(' ')}' from a trusted peer: ${scheme}`, () => {
    assert.equal(environ({ headers, facts: PROXY })['wsgi.url_scheme'], scheme);
    assert.equal(environ({ headers, facts: UNIX })['wsgi.url_scheme'], scheme);
    const stranger = environ({ headers, facts: STRANGER });
    assert.equal(stranger['wsgi.url_scheme'], 'http');
    assert.equal(
      Object.keys(stranger).filter((key) => key.startsWith('HTTP_X_FORWARDED')).length > 0,
      headers.length > 0,
    );
  });
}

test('schemes that contradict each other are refused from a trusted peer only', () => {
  for (const headers of [
    ['X-Forwarded-Proto', 'https', 'X-Forwarded-Ssl', 'off'],
    ['X-Forwarded-Proto', 'http', 'X-Forwarded-Ssl', 'on'],
    ['X-Forwarded-Proto', 'https', 'X-Forwarded-Proto', 'http'],
  ]) {
    refused({ headers, facts: PROXY }, 400, /Contradictory/);
    assert.equal(environ({ headers })['wsgi.url_scheme'], 'http');
  }
});

// ---- SCRIPT_NAME

test('SCRIPT_NAME from a trusted peer is taken off the path', () => {
  for (const [target, path] of [
    ['/mnt/env?q', '/env'],
    ['/mnt', ''],
    ['/mnt/', '/'],
    ['/mnt%20x', ' x'],
  ] as const) {
    const got = environ({ target, headers: ['SCRIPT_NAME', '/mnt'], facts: PROXY });
    assert.deepEqual([got.SCRIPT_NAME, got.PATH_INFO, got.RAW_URI], ['/mnt', path, target]);
  }
});

test('a path outside SCRIPT_NAME is an error of the configuration', () => {
  refused({ target: '/other', headers: ['SCRIPT_NAME', '/mnt'], facts: PROXY }, 500, /does not start with SCRIPT_NAME/);
});

test('SCRIPT_NAME is compared with the path as it was sent', () => {
  const headers = ['SCRIPT_NAME', '/a%20b'];
  const got = environ({ target: '/a%20b/%41', headers, facts: PROXY });
  assert.deepEqual([got.SCRIPT_NAME, got.PATH_INFO], ['/a%20b', '/A']);
  refused({ target: '/a%20b', headers: ['SCRIPT_NAME', '/a b'], facts: PROXY }, 500);
});

test('SCRIPT_NAME from a stranger is dropped, once and twice', () => {
  for (const headers of [
    ['SCRIPT_NAME', '/mnt'],
    ['SCRIPT_NAME', '/a', 'script_name', '/b'],
  ]) {
    for (const others of [[], ['X-Forwarded-For', '10.0.0.1']]) {
      const got = environ({ target: '/env', headers: [...others, ...headers] });
      assert.deepEqual(got, environ({ target: '/env', headers: others }));
      const short = environ({ target: '/env', minor: 0, host: false, headers });
      assert.deepEqual(short, environ({ target: '/env', minor: 0, host: false }));
    }
  }
});

test("the last of a trusted peer's SCRIPT_NAMEs counts", () => {
  const got = environ({ target: '/b/x', headers: ['SCRIPT_NAME', '/a', 'SCRIPT_NAME', '/b'], facts: PROXY });
  assert.deepEqual([got.SCRIPT_NAME, got.PATH_INFO], ['/b', '/x']);
});

test('SCRIPT_NAME from the environment', () => {
  const scriptName = '/mnt';
  const got = environ({ target: '/mnt/x', scriptName });
  assert.deepEqual([got.SCRIPT_NAME, got.PATH_INFO], ['/mnt', '/x']);
  refused({ target: '/x', scriptName }, 500);
  const proxied = environ({ target: '/other/x', scriptName, headers: ['SCRIPT_NAME', '/other'], facts: PROXY });
  assert.deepEqual([proxied.SCRIPT_NAME, proxied.PATH_INFO], ['/other', '/x']);
  assert.equal(environ({ target: '/x', scriptName, headers: ['SCRIPT_NAME', ''], facts: PROXY }).PATH_INFO, '/x');
});

// ---- names with underscores

test('forwarder_headers are taken from a trusted peer, joined with their hyphened twins', () => {
  const policy = { forwarderHeaders: ['REMOTE_USER'] };
  const headers = ['Remote_User', 'ann', 'Remote-User', 'bob', 'X_Other', '1', 'SCRIPT_NAME', '/mnt'];
  for (const facts of [PROXY, UNIX]) {
    const got = environ({ headers, facts, policy });
    assert.deepEqual(
      [got.HTTP_REMOTE_USER, got.HTTP_X_OTHER, got.HTTP_SCRIPT_NAME, got.SCRIPT_NAME],
      ['ann,bob', undefined, undefined, undefined],
    );
  }
  const stranger = environ({ headers, policy });
  assert.equal(stranger.HTTP_REMOTE_USER, 'bob');
});

test('forwarder_headers * takes all from a trusted peer', () => {
  const policy = { forwarderHeaders: ['*'] };
  const got = environ({ headers: ['X_A', '1', 'x-a', '2', '_', '3'], facts: PROXY, policy });
  assert.deepEqual([got.HTTP_X_A, got.HTTP__], ['1,2', '3']);
  assert.equal(environ({ headers: ['X_A', '1'], policy }).HTTP_X_A, undefined);
});

test('header_map refuse: a name with an underscore is an error, but those of a forwarder', () => {
  const policy = { headerMap: 'refuse' } as const;
  refused({ headers: ['X_A', '1'], policy }, 400, /'X_A'/);
  refused({ headers: ['X_A', '1'], facts: PROXY, policy }, 400);
  refused({ headers: ['SCRIPT_NAME', '/mnt'], target: '/mnt', policy }, 400);
  assert.equal(environ({ headers: ['SCRIPT_NAME', '/mnt'], target: '/mnt', facts: PROXY, policy }).SCRIPT_NAME, '/mnt');
  assert.equal(environ({ headers: ['X-A', '1'], policy }).HTTP_X_A, '1');
});

test('header_map dangerous: names with an underscore are as those with a hyphen, also SCRIPT_NAME', () => {
  const policy = { headerMap: 'dangerous' } as const;
  const got = environ({ headers: ['X-A', '1', 'X_A', '2', 'Content_Length', '7', 'Content_Type', 'x'], policy });
  assert.deepEqual(
    [got.HTTP_X_A, got.HTTP_CONTENT_LENGTH, got.CONTENT_LENGTH, got.HTTP_CONTENT_TYPE, got.CONTENT_TYPE],
    ['1,2', '7', undefined, 'x', undefined],
  );
  assert.equal(environ({ headers: ['SCRIPT_NAME', '/mnt'], target: '/mnt/x', policy }).PATH_INFO, '/x');
  assert.equal(build({ headers: ['Transfer_Encoding', 'chunked'], policy }).hasBody, false);
});

// ---- versions

test('a version that is not HTTP/1 is refused, unless any is permitted', () => {
  refused({ major: 2, minor: 0 }, 505);
  refused({ major: 0, minor: 9 }, 400);
  const policy = { anyVersion: true };
  assert.equal(environ({ major: 2, minor: 0, policy, host: false }).SERVER_PROTOCOL, 'HTTP/2.0');
  assert.equal(environ({ major: 0, minor: 9, policy, host: false }).SERVER_PROTOCOL, 'HTTP/0.9');
});

test('the scheme of the connection holds, unless a trusted peer says otherwise', () => {
  const facts = { ...STRANGER, scheme: 'https' } as const;
  assert.equal(environ({ facts })['wsgi.url_scheme'], 'https');
  const headers = ['X-Forwarded-Proto', 'http'];
  assert.equal(environ({ facts, headers })['wsgi.url_scheme'], 'https');
  assert.equal(environ({ facts: { ...facts, trusted: true }, headers })['wsgi.url_scheme'], 'http');
});

// ---- targets

const TARGETS: readonly (readonly [target: string, path: string, query: string])[] = [
  ['/', '/', ''],
  ['/%C3%A9', '/\xc3\xa9', ''],
  ['/%E9', '/\xe9', ''],
  ['/%e9%2f%2F', '/\xe9//', ''],
  ['/%zz%4', '/%zz%4', ''],
  ['/%', '/%', ''],
  ['/%%41', '/%A', ''],
  ['/%25zz', '/%zz', ''],
  ['/%2541', '/%41', ''],
  ['/a+b', '/a+b', ''],
  ['/a;p=1', '/a;p=1', ''],
  ['//double//slash', '//double//slash', ''],
  ['/a/../b/./', '/a/../b/./', ''],
  ['/a?', '/a', ''],
  ['/a?b=%41?c', '/a', 'b=%41?c'],
  ['/a%3Fb?c', '/a?b', 'c'],
  ['/a%23b', '/a#b', ''],
  ['/x#frag?q=1', '/x', ''],
  ['/x?q=1#frag', '/x', 'q=1'],
  ['*', '*', ''],
  ['?q=only', '', 'q=only'],
  ['http://other', '', ''],
  ['http://other/', '/', ''],
  ['http://other:80/a%20b?q#f', '/a b', 'q'],
  ['http://other?q', '', 'q'],
  ['http://other#f', '', ''],
  ['/http://other/a', '/http://other/a', ''],
  ['/a?u=http://other/b', '/a', 'u=http://other/b'],
];
for (const [target, path, query] of TARGETS) {
  test(`target ${target}`, () => {
    const got = environ({ method: 'OPTIONS', target });
    assert.deepEqual([got.PATH_INFO, got.QUERY_STRING, got.RAW_URI], [path, query, target]);
    assert.equal(build({ method: 'OPTIONS', target }).pathEncoded, false);
    assert.equal(percentDecode(splitTarget(target).path), path);
  });
}

test('* is the target of OPTIONS only', () => {
  refused({ target: '*' }, 400);
  refused({ method: 'OPTIONS', target: '*a' }, 400);
});

test('a path with %00 stays encoded for the worker to decode, less SCRIPT_NAME', () => {
  const head = build({ target: '/a%00b%C3?q=%00', scriptName: '/a' });
  assert.equal(head.pathEncoded, true);
  const { PATH_INFO, QUERY_STRING, SCRIPT_NAME } = read(head.block);
  assert.deepEqual([PATH_INFO, QUERY_STRING, SCRIPT_NAME], ['%00b%C3', 'q=%00', '/a']);
});

test("a path is decoded as Python's unquote_to_bytes decodes it", () => {
  const piece = fc.oneof(
    fc.constantFrom(
      '%',
      '%%',
      '%4',
      '%zz',
      '%0',
      '%2f',
      '%2F',
      '%C3%A9',
      '%e9',
      '%00',
      '%g1',
      '%1g',
      '%-1',
      '% 1',
      '%+1',
    ),
    fc.string({ unit: fc.integer({ min: 0x21, max: 0xff }).map((code) => String.fromCharCode(code)), maxLength: 3 }),
    fc.integer({ min: 0, max: 255 }).map((code) => `%${code.toString(16).padStart(2, '0')}`),
  );
  const paths = fc.sample(
    fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join('')),
    { numRuns: 3000 },
  );
  const program = [
    'import json, sys',
    'from urllib.parse import unquote_to_bytes',
    'print(json.dumps([unquote_to_bytes(p.encode("latin-1")).decode("latin-1") for p in json.load(sys.stdin)]))',
  ].join('\n');
  const python = spawnSync(process.env.PYTHON ?? 'python3', ['-c', program], {
    input: JSON.stringify(paths),
    encoding: 'utf8',
  });
  assert.equal(python.status, 0, python.stderr);
  const expected = JSON.parse(python.stdout) as string[];
  assert.deepEqual(paths.map(percentDecode), expected);
});

// ---- Unix sockets

const HOSTS: readonly (readonly [host: string | null, scheme: string, name: string, port: string])[] = [
  ['example.org', 'http', 'example.org', '80'],
  ['example.org', 'https', 'example.org', '443'],
  ['example.org:8443', 'https', 'example.org', '8443'],
  ['example.org:8443', 'http', 'example.org', '8443'],
  ['[::1]:8001', 'http', '[::1]', '8001'],
  ['[::1]', 'http', '[::1]', '80'],
  [null, 'http', '/run/app.sock', ''],
];
for (const [host, scheme, name, port] of HOSTS) {
  test(`on a Unix socket, Host ${host} by ${scheme} is SERVER_NAME ${name}, SERVER_PORT '${port}'`, () => {
    const headers = [...(host === null ? [] : ['Host', host]), 'X-Forwarded-Proto', scheme];
    const got = environ({ host: false, minor: 0, headers, facts: UNIX });
    assert.deepEqual([got.SERVER_NAME, got.SERVER_PORT, got.REMOTE_ADDR, got.REMOTE_PORT], [name, port, '', undefined]);
  });
}

test('on a Unix socket, whatever Host says gives a whole environ', () => {
  for (const host of ['', ':', 'a:b:c', 'a:', ':80', '[', '[::1', 'a b', '\xe9']) {
    const got = environ({ host: false, headers: ['Host', host], facts: UNIX });
    assert.equal(got.HTTP_HOST, host);
    assert.equal(typeof got.SERVER_NAME, 'string');
    assert.match(got.SERVER_PORT ?? '', /^\d+$/);
  }
});

test('a request line, a header or a number of headers beyond the limits is refused', () => {
  const line = (bytes: number) => ({ target: `/${'q'.repeat(bytes - 'GET / HTTP/1.1'.length)}` });
  assert.equal(environ(line(4094)).REQUEST_METHOD, 'GET');
  refused(line(4095), 414);
  const field = (bytes: number) => ({ headers: ['X-Long', 'h'.repeat(bytes - 'X-Long: \r\n'.length)] });
  assert.equal(environ(field(8190)).REQUEST_METHOD, 'GET');
  refused(field(8191), 431);
  const fields = (count: number) => ({
    headers: Array.from({ length: count - 1 }, (_, at) => [`X-${at}`, '1']).flat(),
  });
  assert.equal(environ(fields(100)).REQUEST_METHOD, 'GET');
  refused(fields(101), 431);
});

test('a target in absolute form names the host, whatever Host says', () => {
  const hostOf = (target: string, headers: readonly string[] = []): string | undefined =>
    read(build({ target, headers }).block).HTTP_HOST;
  assert.equal(hostOf('http://other.example:82/x', ['X-A', 'HTTP_HOST', 'X-B', 'example.org']), 'other.example:82');
  assert.equal(hostOf('http://user@other.example?q'), 'other.example');
  for (const target of ['/', '/http://other/', 'http:///x', '//other/x']) assert.equal(hostOf(target), 'example.org');
});
