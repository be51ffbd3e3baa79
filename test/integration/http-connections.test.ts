// One connection, several requests: keep-alive, close, pipelining, pieces, 100-continue, HTTP/1.0.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { count, counted } from '../helpers/count.ts';
import { until } from '../helpers/deadline.ts';
import { type Connection, exchange } from '../helpers/http.ts';
import { matrix, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { peakResidentMiB } from '../helpers/processes.ts';
import { type Server, withServer } from '../helpers/server.ts';

matrix({ app: 'wsgi_matrix:application', workers: 1 }, (scenario) => {
  scenario('a connection serves one request after the other', async (server) => {
    const connection = await server.connect();
    for (const path of ['/', '/list', '/generator', '/204', '/file', '/']) {
      await connection.send(`GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
      const response = await connection.response();
      assert.ok([200, 204].includes(response.status), path);
      assert.equal(response.complete, true, path);
    }
    connection.close();
  });

  scenario('Connection: close is confirmed and done', async (server) => {
    const connection = await server.connect();
    await connection.send('GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n');
    assert.equal((await connection.response()).header('connection')?.toLowerCase(), 'close');
    assert.equal(await connection.end(), 'fin');
    connection.close();
  });

  scenario('what follows a request with Connection: close is not served', async (server) => {
    const before = await count(server, 'unread');
    const connection = await server.connect();
    await connection.send(
      'GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\nGET /unread HTTP/1.1\r\nHost: test\r\n\r\n',
    );
    assert.equal((await connection.response()).text(), 'ok');
    await connection.end();
    assert.doesNotMatch(connection.pending, /unread/);
    assert.equal(await count(server, 'unread'), before);
    connection.close();
  });

  scenario('HTTP/1.0 closes', async (server) => {
    const connection = await server.connect();
    await connection.send('GET / HTTP/1.0\r\n\r\n');
    const response = await connection.response();
    assert.equal(response.text(), 'ok');
    await connection.end();
    connection.close();
  });

  scenario('HTTP/1.0 with keep-alive is kept and told so', async (server) => {
    const connection = await server.connect();
    for (let time = 0; time < 2; time++) {
      await connection.send('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n');
      const response = await connection.response();
      assert.equal(response.text(), 'ok');
      assert.equal(response.header('connection')?.toLowerCase(), 'keep-alive');
    }
    connection.close();
  });

  scenario('a stream over HTTP/1.0 is never chunked and ends with the connection', async (server) => {
    for (const header of ['', 'Connection: keep-alive\r\n']) {
      const response = await exchange(server.address, `GET /generator HTTP/1.0\r\n${header}\r\n`);
      assert.equal(response.header('transfer-encoding'), undefined);
      assert.equal(response.framing, 'close');
      assert.equal(response.text(), 'one,two,three');
    }
  });

  scenario('pipelined requests are answered in order', async (server) => {
    const connection = await server.connect();
    await connection.send(
      [
        'GET /environ/1 HTTP/1.1\r\nHost: test\r\n\r\n',
        'POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\nsecond',
        'GET /generator HTTP/1.1\r\nHost: test\r\n\r\n',
        'POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfourth\r\n0\r\n\r\n',
        'HEAD /list HTTP/1.1\r\nHost: test\r\n\r\n',
        'GET /list HTTP/1.1\r\nHost: test\r\n\r\n',
      ].join(''),
    );
    assert.match((await connection.response()).text(), /environ\/1/);
    assert.equal((await connection.response()).text(), 'second');
    assert.equal((await connection.response()).text(), 'one,two,three');
    assert.equal((await connection.response()).text(), 'fourth');
    assert.equal((await connection.response('HEAD')).status, 200);
    assert.equal((await connection.response()).text(), 'hello');
    connection.close();
  });

  scenario('100 pipelined requests', async (server) => {
    const connection = await server.connect();
    const numbers = Array.from({ length: 100 }, (_, i) => i);
    const request = (i: number): string =>
      `POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: ${String(i).length}\r\n\r\n${i}`;
    await connection.send(numbers.map(request).join(''));
    for (const i of numbers) assert.equal((await connection.response()).text(), String(i));
    connection.close();
  });

  scenario('a request may arrive byte by byte', async (server) => {
    const connection = await server.connect();
    const bytes = 'POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello';
    for (const byte of bytes) await connection.send(byte);
    assert.equal((await connection.response()).text(), 'hello');
    connection.close();
  });

  scenario('Expect: 100-continue is answered before the body is sent', async (server) => {
    const connection = await server.connect();
    await connection.send('POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n');
    assert.match(await connection.readThrough('\r\n\r\n'), /^HTTP\/1\.1 100 Continue\r\n/);
    await connection.send('hello');
    assert.equal((await connection.response()).text(), 'hello');
    connection.close();
  });

  scenario('Expect: 100-continue is ignored over HTTP/1.0', async (server) => {
    const connection = await server.connect();
    await connection.send('POST /echo HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello');
    const response = await connection.response();
    assert.deepEqual([response.interim.length, response.text()], [0, 'hello']);
    connection.close();
  });

  scenario.differs('a connection that says nothing harms nobody', 'each holds a thread for 5 s', async (server) => {
    const before = await server.descriptorsAtRest();
    const silent = await Promise.all(Array.from({ length: 20 }, () => server.connect()));
    assert.equal((await server.get('/')).text(), 'ok');
    for (const connection of silent) connection.reset();
    await server.descriptorsBackTo(before);
  });
});

matrix({ app: 'wsgi_matrix:application', workers: 1 }, (scenario) => {
  // The parser would take the body of what follows for a request: it has lost its head.
  scenario.differs('what follows a request with Upgrade is not served', 'keeps the connection', async (server) => {
    const before = await count(server, 'unread');
    for (const upgrade of ['h2c', 'websocket']) {
      const connection = await server.connect();
      await connection.send(
        [
          `GET /list HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: ${upgrade}\r\n\r\n`,
          'POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: 40\r\n\r\n',
        ].join(''),
      );
      await connection.send('GET /unread HTTP/1.1\r\nHost: test\r\n\r\n');
      const response = await connection.response();
      assert.equal(response.text(), 'hello');
      assert.equal(response.header('connection')?.toLowerCase(), 'close');
      await connection.end();
      assert.equal(connection.pending, '');
      connection.close();
    }
    assert.equal(await count(server, 'unread'), before);
  });

  scenario('the body of a request with Upgrade arrives', async (server) => {
    const connection = await server.connect();
    await connection.send(
      'POST /echo HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 6\r\n\r\nabc',
    );
    await connection.send('def');
    assert.equal((await connection.response()).text(), 'abcdef');
    connection.close();
  });

  scenario('who sends 4 MB of header hears 431, not a reset', async (server) => {
    const response = await exchange(
      server.address,
      `GET / HTTP/1.1\r\nHost: test\r\nX-Long: ${'x'.repeat(4_000_000)}\r\n\r\n`,
    );
    assert.deepEqual([response.status, response.complete], [431, true]);
  });
});

it('an idle connection is closed after --keep-alive seconds', { skip: !NUNICORN_RUNS }, async () => {
  await withServer({ app: 'wsgi_matrix:application', args: ['--keep-alive', '1'] }, async (server) => {
    const connection = await server.connect();
    await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
    await connection.response();
    assert.equal(await connection.end(10_000), 'fin');
    connection.close();
  });
});

it('a head that comes slowly on a kept connection has --header-timeout', { skip: !NUNICORN_RUNS }, async () => {
  const args = ['--keep-alive', '1', '--header-timeout', '5'];
  await withServer({ app: 'wsgi_matrix:application', args }, async (server) => {
    const [slow, idle] = [await server.connect(), await server.connect()];
    for (const connection of [slow, idle]) {
      await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
      assert.equal((await connection.response()).text(), 'ok');
    }
    await slow.send('GET /list HTTP/1.1\r\n');
    await idle.end();
    idle.close();
    await slow.send('Host: test\r\n\r\n');
    assert.equal((await slow.response()).text(), 'hello');
    await slow.send('GET /list HTTP/1.1\r\n');
    assert.equal((await slow.response()).status, 408);
    slow.close();
  });
});

it('--keep-alive 0 closes each connection and says so', { skip: !NUNICORN_RUNS }, async () => {
  await withServer({ app: 'wsgi_matrix:application', args: ['--keep-alive', '0'] }, async (server) => {
    const connection = await server.connect();
    await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
    assert.equal((await connection.response()).header('connection')?.toLowerCase(), 'close');
    await connection.end();
    connection.close();
  });
});

it('what is pipelined behind the last answer of a connection is not run', { skip: !NUNICORN_RUNS }, async () => {
  await withServer({ app: 'wsgi_matrix:application', args: ['--keep-alive', '0'] }, async (server) => {
    const request = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`;
    const connection = await server.connect();
    await connection.send(request('/list') + request('/unread') + request('/unread'));
    assert.equal((await connection.response()).text(), 'hello');
    await connection.end();
    assert.equal(connection.pending, '');
    connection.close();
    // The client takes its answer slowly: the connection is there still when the next request comes.
    const slow = await server.connect();
    slow.socket.pause();
    await slow.send(request('/big?30000000'));
    await until(() => slow.socket.readableLength > 0 || slow.socket.bytesRead > 0, 'the answer to begin');
    await slow.send(request('/unread'));
    slow.discard();
    slow.socket.resume();
    await slow.end();
    assert.ok(slow.received > 30_000_000);
    slow.close();
    assert.equal(await count(server, 'unread'), 0);
  });
});

it('a flood of pipelined requests is read no faster than it is served', { skip: !NUNICORN_RUNS }, async () => {
  await withServer({ app: 'wsgi_matrix:application', workers: 1, threads: 3 }, async (server) => {
    const [front] = server.fronts();
    assert(front !== undefined);
    const connection = await server.connect();
    await connection.send('GET /wait/flood HTTP/1.1\r\nHost: test\r\n\r\n');
    await counted(server, 'started-flood', 1);
    const before = peakResidentMiB(front);
    void connection.send('GET /list HTTP/1.1\r\nHost: test\r\n\r\n'.repeat(150_000));
    // As large as a head may be.
    const fields = Array.from({ length: 98 }, (_, at) => `X-${at}: ${'x'.repeat(8000)}\r\n`).join('');
    const large = await server.connect();
    await large.send('GET /wait/flood HTTP/1.1\r\nHost: test\r\n\r\n');
    void large.send(`GET /list HTTP/1.1\r\nHost: test\r\n${fields}\r\n`.repeat(90));
    for (let turn = 0; turn < 20; turn++) await server.seenByFront();
    const grown = peakResidentMiB(front) - before;
    assert.ok(grown < 60, `the front grew by ${grown} MiB`);
    assert.equal((await server.get('/open/flood')).text(), 'open');
    assert.equal((await connection.response()).text(), 'opened');
    for (let time = 0; time < 2500; time++) assert.equal((await connection.response('GET', 60_000)).text(), 'hello');
    connection.close();
    assert.equal((await large.response()).text(), 'opened');
    for (let time = 0; time < 90; time++) assert.equal((await large.response('GET', 60_000)).text(), 'hello');
    large.close();
  });
});

it('bodies of pipelined requests are read no faster than the requests are served', {
  skip: !NUNICORN_RUNS,
}, async () => {
  const clients = 30;
  await withServer({ app: 'wsgi_matrix:application', workers: 1, threads: clients + 2 }, async (server) => {
    const [front] = server.fronts();
    assert(front !== undefined);
    const body = 'b'.repeat(15_000);
    const connections = await Promise.all(Array.from({ length: clients }, () => server.connect()));
    for (const connection of connections) await connection.send('GET /wait/bodies HTTP/1.1\r\nHost: test\r\n\r\n');
    await counted(server, 'started-bodies', clients);
    const before = peakResidentMiB(front);
    const upload = `POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    for (const connection of connections) void connection.send(upload.repeat(100));
    for (let turn = 0; turn < 20; turn++) await server.seenByFront();
    const grown = peakResidentMiB(front) - before;
    assert.ok(grown < 20, `the front grew by ${grown} MiB`);
    await server.get('/open/bodies');
    for (const connection of connections) {
      assert.equal((await connection.response()).text(), 'opened');
      for (let time = 0; time < 100; time++) assert.equal((await connection.response('GET', 60_000)).text(), body);
      connection.close();
    }
  });
});

it('CONNECT is refused, alone, behind a request that is served, and by a client that leaves', {
  skip: !NUNICORN_RUNS,
}, async () => {
  await withServer({ app: 'wsgi_matrix:application', workers: 1, threads: 2 }, async (server) => {
    const CONNECT = 'CONNECT elsewhere:1 HTTP/1.1\r\nHost: elsewhere:1\r\n\r\n';
    const [front] = server.fronts();
    const leaving = await server.connect();
    await leaving.send(CONNECT);
    leaving.socket.resetAndDestroy();
    const alone = await server.connect();
    await alone.send(CONNECT);
    assert.equal((await alone.response()).status, 501);
    await alone.end();
    alone.close();
    const behind = await server.connect();
    await behind.send('GET /wait/connect HTTP/1.1\r\nHost: test\r\n\r\n');
    await counted(server, 'started-connect', 1);
    await behind.send(CONNECT);
    await server.seenByFront();
    await server.get('/open/connect');
    assert.equal((await behind.response()).text(), 'opened');
    await behind.end();
    assert.equal(behind.pending, '');
    behind.close();
    assert.deepEqual(server.fronts(), [front]);
  });
});

it('a client that is gone before it could be asked for its address is not served', {
  skip: !NUNICORN_RUNS,
}, async () => {
  const args = ['--access-logfile', '-', '--access-logformat', '%(h)s %(U)s'];
  await withServer({ app: 'wsgi_matrix:application', args }, async (server) => {
    for (let client = 0; client < 200; client++) {
      const connection = await server.connect();
      void connection.send('GET /list HTTP/1.1\r\nHost: test\r\n\r\n');
      connection.socket.resetAndDestroy();
    }
    await server.get('/last');
    await until(() => server.stdout.includes(' /last'), 'the last line of the access log');
    const hosts = new Set(
      server.stdout.split('\n').flatMap((line) => (line.endsWith('/list') ? [line.split(' ')[0]] : [])),
    );
    hosts.delete('127.0.0.1');
    assert.deepEqual([...hosts], []);
  });
});

it('a client that asks for much and reads nothing is answered no further than it reads', {
  skip: !NUNICORN_RUNS,
}, async () => {
  await withServer({ app: 'wsgi_matrix:application', workers: 1, threads: 2 }, async (server) => {
    const [front] = server.fronts();
    assert(front !== undefined);
    await server.get('/list');
    const before = peakResidentMiB(front);
    const connection = await server.connect();
    connection.socket.pause();
    void connection.send('GET /big?60000 HTTP/1.1\r\nHost: test\r\n\r\n'.repeat(3000));
    // Each turn would serve several of them.
    for (let turn = 0; turn < 1500; turn++) assert.equal((await server.get('/list')).text(), 'hello');
    const grown = peakResidentMiB(front) - before;
    assert.ok(grown < 60, `the front grew by ${grown} MiB`);
    connection.socket.resume();
    for (let time = 0; time < 3000; time++) {
      assert.equal((await connection.response('GET', 60_000)).body.length, 60_000);
    }
    connection.close();
  });
});

it('a client that has ended its side gets the end of the connection with its answer', {
  skip: !NUNICORN_RUNS,
}, async () => {
  await withServer({ app: 'wsgi_matrix:application', threads: 2, args: ['--keep-alive', '60'] }, async (server) => {
    const connection = await server.connect();
    await connection.send('GET /wait/half HTTP/1.1\r\nHost: test\r\n\r\n');
    await counted(server, 'started-half', 1);
    connection.socket.end();
    await server.seenByFront();
    await server.get('/open/half');
    assert.equal((await connection.response()).text(), 'opened');
    assert.equal(await connection.end(), 'fin');
    connection.close();
  });
});

it('what is no HTTP behind a request that streams is told of once, and ends the connection', {
  skip: !NUNICORN_RUNS,
}, async () => {
  await withServer({ app: 'wsgi_matrix:application', workers: 1, threads: 2 }, async (server) => {
    const connection = await server.connect();
    await connection.send('GET /stream/steps?s HTTP/1.1\r\nHost: test\r\n\r\n');
    await connection.readThrough('piece 0');
    for (let time = 0; time < 20; time++) {
      await connection.send('NO HTTP AT ALL\r\n\r\n');
      await server.seenByFront();
    }
    for (let step = 0; step < 3; step++) await server.get(`/open/s-${step}`);
    await connection.readThrough('0\r\n\r\n');
    await connection.end();
    connection.close();
    assert.equal(server.log.match(/Parse Error/g)?.length, 1);
  });
});

it('a client that leaves in the middle of a request is no line in the log', { skip: !NUNICORN_RUNS }, async () => {
  await withServer({ app: 'wsgi_matrix:application', workers: 1 }, async (server) => {
    const head = 'POST /unread HTTP/1.1\r\nHost: test\r\n';
    for (const bytes of ['POST /unread HT', head, `${head}Content-Length: 2\r\n\r\n1`]) {
      const half = await server.connect();
      await half.send(bytes);
      half.halfClose();
      await half.end();
      half.close();
    }
    assert.equal((await server.get('/')).text(), 'ok');
    assert.doesNotMatch(server.log, /WARNING/);
  });
});

it('an empty line after an answer does not keep an idle connection', { skip: !NUNICORN_RUNS }, async () => {
  const args = ['--keep-alive', '1', '--header-timeout', '1'];
  await withServer({ app: 'wsgi_matrix:application', args }, async (server) => {
    const connection = await server.connect();
    await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
    await connection.response();
    await connection.send('\r\n');
    assert.equal(await connection.end(10_000), 'fin');
    connection.close();
  });
});

/** One thread and a Unix socket, whose kernel buffer is small: what clients do not read soon waits in the front. */
async function withSmallBuffers(check: (server: Server) => Promise<void>): Promise<void> {
  await withServer({ app: 'wsgi_matrix:application', workers: 1, bind: ['unix:{home}/app.sock'] }, check);
}

const STREAMED = 'GET /stream/bytes?10000 HTTP/1.1\r\nHost: test\r\n\r\n';

/** How many streamed answers there were, when the front has seen all that was sent, and no more are made. */
async function streamed(server: Server): Promise<number> {
  await server.seenByFront();
  let made = await count(server, 'stream-bytes');
  // The only thread takes turns: a request that may run does so before the count is asked for a few times more.
  for (let same = 0; same < 3; same++) {
    const now = await count(server, 'stream-bytes');
    if (now !== made) same = -1;
    made = now;
  }
  return made;
}

/** Asks for answers that it does not read, each when the one before has been made, until `most` are, or no more is. */
async function fill(server: Server, connection: Connection, most: number): Promise<number> {
  connection.socket.pause();
  const before = await streamed(server);
  for (let made = 0; made < most; made++) {
    await connection.send(STREAMED);
    if ((await streamed(server)) === before + made) return made;
  }
  return most;
}

it('no request runs behind an answer that waits behind another one', { skip: !NUNICORN_RUNS }, async () => {
  await withSmallBuffers(async (server) => {
    const first = await server.connect();
    const room = await fill(server, first, 1000);
    assert.ok(room > 4 && room < 1000, `${room} answers`);
    first.close();
    // Somewhere here an answer waits in the front, and not so much that the front has stopped reading.
    for (let kept = room - 4; kept < room; kept++) {
      const connection = await server.connect();
      await fill(server, connection, kept);
      const before = await streamed(server);
      await connection.send(STREAMED.repeat(50));
      const ran = (await streamed(server)) - before;
      assert.ok(ran < 10, `${ran} ran behind ${kept}`);
      connection.socket.resume();
      for (let time = 0; time < kept + 50; time++) assert.equal((await connection.response()).body.length, 10_000);
      connection.close();
    }
  });
});

it('early hints do not overtake the answers before them', { skip: !NUNICORN_RUNS }, async () => {
  await withSmallBuffers(async (server) => {
    const first = await server.connect();
    const room = await fill(server, first, 1000);
    first.close();
    const connection = await server.connect();
    await fill(server, connection, room - 1);
    await connection.send('GET /early-hints HTTP/1.1\r\nHost: test\r\n\r\n');
    await streamed(server);
    connection.socket.resume();
    for (let time = 0; time < room - 1; time++) assert.deepEqual((await connection.response()).interim, []);
    const hinted = await connection.response();
    assert.deepEqual([hinted.text(), hinted.interim.map(({ status }) => status)], ['hinted', [103]]);
    connection.close();
  });
});

it('clients that leave two answers unread owe nothing any more', { skip: !NUNICORN_RUNS }, async () => {
  await withSmallBuffers(async (server) => {
    const unread = async (answers: number): Promise<Connection> => {
      const connection = await server.connect();
      connection.socket.pause();
      for (let time = 0; time < answers; time++) {
        await connection.send('GET /stream/bytes?900000 HTTP/1.1\r\nHost: test\r\n\r\n');
        await streamed(server);
      }
      return connection;
    };
    for (let time = 0; time < 90; time++) (await unread(2)).close();
    // With 64 MiB owed, the front would keep so little for this client that it held the only thread.
    const slow = await unread(1);
    assert.equal((await server.get('/')).text(), 'ok');
    slow.close();
  });
});
