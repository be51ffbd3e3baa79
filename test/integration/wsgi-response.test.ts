// What reaches the client for everything that an application may do with start_response, write() and its iterable.
import { strict as assert } from 'node:assert';
import { fetchLarge } from '../helpers/client.ts';
import { until } from '../helpers/deadline.ts';
import { exchange, type Response } from '../helpers/http.ts';
import { matrix } from '../helpers/matrix.ts';
import type { Server } from '../helpers/server.ts';

const DATE = /^Date: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/i;

/** Over HTTP/1.1 on a connection that may be kept. */
function ask(server: Server, path: string, method = 'GET'): Promise<Response & { readonly keptOpen: boolean }> {
  return exchange(server.address, `${method} ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
}

/** The page for an error that happened before anything was sent. */
function assertErrorPage(response: Response, status: number): void {
  assert.equal(response.status, status);
  assert.match(response.header('content-type') ?? '', /^text\/html/);
  assert.equal(response.header('connection')?.toLowerCase(), 'close');
  assert.equal(response.framing, 'length');
  assert.match(response.text(), /<html>/i);
  assert.doesNotMatch(response.text(), /Traceback|raised on purpose/);
}

function assertCut(response: Response, body: string): void {
  assert.equal(response.status, 200);
  assert.equal(response.text(), body);
  assert.equal(response.complete, false);
}

/** Answers as if nothing had happened. */
async function assertServes(server: Server): Promise<void> {
  assert.equal((await server.get('/')).text(), 'ok');
}

matrix({ app: 'wsgi_matrix:application', workers: 1 }, (scenario, { kind }) => {
  scenario('status line, Server, Date and Connection, and the headers of the app in its case and order', async (s) => {
    const { lines, version, status, reason } = await ask(s, '/header/case');
    assert.deepEqual([version, status, reason], ['HTTP/1.1', 200, 'OK']);
    assert.ok(lines.includes(`Server: ${kind}`), lines.join('\n'));
    assert.equal(lines.filter((line) => DATE.test(line)).length, 1, lines.join('\n'));
    assert.equal(lines.filter((line) => /^connection: keep-alive$/i.test(line)).length, 1, lines.join('\n'));
    assert.deepEqual(
      lines.filter((line) => /^(content-|x-)/i.test(line)),
      ['content-TYPE: text/plain', 'x-MiXeD: yes', 'Content-Length: 2'],
    );
  });

  scenario.differs('a complete list without Content-Length gets one', 'sends it chunked', async (server) => {
    for (const [path, body] of [
      ['/list', 'hello'],
      ['/list/two', 'hello world'],
      ['/tuple', 'hello'],
      ['/list/empty', ''],
      ['/list/empty-piece', ''],
    ] as const) {
      const response = await ask(server, path);
      assert.equal(response.text(), body, path);
      assert.equal(response.header('content-length'), String(body.length), path);
      assert.equal(response.header('transfer-encoding'), undefined, path);
    }
  });

  scenario('a complete list arrives whole', async (server) => {
    for (const [path, body] of [
      ['/list', 'hello'],
      ['/list/two', 'hello world'],
      ['/list/length', 'hello'],
      ['/list/empty', ''],
      ['/list/empty-piece', ''],
      ['/tuple', 'hello'],
    ] as const) {
      const response = await ask(server, path);
      assert.equal(response.status, 200, path);
      assert.equal(response.text(), body, path);
      assert.equal(response.complete, true, path);
      assert.ok(response.keptOpen, path);
    }
  });

  scenario('the status of the app is sent, its reason as it is', async (server) => {
    const created = await ask(server, '/status/201');
    assert.deepEqual([created.status, created.reason], [201, 'Created']);
    const custom = await ask(server, '/status/custom');
    assert.deepEqual([custom.status, custom.reason], [299, 'Rather Special']);
  });

  scenario('what write() was given comes before what is returned', async (server) => {
    const response = await ask(server, '/write');
    assert.equal(response.text(), 'one,two,three');
    assert.equal(response.framing, 'chunked');
    const withLength = await ask(server, '/write/length');
    assert.equal(withLength.text(), 'one,two,three');
    assert.equal(withLength.header('content-length'), '13');
  });

  scenario('a generator is sent chunked', async (server) => {
    const response = await ask(server, '/generator');
    assert.equal(response.text(), 'one,two,three');
    assert.equal(response.framing, 'chunked');
    assert.ok(response.keptOpen);
  });

  scenario('start_response may be called at the first piece', async (server) => {
    const response = await ask(server, '/generator/late');
    assert.deepEqual([response.status, response.text()], [201, 'late']);
  });

  scenario('empty pieces are left out', async (server) => {
    const response = await ask(server, '/generator/empty-first');
    assert.equal(response.text(), 'abcdef');
    assert.equal(response.complete, true);
  });

  scenario.differs('start_response after an empty piece', 'sends a garbage status line', async (server) => {
    const response = await ask(server, '/generator/start-after-empty');
    // PEP 3333: before the iterable yields its first body bytestring; an empty one delays the headers.
    assert.deepEqual([response.status, response.text()], [202, 'accepted']);
  });

  scenario.differs('start_response never called is a 500', 'sends "HTTP/1.1 None"', async (server) => {
    assertErrorPage(await ask(server, '/no-start'), 500);
    await assertServes(server);
  });

  scenario('start_response twice without exc_info is a 500', async (server) => {
    assertErrorPage(await ask(server, '/start-twice'), 500);
    await assertServes(server);
  });

  scenario('start_response twice after output cuts the response', async (server) => {
    assertCut(await ask(server, '/start-twice-after-output'), 'first');
    await assertServes(server);
  });

  scenario('start_response with exc_info before output replaces status and headers', async (server) => {
    const response = await ask(server, '/exc-info-before');
    assert.deepEqual([response.status, response.reason, response.text()], [503, 'Busy', 'replaced']);
  });

  scenario('start_response with exc_info after output cuts the response', async (server) => {
    const response = await ask(server, '/exc-info-after');
    assertCut(response, 'first');
    assert.equal(response.framing, 'chunked');
  });

  scenario('HEAD has the headers and no body', async (server) => {
    for (const path of ['/list', '/generator', '/list/length']) {
      const response = await exchange(
        server.address,
        `HEAD ${path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\nHEAD / HTTP/1.1\r\nHost: test\r\n\r\n`,
      );
      assert.equal(response.status, 200, path);
      assert.equal(response.header('transfer-encoding'), undefined, path);
      assert.equal(response.header('content-length'), path === '/list/length' ? '5' : undefined, path);
    }
  });

  scenario('nothing follows the head of a HEAD, a 204 or a 304', async (server) => {
    for (const [method, path, status] of [
      ['HEAD', '/list', 200],
      ['HEAD', '/generator/head', 200],
      ['GET', '/204', 204],
      ['GET', '/204/body', 204],
      ['GET', '/304/body', 304],
    ] as const) {
      const connection = await server.connect();
      await connection.send(`${method} ${path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n`);
      const response = await connection.response(method);
      await connection.end();
      assert.equal(response.status, status, path);
      assert.equal(connection.pending, '', `${method} ${path}`);
      assert.equal(response.header('transfer-encoding'), undefined, path);
      connection.close();
    }
  });

  scenario('a body longer than its Content-Length is cut at that length', async (server) => {
    for (const path of ['/length/excess', '/length/excess-one-piece', '/length/excess-write']) {
      const connection = await server.connect();
      await connection.send(`GET ${path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n`);
      const response = await connection.response();
      await connection.end();
      assert.equal(response.text(), '12345', path);
      assert.equal(connection.pending, '', path);
      connection.close();
    }
  });

  scenario.differs('a body shorter than its Content-Length ends the connection', 'keeps it open', async (server) => {
    const connection = await server.connect();
    await connection.send('GET /length/short HTTP/1.1\r\nHost: test\r\n\r\n');
    const response = await connection.response();
    assert.equal(response.text(), '12345');
    assert.equal(response.header('content-length'), '10');
    assert.equal(response.complete, false);
    await connection.end();
    connection.close();
  });

  scenario('an invalid Content-Length is a 500', async (server) => {
    assertErrorPage(await ask(server, '/length/invalid'), 500);
  });

  scenario.differs('Content-Length of -1, or two that differ, is a 500', 'sends them', async (server) => {
    assertErrorPage(await ask(server, '/length/negative'), 500);
    assertErrorPage(await ask(server, '/length/twice-different'), 500);
    await assertServes(server);
  });

  scenario.differs('two equal Content-Length leave as one', 'sends both', async (server) => {
    for (const method of ['GET', 'HEAD']) {
      const response = await ask(server, '/length/twice', method);
      assert.deepEqual(response.headers('content-length'), ['5'], method);
    }
  });

  // A client would wait for the answer that follows: there is none.
  scenario('a 1xx as the answer of the app ends the connection', async (server) => {
    const connection = await server.connect();
    await connection.send('GET /status/100 HTTP/1.1\r\nHost: test\r\n\r\n');
    const head = await connection.readThrough('\r\n\r\n');
    assert.match(head, /^HTTP\/1\.1 100 Continue\r\n/);
    assert.doesNotMatch(head, /^(content-length|transfer-encoding):/im);
    await connection.end();
    assert.equal(connection.pending, '');
    connection.close();
  });

  scenario('a latin-1 header value is sent as one byte a character', async (server) => {
    const response = await ask(server, '/header/latin1');
    assert.equal(response.header('x-name'), 'caf\xe9');
  });

  scenario('so it is when the head leaves before the body', async (server) => {
    const response = await ask(server, '/header/latin1-streamed');
    assert.equal(response.header('x-name'), 'caf\xe9');
    assert.equal(response.body.toString(), 'latin-1');
  });

  scenario('a header value beyond latin-1 is a 500', async (server) => {
    assertErrorPage(await ask(server, '/header/beyond-latin1'), 500);
  });

  scenario('duplicate headers stay lines of their own, in order', async (server) => {
    const response = await ask(server, '/header/duplicates');
    assert.deepEqual(
      response.lines.filter((line) => /^(set-cookie|x-d):/i.test(line)),
      ['Set-Cookie: a=1', 'X-D: 1', 'Set-Cookie: b=2', 'X-D: 2'],
    );
  });

  scenario('white space around a header value is left out', async (server) => {
    const { lines } = await ask(server, '/header/whitespace');
    assert.ok(lines.includes('X-Space: padded'), lines.join('\n'));
  });

  scenario('headers appended after start_response are not sent', async (server) => {
    assert.equal((await ask(server, '/header/appended-later')).header('x-late'), undefined);
  });

  scenario('hop-by-hop headers, Server and Date of the app are left out', async (server) => {
    const response = await ask(server, '/header/hop-by-hop');
    assert.equal(response.text(), 'ok');
    assert.deepEqual(response.headers('server'), [kind]);
    assert.equal(response.headers('date').length, 1);
    assert.notEqual(response.header('date'), 'yesterday');
    assert.deepEqual(response.headers('transfer-encoding'), []);
    assert.doesNotMatch(response.headers('connection').join(), /X-Mine/);
    assert.doesNotMatch(response.headers('keep-alive').join(), /99/);
  });

  scenario('200 headers of 1000 bytes arrive', async (server) => {
    const response = await ask(server, '/header/many');
    assert.equal(response.lines.filter((line) => /^x-many-\d+: v{1000}$/i.test(line)).length, 200);
  });

  for (const what of [
    'cr',
    'lf',
    'crlf',
    'nul',
    'name-crlf',
    'name-space',
    'name-empty',
    'name-colon',
    'name-non-ascii',
  ]) {
    scenario(`invalid header of the app (${what}) is a 500`, async (server) => {
      const response = await ask(server, `/header/${what}`);
      assertErrorPage(response, 500);
      assert.equal(response.header('x-injected'), undefined);
      await assertServes(server);
    });
  }

  for (const what of ['int', 'bytes']) {
    scenario(`a header that is no string (${what}) is a 500`, async (server) => {
      assertErrorPage(await ask(server, `/header/${what}`), 500);
    });
  }

  for (const what of ['crlf', 'lf', 'text', 'empty']) {
    scenario(`invalid status string (${what}) is a 500`, async (server) => {
      const response = await ask(server, `/status/${what}`);
      assertErrorPage(response, 500);
      assert.equal(response.header('x-injected'), undefined);
      await assertServes(server);
    });
  }

  for (const what of ['int', 'bytes']) {
    scenario(`a status that is no string (${what}) is a 500`, async (server) => {
      assertErrorPage(await ask(server, `/status/${what}`), 500);
    });
  }

  for (const what of ['before', 'after', 'memory', 'recursion']) {
    scenario(`an exception before any output (${what}) is a 500 with the traceback in the log`, async (server) => {
      const from = server.log.length;
      assertErrorPage(await ask(server, `/error/${what}`), 500);
      await server.waitForLog(/Traceback \(most recent call last\)[\s\S]*raised on purpose/, { from });
      assert.match(server.log.slice(from), new RegExp(`Error handling request.*/error/${what}`));
    });
  }

  for (const what of [
    'oserror',
    'oserror-after',
    'file-not-found',
    'broken-pipe',
    'timeout',
    'stop-iteration',
    'generator-exit',
  ]) {
    scenario.differs(`${what} of the app is a 500 like any exception`, 'ends the connection', async (server) => {
      const from = server.log.length;
      assertErrorPage(await ask(server, `/error/${what}`), 500);
      await server.waitForLog(/Traceback \(most recent call last\)[\s\S]*raised on purpose/, { from });
      await assertServes(server);
    });
  }

  for (const what of ['system-exit-1', 'system-exit-3', 'system-exit-4', 'keyboard-interrupt']) {
    scenario.differs(`${what} of the app is a 500 and the server goes on`, 'ends worker or server', async (server) => {
      assertErrorPage(await ask(server, `/error/${what}`), 500);
      await assertServes(server);
      assert.equal(server.hasExited, false);
    });
  }

  scenario('an exception after the first piece cuts the response', async (server) => {
    const chunked = await ask(server, '/error/mid-body');
    assertCut(chunked, 'first');
    assert.equal(chunked.framing, 'chunked');
    assertCut(await ask(server, '/error/mid-body-length'), 'first');
    await assertServes(server);
  });

  for (const what of ['none', 'int']) {
    scenario(`a returned ${what} is a 500`, async (server) => {
      assertErrorPage(await ask(server, `/return/${what}`), 500);
    });
  }

  scenario('a body of str never reaches the client', async (server) => {
    for (const path of ['/return/str', '/return/bytes']) {
      const response = await ask(server, path);
      assert.ok(response.status === 500 || !response.complete, path);
      assert.doesNotMatch(response.text(), /^text$|^bytes$/, path);
    }
    assertCut(await ask(server, '/return/str-later'), 'bytes');
    await assertServes(server);
  });

  scenario('a single piece of 20 MB arrives whole', async (server) => {
    const { status, length } = await fetchLarge(server.address, '/big?20000000');
    assert.deepEqual({ status, length }, { status: 200, length: 20_000_000 });
  });

  scenario('wsgi.early_hints sends a 103 before the response', async (server) => {
    const response = await ask(server, '/early-hints');
    assert.deepEqual(
      response.interim.map((head) => [head.status, head.headers('link')]),
      [[103, ['</style.css>; rel=preload']]],
    );
    assert.equal(response.text(), 'hinted');
  });

  scenario('hints of any form are sent as they are', async (server) => {
    const response = await ask(server, '/early-hints/free');
    assert.deepEqual(
      response.interim.map((head) => [head.status, head.headers('link'), head.headers('x-hint')]),
      [[103, ['</a.css>; rel=preload; title="a b", </b.js>; rel=preload'], ['yes']]],
    );
    assert.equal(response.text(), 'hinted');
  });

  scenario.differs('Trailer is left out, since none follows', 'is sent', async (server) => {
    const response = await ask(server, '/header/trailer');
    assert.deepEqual([response.status, response.text(), response.header('trailer')], [200, 'ok', undefined]);
  });

  scenario('wsgi.errors, stdout and stderr of the app come out', async (server) => {
    await ask(server, '/errors');
    await server.waitForLog(/written to wsgi\.errors €\nfirst of two\nsecond of two\n/);
    await server.waitForLog(/printed to stderr/);
    await until(() => server.stdout.includes('printed to stdout'), 'what the app printed');
  });
});
