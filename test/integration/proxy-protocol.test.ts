// The header of the PROXY protocol before HTTP and before TLS: what the application sees, and who is refused.
import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { makeCertificates } from '../helpers/certificates.ts';
import { Connection, get } from '../helpers/http.ts';
import { matrix } from '../helpers/matrix.ts';
import { type Server, withServer } from '../helpers/server.ts';

const V1 = 'PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n';
const V2 = Buffer.from('0d0a0d0a000d0a515549540a2111000cc0000207c6336401dc0401bb', 'hex');
const LOCAL = Buffer.from('0d0a0d0a000d0a515549540a20000000', 'hex');
const APP = 'wsgi_matrix:application';
const PROXIED = {
  PROXY_PROTOCOL: 'TCP4',
  REMOTE_ADDR: '192.0.2.7',
  REMOTE_PORT: '56324',
  PROXY_ADDR: '198.51.100.1',
  PROXY_PORT: '443',
};

async function environ(server: Server, prelude: string | Buffer, headers = ''): Promise<Record<string, string>> {
  const response = await get({ ...server.address, prelude }, '/environ', headers);
  assert.equal(response.status, 200);
  return JSON.parse(response.text()) as Record<string, string>;
}

function addresses(from: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(from).filter(([name]) => name in PROXIED));
}

/** The answer is `status` and the connection ends; the application is never called. */
async function refused(server: Server, prelude: string | Buffer, status: number): Promise<void> {
  const connection = await Connection.open({ ...server.address, prelude });
  try {
    await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
    const response = await connection.response();
    assert.equal(response.status, status);
    await connection.end();
  } finally {
    connection.close();
  }
}

matrix({ app: APP, args: ['--proxy-protocol', 'auto'] }, (scenario) => {
  scenario('version 1 says who the client is', async (server) => {
    assert.deepEqual(addresses(await environ(server, V1)), PROXIED);
  });

  scenario('version 2 says who the client is', async (server) => {
    assert.deepEqual(addresses(await environ(server, V2)), PROXIED);
  });

  scenario('a connection without a header is served', async (server) => {
    const { REMOTE_ADDR, PROXY_PROTOCOL } = await environ(server, '');
    assert.deepEqual([REMOTE_ADDR, PROXY_PROTOCOL], ['127.0.0.1', undefined]);
  });

  const all = 'the header comes once in a connection and holds for all its requests';
  scenario.differs(all, 'forgets it after the first request', async (server) => {
    const connection = await Connection.open({ ...server.address, prelude: V1 });
    try {
      for (let request = 0; request < 3; request++) {
        await connection.send('GET /environ HTTP/1.1\r\nHost: test\r\nConnection: keep-alive\r\n\r\n');
        const response = await connection.response();
        assert.deepEqual(addresses(JSON.parse(response.text())), PROXIED);
      }
      await connection.send(V1);
      assert.equal((await connection.response()).status, 400);
      await connection.end();
    } finally {
      connection.close();
    }
  });

  scenario('headers of a trusted proxy are believed by its own address, not by that of the client', async (server) => {
    const got = await environ(server, V1, 'X-Forwarded-Proto: https\r\n');
    assert.equal(got['wsgi.url_scheme'], 'https');
  });

  for (const [name, prelude] of [
    ['a protocol that is not known', 'PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n'],
    ['an address that is none', 'PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n'],
    ['a port that is none', 'PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n'],
    ['too few fields', 'PROXY TCP4 192.0.2.7\r\n'],
  ] as const) {
    scenario(`refused: ${name}`, (server) => refused(server, prelude, 400));
  }

  scenario.differs('refused: a binary header that is malformed', 'answers 500', (server) =>
    refused(server, Buffer.concat([V2.subarray(0, 12), Buffer.from('1111000c', 'hex'), V2.subarray(16)]), 400),
  );

  scenario.differs('refused: a line without an end', 'waits for more', (server) =>
    refused(server, `PROXY TCP4 ${'1'.repeat(200)}`, 400),
  );

  scenario.differs('LOCAL: the addresses of the connection hold', 'REMOTE_ADDR is None', async (server) => {
    const { REMOTE_ADDR, PROXY_PROTOCOL, PROXY_ADDR } = await environ(server, LOCAL);
    assert.deepEqual([REMOTE_ADDR, PROXY_PROTOCOL, PROXY_ADDR], ['127.0.0.1', 'LOCAL', undefined]);
  });

  scenario.differs('UNKNOWN: the addresses of the connection hold', 'answers 400', async (server) => {
    const { REMOTE_ADDR, PROXY_PROTOCOL } = await environ(server, 'PROXY UNKNOWN\r\n');
    assert.deepEqual([REMOTE_ADDR, PROXY_PROTOCOL], ['127.0.0.1', 'UNKNOWN']);
  });
});

