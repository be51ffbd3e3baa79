// Requests that no server may take: refused with an error page, the connection ended, the application never called.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { count } from '../helpers/count.ts';
import { exchange } from '../helpers/http.ts';
import { matrix, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { type Server, withServer } from '../helpers/server.ts';

/** Sends the bytes and whatever else follows; the answer has to be one of `statuses` and the last one. */
async function assertRefused(server: Server, bytes: string, statuses: readonly number[]): Promise<void> {
  const before = await count(server, 'unread');
  const connection = await server.connect();
  try {
    await connection.send(bytes);
    const response = await connection.response();
    assert.ok(statuses.includes(response.status), `${response.status} ${response.reason}: ${response.text()}`);
    assert.equal(response.header('connection')?.toLowerCase(), 'close');
    assert.match(response.header('content-type') ?? '', /^text\/html/);
    assert.match(response.text(), /<html>/i);
    await connection.end();
    assert.equal(connection.pending, '', 'a second response');
  } finally {
    connection.close();
  }
  assert.equal(await count(server, 'unread'), before, 'the application was called');
}

const HOST = 'Host: test\r\n';
const BODY = 'Content-Length: 5\r\n';
/** What must not be taken for a request of its own, wherever the one before is thought to end. */
const SMUGGLED = 'GET /unread HTTP/1.1\r\nHost: test\r\n\r\n';

/** Refused by both. */
const REFUSED: readonly (readonly [name: string, bytes: string, ...statuses: number[]])[] = [
  ['a request line of two parts', `GET /unread\r\n${HOST}\r\n`, 400],
  ['a request line of four parts', `GET /unread x HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['no target', `GET  HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['garbage', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', 400],
  ['HTTP/2.0', `GET /unread HTTP/2.0\r\n${HOST}\r\n`, 400, 505],
  ['HTTP/0.9', `GET /unread HTTP/0.9\r\n${HOST}\r\n`, 400, 505],
  ['HTTP/1.10', `GET /unread HTTP/1.10\r\n${HOST}\r\n`, 400, 505],
  ['a protocol that is not HTTP', `GET /unread ICE/1.0\r\n${HOST}\r\n`, 400],
  ['a target without a slash', `GET unread HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['GET *', `GET * HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['a target that begins with *', `OPTIONS *unread HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['a method in lower case', `get /unread HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['two Host lines', `GET /unread HTTP/1.1\r\n${HOST}Host: other\r\n\r\n`, 400],
  ['two equal Host lines', `GET /unread HTTP/1.1\r\n${HOST}${HOST}\r\n`, 400],
  ['two Content-Type lines', `POST /unread HTTP/1.1\r\n${HOST}Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n`, 400],
  ['a folded header', `GET /unread HTTP/1.1\r\n${HOST}X-Folded: a\r\n b\r\n\r\n`, 400],
  ['a folded first header', `GET /unread HTTP/1.1\r\n X-Folded: a\r\n${HOST}\r\n`, 400],
  ['a space before the colon', `GET /unread HTTP/1.1\r\n${HOST}X-Space : a\r\n\r\n`, 400],
  ['a header without colon', `GET /unread HTTP/1.1\r\n${HOST}X-None\r\n\r\n`, 400],
  ['a header without name', `GET /unread HTTP/1.1\r\n${HOST}: a\r\n\r\n`, 400],
  ['a header name that is no token', `GET /unread HTTP/1.1\r\n${HOST}X(Y): a\r\n\r\n`, 400],
  ['a header name beyond ASCII', `GET /unread HTTP/1.1\r\n${HOST}X-\xe4: a\r\n\r\n`, 400],
  ['NUL in a header', `GET /unread HTTP/1.1\r\n${HOST}X-Nul: a\0b\r\n\r\n`, 400],
  ['a bare CR in a header', `GET /unread HTTP/1.1\r\n${HOST}X-Cr: a\rb\r\n\r\n`, 400],
  ['a control character in a header', `GET /unread HTTP/1.1\r\n${HOST}X-Bell: a\x07b\r\n\r\n`, 400],
  ['two Content-Length', `POST /unread HTTP/1.1\r\n${HOST}${BODY}Content-Length: 6\r\n\r\nhello`, 400],
  ['two equal Content-Length', `POST /unread HTTP/1.1\r\n${HOST}${BODY}${BODY}\r\nhello`, 400],
  ...['+5', '-1', 'abc', '5,5', '5 5', '0x5', '1_0', '5.0', ''].map(
    (length) =>
      [
        `Content-Length ${JSON.stringify(length)}`,
        `POST /unread HTTP/1.1\r\n${HOST}Content-Length: ${length}\r\n\r\nhello`,
        400,
      ] as const,
  ),
  [
    'chunked and Content-Length',
    `POST /unread HTTP/1.1\r\n${HOST}${BODY}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nhello`,
    400,
  ],
  [
    'Content-Length and chunked, the other way round',
    `POST /unread HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n${BODY}\r\n0\r\n\r\n`,
    400,
  ],
  ...['chunked, chunked', 'chunked, gzip', 'xchunked', 'nonsense', 'chunked;q=1', '"chunked"'].map(
    (coding) =>
      [
        `Transfer-Encoding: ${coding}`,
        `POST /unread HTTP/1.1\r\n${HOST}Transfer-Encoding: ${coding}\r\n\r\n0\r\n\r\n`,
        400,
        501,
      ] as const,
  ),
  [
    'two Transfer-Encoding lines that both say chunked',
    `POST /unread HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    400,
    501,
  ],
  [
    'two Transfer-Encoding lines that both say chunked, the first with a tab at its end',
    `POST /unread HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    400,
    501,
  ],
  ...['\x0bchunked', ',chunked', 'chunked, identity', 'chunked\0', ''].map(
    (coding) =>
      [
        `${JSON.stringify(`Transfer-Encoding: ${coding}`)} before another request`,
        `POST /unread HTTP/1.1\r\n${HOST}Transfer-Encoding: ${coding}\r\n\r\n0\r\n\r\n${SMUGGLED}`,
        400,
        501,
      ] as const,
  ),
  ...['Transfer-Encoding : chunked', 'Transfer-Encoding:\r\n chunked', 'Content-Length : 5', 'Host : other'].map(
    (line) =>
      [
        `${JSON.stringify(line)} before another request`,
        `POST /unread HTTP/1.1\r\n${HOST}${line}\r\n\r\n0\r\n\r\n${SMUGGLED}`,
        400,
      ] as const,
  ),
  ['a bare CR before a header', `POST /unread HTTP/1.1\r\n${HOST}X-A: b\rContent-Length: 5\r\n\r\nhello`, 400],
  ['a bare LF before a header', `POST /unread HTTP/1.1\r\n${HOST}X-A: b\nContent-Length: 5\r\n\r\nhello`, 400],
  ['a bare LF before another request', `GET /unread HTTP/1.1\r\n${HOST}\n${SMUGGLED}`, 400],
  ['CR CR LF after the request line', `GET /unread HTTP/1.1\r\r\n${HOST}\r\n`, 400],
  ['a space after the request line', `GET /unread HTTP/1.1 \r\n${HOST}\r\n`, 400],
  ['a space before the request line', ` GET /unread HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['a request line with tabs', `GET\t/unread\tHTTP/1.1\r\n${HOST}\r\n`, 400],
  ['chunked over HTTP/1.0', 'POST /unread HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 400],
  ['an unknown expectation', `GET /unread HTTP/1.1\r\n${HOST}Expect: the-unexpected\r\n\r\n`, 417],
  ['a request line of 20 KB', `GET /unread?${'q'.repeat(20_000)} HTTP/1.1\r\n${HOST}\r\n`, 400, 414, 431],
  ['a header of 20 KB', `GET /unread HTTP/1.1\r\n${HOST}X-Long: ${'h'.repeat(20_000)}\r\n\r\n`, 400, 431],
  [
    '101 headers',
    `GET /unread HTTP/1.1\r\n${HOST}${Array.from({ length: 101 }, (_, i) => `X-${i}: 1\r\n`).join('')}\r\n`,
    431,
  ],
];

const CHUNK_ERRORS: readonly (readonly [name: string, chunks: string])[] = [
  ['a size that is no number', 'xyz\r\nhello\r\n0\r\n\r\n'],
  ['a sign', '+5\r\nhello\r\n0\r\n\r\n'],
  ['0x', '0x5\r\nhello\r\n0\r\n\r\n'],
  ['a minus', '-5\r\nhello\r\n0\r\n\r\n'],
  ['an empty size', '\r\nhello\r\n0\r\n\r\n'],
  ['a chunk longer than it says', '3\r\nhello\r\n0\r\n\r\n'],
  ['no CRLF after a chunk', '5\r\nhelloxx0\r\n\r\n'],
  ['a size beyond all limits', 'fffffffffffffffff\r\nhello\r\n0\r\n\r\n'],
  ['a bare LF after the size', '5\nhello\r\n0\r\n\r\n'],
  ['a bare LF after a chunk', '5\r\nhello\n0\r\n\r\n'],
  ['a bare LF in an extension', `5;a\nb\r\nhello\r\n0\r\n\r\n${SMUGGLED}`],
  ['a bare CR in an extension', `5;a\rb\r\nhello\r\n0\r\n\r\n${SMUGGLED}`],
  ['a line break in a quoted extension', `5;a="\r\nhello\r\n0\r\n\r\n${SMUGGLED}`],
  ['a size that wraps around 64 bits', `10000000000000005\r\nhello\r\n0\r\n\r\n${SMUGGLED}`],
  ['a blank before the size', `  5\r\nhello\r\n0\r\n\r\n${SMUGGLED}`],
  ['Content-Length in a trailer', `0\r\nContent-Length: 5\r\n\r\n${SMUGGLED}`],
  ['Transfer-Encoding in a trailer', `0\r\nTransfer-Encoding: chunked\r\n\r\n${SMUGGLED}`],
  ['an underscore in the size', `0_5\r\nhello\r\n0\r\n\r\n${SMUGGLED}`],
];

matrix({ app: 'wsgi_matrix:application', workers: 1 }, (scenario) => {
  for (const [name, bytes, ...statuses] of REFUSED) {
    scenario(`refused: ${name}`, async (server) => assertRefused(server, bytes, statuses));
  }

  scenario('the limits of a head, to the byte', async (server) => {
    const line = (bytes: number): string =>
      `GET /?${'q'.repeat(bytes - 'GET /? HTTP/1.1'.length)} HTTP/1.1\r\n${HOST}\r\n`;
    const field = (bytes: number): string =>
      `GET / HTTP/1.1\r\n${HOST}X-Long: ${'h'.repeat(bytes - 'X-Long: \r\n'.length)}\r\n\r\n`;
    const fields = (count: number): string =>
      `GET / HTTP/1.1\r\n${HOST}${Array.from({ length: count - 1 }, (_, at) => `X-${at}: 1\r\n`).join('')}\r\n`;
    for (const bytes of [line(4094), field(8190), fields(100)]) {
      assert.equal((await exchange(server.address, bytes)).status, 200, bytes.slice(0, 40));
    }
    for (const [bytes, ...statuses] of [
      [line(4095), 400, 414],
      [field(8191), 431],
      [fields(101), 431],
    ] as const) {
      const { status } = await exchange(server.address, bytes);
      assert.ok(
        statuses.some((one) => one === status),
        `${status} for ${bytes.slice(0, 40)}`,
      );
    }
  });

  scenario.differs('refused: HTTP/1.1 without Host', 'serves it', async (server) => {
    await assertRefused(server, 'GET /unread HTTP/1.1\r\n\r\n', [400]);
  });

  scenario('refused: lines that end with a bare LF', async (server) => {
    await assertRefused(server, 'GET /unread HTTP/1.1\nHost: test\n\n', [400]);
  });

  for (const [name, chunks] of CHUNK_ERRORS) {
    scenario.differs(`refused: chunk error, ${name}`, 'serves it to an app that does not read it', async (server) => {
      const head = `POST /unread HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n`;
      await assertRefused(server, head + chunks, [400]);
    });
  }

  scenario('a request whose body has come is answered, whatever comes behind it in the same packet', async (server) => {
    const hello = `POST /echo HTTP/1.1\r\n${HOST}${BODY}`;
    for (const bytes of [
      `${hello}\r\nhello\0\r\n\r\n`,
      `${hello}Connection: close\r\n\r\nhello${SMUGGLED}`,
      `POST /echo HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\0\r\n\r\n`,
    ]) {
      const connection = await server.connect();
      await connection.send(bytes);
      const response = await connection.response();
      assert.equal(`${response.status} ${response.text()}`, '200 hello');
      await connection.end();
      assert.match(connection.pending, /^(HTTP\/1\.1 400 |$)/);
      connection.close();
    }
  });

  scenario.differs(
    'refused: a chunk error behind another request',
    'serves it to an app that does not read it',
    async (server) => {
      const before = await count(server, 'unread');
      const connection = await server.connect();
      const head = `POST /unread HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n`;
      await connection.send(`GET / HTTP/1.1\r\n${HOST}\r\n${head}xyz\r\nhello\r\n0\r\n\r\n${SMUGGLED}`);
      assert.equal((await connection.response()).text(), 'ok');
      assert.equal((await connection.response()).status, 400);
      await connection.end();
      connection.close();
      assert.equal(await count(server, 'unread'), before);
    },
  );

  scenario('served: HTTP/1.0 without Host', async (server) => {
    const response = await exchange(server.address, 'GET / HTTP/1.0\r\n\r\n');
    assert.equal(response.text(), 'ok');
  });

  scenario('served: a header of 8000 bytes and 90 headers', async (server) => {
    const many = Array.from({ length: 90 }, (_, i) => `X-${i}: 1\r\n`).join('');
    assert.equal((await server.get('/', many)).text(), 'ok');
    assert.equal((await server.get('/', `X-Long: ${'h'.repeat(8000)}\r\n`)).text(), 'ok');
  });

  scenario('served: methods that are not common', async (server) => {
    for (const method of ['PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'PURGE', 'TRACE']) {
      const response = await exchange(server.address, `${method} / HTTP/1.1\r\nHost: test\r\n\r\n`);
      assert.equal(response.text(), 'ok', method);
    }
  });

  scenario('served: chunk extensions and trailers, which the application does not see', async (server) => {
    const response = await exchange(
      server.address,
      `POST /echo HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n00\r\nX-Trailer: 1\r\n\r\n`,
    );
    assert.equal(response.text(), 'hello');
  });

  scenario.differs('refused: transfer coding identity', 'answers 400', async (server) => {
    const head = `POST /unread HTTP/1.1\r\n${HOST}Transfer-Encoding: identity\r\n`;
    await assertRefused(server, `${head}\r\n${SMUGGLED}`, [501]);
    await assertRefused(server, `${head}Content-Length: 5\r\n\r\nhello${SMUGGLED}`, [400]);
  });

  scenario.differs('refused: Content-Length beyond 64 bits', 'waits for it', async (server) => {
    const head = `POST /unread HTTP/1.1\r\n${HOST}Content-Length: 18446744073709551621\r\n\r\n`;
    await assertRefused(server, `${head}hello${SMUGGLED}`, [400]);
  });

  scenario('refused: a control character in the target', async (server) => {
    for (const target of ['/un\tread', '/unread\0', '/unread\x7f'])
      await assertRefused(server, `GET ${target} HTTP/1.1\r\n${HOST}\r\n`, [400]);
  });

  scenario.differs('refused: 20 KB of chunk extensions', 'answers 400', async (server) => {
    const head = `POST /unread HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n`;
    await assertRefused(server, `${head}5;${'e'.repeat(20_000)}\r\nhello\r\n0\r\n\r\n`, [413]);
  });

  scenario.differs('Connection is a list: close among others closes', 'looks for "close" alone', async (server) => {
    for (const lines of ['Connection: close, TE\r\n', 'Connection: keep-alive\r\nConnection: close\r\n']) {
      const connection = await server.connect();
      await connection.send(`GET / HTTP/1.1\r\n${HOST}${lines}\r\n`);
      assert.equal((await connection.response()).header('connection')?.toLowerCase(), 'close');
      await connection.end();
      connection.close();
    }
  });

  scenario('a HEAD that is refused is answered, whatever comes behind it in the same packet', async (server) => {
    const chunked = 'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n';
    for (const bytes of [`HEAD /unread HTTP/0.9\r\n${HOST}\r\n`, `HEAD /unread HTTP/1.0\r\n${HOST}${chunked}`]) {
      const connection = await server.connect();
      await connection.send(bytes + SMUGGLED);
      assert.equal((await connection.response('HEAD')).status, 400);
      connection.close();
    }
  });

  scenario.differs('a body that ends too early never reaches the application', 'hands it over', async (server) => {
    const before = await count(server, 'unread');
    for (const bytes of [
      `POST /unread HTTP/1.1\r\n${HOST}Content-Length: 100\r\n\r\nhello`,
      `POST /unread HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`,
      `POST /unread HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n`,
    ]) {
      const half = await server.connect();
      await half.send(bytes);
      half.halfClose();
      await half.end();
      assert.ok(half.pending === '' || half.pending.startsWith('HTTP/1.1 400 '), half.pending);
      half.close();
      const gone = await server.connect();
      await gone.send(bytes);
      gone.reset();
    }
    // Everything sent before has been dealt with when this one is answered.
    assert.equal((await server.get('/')).text(), 'ok');
    assert.equal(await count(server, 'unread'), before);
  });
});

const NOT_HTTP: readonly (readonly [what: string, bytes: string, said: RegExp])[] = [
  ['TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', /a TLS handshake, .* --certfile here\n/],
  ['the uwsgi protocol', '\0\x22\0\0\x0e\0REQUEST_METHOD\x03\0GET', /the uwsgi protocol, .* use proxy_pass/],
  ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', /HTTP\/2, but this address speaks HTTP\/1.1 only/],
  [
    'PROXY protocol v1',
    `PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n${SMUGGLED}`,
    /PROXY protocol: --proxy-protocol reads it\n/,
  ],
  ['PROXY protocol v2', `\r\n\r\n\0\r\nQUIT\n\x20\0\0\0${SMUGGLED}`, /PROXY protocol: --proxy-protocol reads it\n/],
];

for (const app of ['wsgi_matrix:application', './node/listener.cjs']) {
  it(`what is no HTTP, but known, is named in the log: ${app}`, { skip: !NUNICORN_RUNS }, async () => {
    await withServer({ app }, async (server) => {
      for (const [what, bytes, said] of NOT_HTTP) {
        const from = server.log.length;
        const connection = await server.connect();
        await connection.send(bytes);
        assert.equal((await connection.response()).status, 400, what);
        connection.close();
        await server.waitForLog(said, { from });
      }
    });
  });
}
