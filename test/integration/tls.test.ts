// HTTPS: what the application sees, clients with certificates, renewed certificates, and files that do not fit.
import { strict as assert } from 'node:assert';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { makeCertificates } from '../helpers/certificates.ts';
import { until } from '../helpers/deadline.ts';
import { Connection, exchange, get, post } from '../helpers/http.ts';
import { matrix } from '../helpers/matrix.ts';
import { parseBind, Server, withServer } from '../helpers/server.ts';

const APP = 'wsgi_matrix:application';
const folder = mkdtempSync(join(tmpdir(), 'nt-'));
after(() => rmSync(folder, { recursive: true }));
const files = makeCertificates(folder);
const tls = { ca: readFileSync(files.ca) };
const SERVE = ['--certfile', files.cert, '--keyfile', files.key];

matrix({ app: APP, tls, args: SERVE }, (scenario) => {
  scenario('the scheme is https, and no other key tells of TLS', async (server) => {
    const got = JSON.parse((await server.get('/environ')).text());
    assert.equal(got['wsgi.url_scheme'], 'https');
    assert.equal(got.SERVER_PORT, String(server.port));
    assert.deepEqual(
      Object.keys(got).filter((name) => /SSL|TLS|HTTPS/.test(name)),
      [],
    );
  });

  scenario('a trusted proxy knows the scheme better', async (server) => {
    const got = JSON.parse((await server.get('/environ', 'X-Forwarded-Proto: http\r\n')).text());
    assert.equal(got['wsgi.url_scheme'], 'http');
  });

  scenario('a body comes whole', async (server) => {
    const body = 'b'.repeat(300_000);
    assert.equal((await post(server.address, '/length', body)).text(), '300000');
  });

  scenario('TLS 1.1 is not spoken', async (server) => {
    const old = { ...tls, minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' } as const;
    await assert.rejects(Connection.open({ ...server.address, tls: old }));
    assert.equal((await server.get()).status, 200);
  });

  scenario.differs('plain HTTP gets 400, as HTTP', 'answers 403', async (server) => {
    const response = await get(parseBind(server.binds[0] ?? ''));
    assert.equal(response.status, 400);
    assert.match(response.text(), /HTTPS/);
  });
});

test('many requests on one connection, and a stream', async () => {
  await withServer({ app: APP, tls, args: [...SERVE, '--keep-alive', '10'] }, async (server) => {
    assert.match(server.log, /Listening at: https:\/\/127\.0\.0\.1:\d+ /);
    const connection = await server.connect();
    const one = 'GET /list HTTP/1.1\r\nHost: test\r\n\r\n';
    await connection.send(one + one + one);
    for (let answer = 0; answer < 3; answer++) assert.equal((await connection.response()).status, 200);
    connection.close();
  });
});

test('a handshake that never ends is ended at --header-timeout and holds nobody up', async () => {
  await withServer({ app: APP, tls, args: [...SERVE, '--header-timeout', '0.5'] }, async (server) => {
    const before = await server.descriptorsAtRest();
    const place = parseBind(server.binds[0] ?? '');
    const silent = await Connection.open(place);
    const half = await Connection.open(place);
    await half.send(Buffer.from([0x16, 0x03, 0x01, 0x01, 0x00, 0x01]));
    assert.equal((await server.get()).status, 200);
    await silent.end();
    await half.end();
    await server.descriptorsBackTo(before);
  });
});

test('certificates of clients: required', async () => {
  const client = { ...tls, cert: readFileSync(files.clientCert), key: readFileSync(files.clientKey) };
  const stranger = { ...tls, cert: readFileSync(files.strangerCert), key: readFileSync(files.strangerKey) };
  const args = [...SERVE, '--cert-reqs', '2', '--ca-certs', files.ca];
  await withServer({ app: APP, tls: client, args }, async (server) => {
    assert.equal((await server.get()).status, 200);
    for (const other of [tls, stranger]) await assert.rejects(get({ ...server.address, tls: other }));
    assert.equal((await server.get()).status, 200);
  });
});

test('certificates of clients: optional, but a bad one is refused', async () => {
  const client = { ...tls, cert: readFileSync(files.clientCert), key: readFileSync(files.clientKey) };
  const stranger = { ...tls, cert: readFileSync(files.strangerCert), key: readFileSync(files.strangerKey) };
  const args = [...SERVE, '--cert-reqs', '1', '--ca-certs', files.ca];
  await withServer({ app: APP, tls, args }, async (server) => {
    assert.equal((await server.get()).status, 200);
    assert.equal((await get({ ...server.address, tls: client })).status, 200);
    await assert.rejects(get({ ...server.address, tls: stranger }));
  });
});

test('certificate and key in one file; a list of ciphers', async () => {
  const args = ['--certfile', files.both, '--ciphers', 'ECDHE-ECDSA-AES256-GCM-SHA384'];
  const old = { ...tls, maxVersion: 'TLSv1.2' } as const;
  await withServer({ app: APP, tls: old, args }, async (server) => {
    const connection = await server.connect();
    assert.equal((connection.socket as TLSSocket).getCipher().name, 'ECDHE-ECDSA-AES256-GCM-SHA384');
    connection.close();
    const others = { ...old, ciphers: 'ECDHE-ECDSA-AES128-GCM-SHA256' };
    await assert.rejects(Connection.open({ ...server.address, tls: others }));
  });
});

test('HUP reads the files again: new connections get the new certificate, also from a front that comes later', async () => {
  const mine = mkdtempSync(join(folder, 'r-'));
  const renewed = makeCertificates(mine, 'renewed-');
  const cert = join(mine, 'cert.pem');
  const key = join(mine, 'key.pem');
  const use = (from: { cert: string; key: string }): void => {
    copyFileSync(from.cert, cert);
    copyFileSync(from.key, key);
  };
  use(files);
  const both = { ca: [readFileSync(files.ca), readFileSync(renewed.ca)] };
  const args = ['--certfile', cert, '--keyfile', key, '--keep-alive', '30'];
  await withServer({ app: APP, tls: both, args }, async (server) => {
    const name = async (): Promise<string> => {
      const connection = await server.connect();
      const { CN } = (connection.socket as TLSSocket).getPeerCertificate().subject;
      connection.close();
      return String(CN);
    };
    const early = await server.connect();
    assert.equal(await name(), 'server');

    writeFileSync(cert, 'nonsense');
    let from = server.log.length;
    server.kill('SIGHUP');
    await server.waitForLog(
      /\[ERROR\] The settings could not be read anew, all stays as it was: certfile: .*cert\.pem/,
      { from },
    );
    assert.equal(await name(), 'server');

    use(renewed);
    from = server.log.length;
    server.kill('SIGHUP');
    await until(async () => (await name()) === 'renewed-server', 'the renewed certificate');
    await early.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
    assert.equal((await early.response()).status, 200, 'a connection from before');
    early.close();

    const [front] = server.fronts();
    assert.ok(front);
    process.kill(front, 'SIGKILL');
    await until(
      async () => server.fronts().some((pid) => pid !== front),
      () => `a new front\n${server.output}`,
    );
    assert.equal(await name(), 'renewed-server');
  });
});

const nonsense = join(folder, 'nonsense.pem');
writeFileSync(nonsense, 'nonsense');
const WRONG: readonly (readonly [name: string, args: readonly string[], message: RegExp])[] = [
  ['no such certificate', ['--certfile', '/none.pem'], /certfile: \/none\.pem cannot be read: there is no such file/],
  ['no such key', ['--certfile', files.cert, '--keyfile', '/none.pem'], /keyfile: \/none\.pem cannot be read/],
  ['a key alone', ['--keyfile', files.key], /keyfile is set, but certfile is not/],
  [
    'a certificate without a key',
    ['--certfile', files.cert],
    /certfile: .*server\.pem holds no private key in PEM form; .* keyfile names it/,
  ],
  ['no certificate in the file', ['--certfile', nonsense], /certfile: .* holds no certificate in PEM form/],
  ['no key in the file', ['--certfile', files.cert, '--keyfile', nonsense], /keyfile: .* holds no private key/],
  [
    'the key of another',
    ['--certfile', files.cert, '--keyfile', files.clientKey],
    /keyfile: the key in .*client-key\.pem is not that of the certificate in .*server\.pem/,
  ],
  [
    'a key with a passphrase',
    ['--certfile', files.cert, '--keyfile', files.encryptedKey],
    /keyfile: the key in .* has a passphrase.*openssl pkey/,
  ],
  ['ciphers that are none', [...SERVE, '--ciphers', 'NONE-OF-THEM'], /ciphers: OpenSSL knows no cipher in/],
  ['authorities that are none', [...SERVE, '--ca-certs', nonsense], /ca_certs: .* holds no certificate/],
];
for (const [name, args, message] of WRONG) {
  test(`refused at the start, in one line: ${name}`, async () => {
    const server = await Server.spawn({ app: APP, args });
    try {
      assert.deepEqual(await server.exit(), { code: 1, signal: null });
      const errors = server.log.split('\n').filter((line) => /Error/.test(line));
      assert.equal(errors.length, 1, server.log);
      assert.match(errors[0] ?? '', message);
      await server.nothingLeft();
    } finally {
      server.destroy();
    }
  });
}

test('a warning: clients may have certificates of every authority', async () => {
  const client = { ...tls };
  await withServer({ app: APP, tls: client, args: [...SERVE, '--cert-reqs', '1'] }, async (server) => {
    assert.match(server.log, /\[WARNING\] cert_reqs without ca_certs/);
    assert.equal((await exchange(server.address, 'GET / HTTP/1.0\r\n\r\n')).status, 200);
  });
});