matrix({ app: APP, args: ['--proxy-protocol', 'v1', '--proxy-allow-from', '10.0.0.0/8'] }, (scenario) => {
  scenario('a header from somebody else is refused', (server) => refused(server, V1, 403));
  scenario('a version that is not looked for is no HTTP', (server) => refused(server, V2, 400));
});

test('a header may come in pieces of any size, with requests behind it', async () => {
  const options = { app: APP, args: ['--proxy-protocol', 'auto', '--access-logfile', '-', '--keep-alive', '10'] };
  await withServer(options, async (server) => {
    const request = 'GET /environ HTTP/1.1\r\nHost: test\r\nConnection: keep-alive\r\n\r\n';
    for (const header of [Buffer.from(V1), V2]) {
      const bytes = Buffer.concat([header, Buffer.from(request + request)]);
      await Promise.all(
        Array.from({ length: header.length + 20 }, async (_, at) => {
          const connection = await server.connect();
          try {
            await connection.send(bytes.subarray(0, at));
            // So that the pieces are seen as two.
            if (at > 0) await server.seenByFront();
            await connection.send(bytes.subarray(at));
            for (let answer = 0; answer < 2; answer++) {
              assert.deepEqual(addresses(JSON.parse((await connection.response()).text())), PROXIED, `split at ${at}`);
            }
          } finally {
            connection.close();
          }
        }),
      );
    }
    await server.stop();
    assert.match(server.stdout, /^192\.0\.2\.7 - - \[/m, 'the access log names the client');
  });
});

test('a header of which the rest never comes ends at --header-timeout, one that leaves leaves nothing', async () => {
  const options = { app: APP, args: ['--proxy-protocol', 'auto', '--header-timeout', '0.3'] };
  await withServer(options, async (server) => {
    const before = await server.descriptorsAtRest();
    const silent = await Connection.open({ ...server.address, prelude: 'PROXY TC' });
    await silent.end();
    const gone = await Connection.open({ ...server.address, prelude: V2.subarray(0, 14) });
    gone.reset();
    const half = await Connection.open({ ...server.address, prelude: 'PROXY' });
    half.halfClose();
    await half.end();
    await server.descriptorsBackTo(before);
  });
});

test('a stop waits for a header no longer than --graceful-timeout', async () => {
  const args = ['--proxy-protocol', 'auto', '--header-timeout', '0', '--graceful-timeout', '1'];
  await withServer({ app: APP, args }, async (server) => {
    const silent = await Connection.open({ ...server.address, prelude: 'PROXY TC' });
    await server.seenByFront();
    await server.stop();
    silent.close();
  });
});

test('over a Unix socket any peer may send one', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nt-'));
  after(() => rmSync(folder, { recursive: true }));
  const bind = [`unix:${join(folder, 'app.sock')}`];
  const args = ['--proxy-protocol', 'auto', '--proxy-allow-from', '10.0.0.1'];
  await withServer({ app: APP, bind, args }, async (server) => {
    const got = await environ(server, V1);
    assert.deepEqual(addresses(got), PROXIED);
    assert.equal(got.SERVER_NAME, 'test');
    assert.equal((await environ(server, '')).REMOTE_ADDR, '');
  });
});

test('before TLS, in any pieces', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nt-'));
  after(() => rmSync(folder, { recursive: true }));
  const { ca, cert, key } = makeCertificates(folder);
  const tls = { ca: readFileSync(ca) };
  const args = ['--proxy-protocol', 'auto', '--certfile', cert, '--keyfile', key];
  await withServer({ app: APP, tls, args }, async (server) => {
    for (const prelude of [V1, V2]) {
      const got = await environ(server, prelude);
      assert.deepEqual(addresses(got), PROXIED);
      assert.equal(got['wsgi.url_scheme'], 'https');
    }
    assert.equal((await environ(server, '')).REMOTE_ADDR, '127.0.0.1');
    // The end of the header and the begin of the handshake in one piece.
    const connection = await Connection.open({ ...server.address, prelude: V2 });
    await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
    assert.equal((await connection.response()).status, 200);
    connection.close();
  });
});

test('SIGTERM finishes a request whose PROXY header has begun to come', async () => {
  await withServer({ app: APP, args: ['--proxy-protocol', 'auto'] }, async (server) => {
    const idle = await server.connect();
    const begun = await server.connect();
    await begun.send(V1.slice(0, 10));
    await environ(server, V1); // both were accepted before it
    server.kill('SIGTERM');
    assert.equal(await idle.end(), 'fin');
    await begun.send(`${V1.slice(10)}GET / HTTP/1.1\r\nHost: test\r\n\r\n`);
    assert.equal((await begun.response()).status, 200);
    for (const connection of [idle, begun]) connection.close();
    assert.deepEqual(await server.exit(), { code: 0, signal: null });
  });
});
