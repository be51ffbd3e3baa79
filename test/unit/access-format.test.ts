import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NunicornError } from '../../src/errors.ts';
import { type AccessRecord, ATOM_NAMES, compileAccessFormat } from '../../src/log/access-format.ts';
import { SETTINGS } from '../../src/settings/table.ts';

const RECORD: AccessRecord = {
  remoteAddress: '192.0.2.7',
  method: 'GET',
  rawUri: '/caf%C3%A9?q=1',
  path: '/café',
  query: 'q=1',
  protocol: 'HTTP/1.1',
  status: 200,
  reason: 'OK',
  bytesSent: 1234,
  durationUs: 3_045_678,
  requestHeaders: [
    'Host',
    'example.org',
    'User-Agent',
    'curl/8',
    'REFERER',
    'http://a/',
    'X-Twice',
    '1',
    'x-twice',
    '2',
  ],
  responseHeaders: ['Content-Type', 'text/plain', 'Set-Cookie', 'a=1'],
  environBlock: '',
  environ: new Map([
    ['SERVER_PORT', '8000'],
    ['wsgi.url_scheme', 'https'],
  ]),
  pid: 4711,
  worker: 1,
  thread: 2,
};

const line = (format: string, change: Partial<AccessRecord> = {}, now?: () => number): string =>
  compileAccessFormat(format, now)({ ...RECORD, ...change });

const ATOMS: readonly (readonly [string, string])[] = [
  ['%(h)s', '192.0.2.7'],
  ['%(l)s', '-'],
  ['%(u)s', '-'],
  ['%(r)s', 'GET /caf%C3%A9?q=1 HTTP/1.1'],
  ['%(m)s', 'GET'],
  ['%(U)s', '/café'],
  ['%(q)s', 'q=1'],
  ['%(H)s', 'HTTP/1.1'],
  ['%(s)s', '200'],
  ['%(b)s', '1234'],
  ['%(B)s', '1234'],
  ['%(f)s', 'http://a/'],
  ['%(a)s', 'curl/8'],
  ['%(T)s', '3'],
  ['%(M)s', '3045'],
  ['%(D)s', '3045678'],
  ['%(D)d', '3045678'],
  ['%(L)s', '3.045678'],
  ['%(p)s', '<4711>'],
  ['%({User-Agent}i)s', 'curl/8'],
  ['%({x-twice}i)s', '2'],
  ['%({X-None}i)s', '-'],
  ['%({content-type}o)s', 'text/plain'],
  ['%({X-None}o)s', '-'],
  ['%({SERVER_PORT}e)s', '8000'],
  ['%({server_port}e)s', '8000'],
  ['%({WSGI.URL_SCHEME}e)s', 'https'],
  ['%({NONE}e)s', '-'],
  ['%(z)s', '-'],
  ['100%% of %(m)s', '100% of GET'],
  ['%(m)6s|%(m)-6s|%(U).2s', '   GET|GET   |/c'],
  ['%(s)05d|%(B)+d|%(B)#x', '00200|+1234|0x4d2'],
  ['%(T)f|%(B)x|%(D).3e|%(M)g', '3.000000|4d2|3.046e+06|3045'],
  ['%(m)r|%({X-None}i)5s|%({X-None}i)r', "'GET'|    -|'-'"],
];

for (const [format, expected] of ATOMS) {
  test(`the access log shows ${format} as '${expected}'`, () => assert.equal(line(format), expected));
}

test('every atom has a row in the table of this test', () => {
  const tested = new Set(ATOMS.map(([format]) => /%\((\w)\)/.exec(format)?.[1]));
  assert.deepEqual(
    ATOM_NAMES.filter((name) => name !== 't' && !tested.has(name)),
    [],
  );
});

test('the default format gives a line as Gunicorn writes it', () => {
  const text = line(SETTINGS.access_log_format.default as string);
  assert.match(
    text,
    /^192\.0\.2\.7 - - \[\d\d\/[A-Z][a-z]{2}\/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET \/caf%C3%A9\?q=1 HTTP\/1\.1" 200 1234 "http:\/\/a\/" "curl\/8"$/,
  );
});

test('%(t)s is the moment of logging and changes with the second', () => {
  let now = Date.UTC(2026, 10, 20, 23, 16, 58, 999);
  const format = compileAccessFormat('%(t)s', () => now);
  const first = format(RECORD);
  assert.match(first, /:16:58 [+-]\d{4}\]$/);
  now += 1;
  assert.match(format(RECORD), /:16:59 [+-]\d{4}\]$/);
});

test('what is not known reads -', () => {
  const bare = { requestHeaders: [], responseHeaders: [], bytesSent: null };
  assert.equal(line('%(f)s %(a)s %(b)s %(B)s %(B)d', bare), '- - - - -');
  assert.equal(line('%(B)05d|%(B)-3x|', bare), '    -|-  |');
});

test('the user comes from HTTP Basic authentication, unless it is given', () => {
  const basic = (text: string): Partial<AccessRecord> => ({
    requestHeaders: ['Authorization', `Basic ${Buffer.from(text).toString('base64')}`],
  });
  assert.equal(line('%(u)s', basic('anna:secret')), 'anna');
  assert.equal(line('%(u)s', { ...basic('anna:secret'), user: 'bert' }), 'bert');
  assert.equal(line('%(u)s', basic('an"na\n:x')), 'an\\"na\\x0a');
  assert.equal(line('%(u)s', { requestHeaders: ['Authorization', 'Bearer abc'] }), '-');
});

test('quotes, backslashes and control characters are escaped', () => {
  const agent = 'a"b\\c\r\nd\t\u001b[31m\u007f\u0085é';
  assert.equal(
    line('"%(a)s"', { requestHeaders: ['User-Agent', agent] }),
    '"a\\"b\\\\c\\x0d\\x0ad\\x09\\x1b[31m\\x7f\\x85é"',
  );
  assert.equal(line('%(U)s', { path: '/\u2028' }), '/\\xe2\\x80\\xa8');
  assert.equal(line('%(B)c', { bytesSent: 10 }), '\\x0a');
});

test('no request can end a quoted part or a line', () => {
  const hostile = fc.string({ unit: 'binary' });
  fc.assert(
    fc.property(hostile, hostile, hostile, hostile, (a, b, c, d) => {
      const text = line('"%(h)s" "%(u)s" "%(r)s" "%(U)s" "%(q)s" "%(f)s" "%({x}i)s" "%({y}o)s" "%({z}e)s"', {
        remoteAddress: a,
        user: b,
        method: c,
        rawUri: d,
        path: a,
        query: b,
        protocol: c,
        requestHeaders: ['Referer', a, 'X', b],
        responseHeaders: ['Y', c],
        environ: new Map([['z', d]]),
      });
      // Exactly the nine quoted parts of the format, each of characters that are neither control characters nor bare quotes.
      assert.match(text, /^(?:"(?:[^"\\\p{Cc}\u2028\u2029]|\\["\\]|\\x[0-9a-f]{2})*"(?: |$)){9}$/u);
    }),
  );
});

test('a format that is none is refused with what would be right', () => {
  for (const format of ['%h', '100% of %(m)s', '%(m)d', '%(L)f', '%(h)x', '%(D)b', '%(m']) {
    assert.throws(
      () => compileAccessFormat(format),
      (error) => error instanceof NunicornError && error.exitCode === 1 && /; write %/.test(error.message),
      format,
    );
  }
});
