// The PROXY protocol and TLS: what the application sees of a connection, and who is refused.
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { makeCertificates } from '../helpers/certificates.ts';
import { until } from '../helpers/deadline.ts';
import { Connection, get } from '../helpers/http.ts';
import { parseBind, type Server } from '../helpers/server.ts';
import { PATIENCE_MS, patient, within } from './exchange.ts';
import { type Differs, onNewServers, onOneServer, type Scenario, type Transcript } from './parity.ts';

const APP = 'wsgi_matrix:application';
const V1 = 'PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n';
const V2 = Buffer.from('0d0a0d0a000d0a515549540a2111000cc0000207c6336401dc0401bb', 'hex');
const LOCAL = Buffer.from('0d0a0d0a000d0a515549540a20000000', 'hex');
const MALFORMED = Buffer.concat([V2.subarray(0, 12), Buffer.from('1111000c', 'hex'), V2.subarray(16)]);
const KEYS = ['REMOTE_ADDR', 'PROXY_PROTOCOL', 'PROXY_ADDR'];
const ENVIRON = 'GET /environ HTTP/1.1\r\nHost: test\r\n\r\n';

function addresses(text: string): string {
  const found = JSON.parse(text) as Record<string, unknown>;
  return KEYS.filter((key) => key in found)
    .map((key) => `${key}: ${JSON.stringify(found[key])}`)
    .join(', ');
}

/** What the app sees of so many requests that follow the header on one connection. */
async function behind(server: Server, prelude: string | Buffer, requests = 1): Promise<Transcript> {
  const connection = await Connection.open({ ...server.address, prelude });
  const lines: string[] = [];
  try {
    for (let request = 0; request < requests; request++) {
      await connection.send(ENVIRON);
      const response = connection.response('GET', PATIENCE_MS);
      const status = await within(response);
      lines.push(status === '200' ? addresses((await response).text()) : status);
    }
    return lines;
  } finally {
    connection.close();
  }
}

function proxied(name: string, prelude: string | Buffer, differs?: Differs, requests = 1): Scenario {
  return { name, run: (server) => behind(server, prelude, requests), ...(differs && { differs }) };
}

onOneServer('PROXY protocol', { app: APP, threads: 2, args: ['--proxy-protocol', 'auto', '--keep-alive', '30'] }, [
  proxied('version 1', V1),
  proxied('version 2', V2),
  proxied('no header', ''),
  proxied('too few fields', 'PROXY TCP4 192.0.2.7\r\n'),
  proxied('an address that is none', 'PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n'),
  proxied(
    'two requests behind one header',
    V1,
    {
      nunicorn: 'it holds for both',
      gunicorn: "the second one has the proxy's address",
      why: 'There is one client behind a connection',
    },
    2,
  ),
  proxied('LOCAL', LOCAL, {
    nunicorn: 'the addresses of the connection hold',
    gunicorn: '`REMOTE_ADDR` is `None`',
    why: 'The specification; `None` is no environ value',
  }),
  proxied('UNKNOWN', 'PROXY UNKNOWN\r\n', {
    nunicorn: 'the addresses of the connection hold',
    gunicorn: '400',
    why: 'The specification: health checks send it',
  }),
  proxied('a malformed binary header', MALFORMED, {
    nunicorn: '400',
    gunicorn: '500 and a traceback',
    why: "The peer's mistake",
  }),
  {
    name: 'a line without an end',
    run: async (server) => {
      const connection = await Connection.open({ ...server.address, prelude: `PROXY TCP4 ${'1'.repeat(200)}` });
      const answer = await within(connection.response('GET', PATIENCE_MS));
      connection.close();
      return [answer];
    },
    differs: { nunicorn: '400', gunicorn: 'waits for more', why: "The specification's limit: 107 bytes" },
  },
]);

const folder = mkdtempSync(join(tmpdir(), 'nt-'));
after(() => rmSync(folder, { recursive: true }));
const files = makeCertificates(folder);
const renewed = makeCertificates(folder, 'renewed-');
const tls = { ca: [readFileSync(files.ca), readFileSync(renewed.ca)] };
const SERVE = ['--certfile', files.cert, '--keyfile', files.key];
const nonsense = join(folder, 'nonsense.pem');
writeFileSync(nonsense, 'nonsense');

/** The files of a certificate that can be changed, one pair for each kind of server. */
function changeable(kind: string): { readonly cert: string; readonly key: string } {
  mkdirSync(join(folder, kind), { recursive: true });
  return { cert: join(folder, kind, 'cert.pem'), key: join(folder, kind, 'key.pem') };
}

function use(kind: string, from: { readonly cert: string; readonly key: string }): void {
  const { cert, key } = changeable(kind);
  copyFileSync(from.cert, cert);
  copyFileSync(from.key, key);
}

async function certificateOf(server: Server): Promise<string> {
  const connection = await server.connect();
  const { CN } = (connection.socket as TLSSocket).getPeerCertificate().subject;
  connection.close();
  return String(CN);
}

onNewServers('TLS', { app: APP, tls, args: SERVE }, [
  {
    name: 'plain HTTP',
    run: async (server) => {
      await server.ready();
      return [await within(get(parseBind(server.binds[0] ?? '')))];
    },
    differs: { nunicorn: '400', gunicorn: 'the connection ends without an answer', why: 'The client is told' },
  },
  {
    name: 'the header of the PROXY protocol',
    options: { app: APP, tls, args: [...SERVE, '--proxy-protocol', 'auto'] },
    run: async (server) => {
      await server.ready();
      const before = await behind(server, V1).catch(() => ['the handshake fails']);
      const connection = await server.connect();
      await connection.send(V1 + ENVIRON);
      const response = connection.response('GET', PATIENCE_MS);
      const status = await within(response);
      const inside = status === '200' ? addresses((await response).text()) : status;
      connection.close();
      return [`before TLS: ${before.join()}`, `inside: ${inside}`];
    },
    differs: {
      nunicorn: 'comes before TLS',
      gunicorn: 'is looked for inside TLS',
      why: 'The specification, and what proxies send',
    },
  },
  {
    name: 'sync, a client that does not begin the handshake',
    run: async (server) => {
      await server.ready();
      const silent = await Connection.open(parseBind(server.binds[0] ?? ''));
      const answer = await patient(server);
      silent.close();
      return [answer];
    },
    differs: {
      nunicorn: 'others are served',
      gunicorn: 'others wait for it',
      why: 'It holds no thread, and no connection for longer than --header-timeout',
    },
  },
  {
    name: 'a certificate that is renewed',
    options: {
      app: APP,
      tls,
      args: (kind) => {
        use(kind, files);
        return ['--certfile', changeable(kind).cert, '--keyfile', changeable(kind).key];
      },
    },
    run: async (server) => {
      await server.ready();
      use(server.kind, renewed);
      const at = await certificateOf(server);
      server.kill('SIGHUP');
      await until(
        async () => (await certificateOf(server).catch(() => '')) === 'renewed-server',
        'the new one',
        30_000,
      );
      return [`the next connection: ${at}`, 'after HUP: renewed-server'];
    },
    differs: {
      nunicorn: 'is used after HUP',
      gunicorn: 'is used by the next connection',
      why: "The master reads it: the key may be root's alone, and a bad file changes nothing",
    },
  },
  {
    name: 'a certificate that is none',
    options: { app: APP, args: ['--certfile', nonsense, '--keyfile', files.key] },
    run: async (server) => {
      await until(() => server.hasExited || /Booting worker/.test(server.log), 'an end or a worker', 30_000);
      return [server.hasExited ? `exit code ${(await server.exit()).code}` : 'it starts'];
    },
    differs: {
      nunicorn: 'ends the start',
      gunicorn: 'fails each handshake',
      why: 'One line at the start instead of a server that answers nobody',
    },
  },
]);
