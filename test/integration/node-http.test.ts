// What a Node app can do with HTTP is the same however its requests are run.
import { strict as assert } from 'node:assert';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { Connection, exchange } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { withNginx } from '../helpers/nginx.ts';
import { NODE_APPS } from '../helpers/paths.ts';
import { type Address, freePort, isListening } from '../helpers/ports.ts';
import { finishing, Server, withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;
const APP = './node/http.mjs';
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
const RUNS_TYPESCRIPT = major > 22 || (major === 22 && minor >= 18);

const KINDS: Readonly<Record<string, readonly string[]>> = {
  async: ['-k', 'async'],
  'async, two threads': ['-k', 'async', '--threads', '2'],
  gthread: ['-k', 'gthread'],
};

async function ask(address: Address, request: string): Promise<string> {
  const connection = await Connection.open(address);
  await connection.send(request);
  await connection.end();
  const { pending } = connection;
  connection.close();
  return pending;
}

for (const [kind, args] of Object.entries(KINDS)) {
  describe(kind, { skip }, () => {
    it('HTTP/1.0, HEAD, 304, 204, early hints, trailers, pipelined requests', async () => {
      await withServer({ app: APP, args }, async (server) => {
        const { address } = server;
        const old = await ask(address, 'GET /pieces HTTP/1.0\r\n\r\n');
        assert.match(old, /^HTTP\/1\.[01] 200 OK\r\n/);
        assert.doesNotMatch(old, /Transfer-Encoding/i);
        assert.match(old, /\r\n\r\nonetwo$/);

        const kept = await exchange(address, 'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n');
        assert.deepEqual([kept.status, kept.text()], [200, 'hello\n']);

        const head = await exchange(address, 'HEAD /length HTTP/1.1\r\nHost: test\r\n\r\n');
        assert.deepEqual([head.status, head.header('content-length'), head.keptOpen], [200, '1234', true]);

        for (const status of [204, 304]) {
          const connection = await server.connect();
          await connection.send(
            `GET /status-${status} HTTP/1.1\r\nHost: test\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n`,
          );
          const bodyless = await connection.response();
          assert.deepEqual([bodyless.status, bodyless.header('etag'), bodyless.framing], [status, '"1"', 'none']);
          assert.equal((await connection.response()).text(), 'hello\n');
          connection.close();
        }

        const hinted = await server.get('/hints');
        assert.deepEqual(
          hinted.interim.map(({ status, headers }) => [status, headers('link')]),
          [
            [103, ['</a.css>; rel=preload; as=style']],
            [103, ['</b.css>; rel=preload; as=style']],
          ],
        );
        assert.equal(hinted.text(), 'hinted');

        assert.match(
          await ask(address, 'GET /trailer HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n'),
          /\r\n4\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n$/,
        );

        const pipelined = await server.connect();
        const paths = ['/late', '/', '/pieces', '/length'];
        await pipelined.send(paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`).join(''));
        const bodies: string[] = [];
        for (const _ of paths) bodies.push((await pipelined.response()).text());
        assert.deepEqual(bodies, ['late', 'hello\n', 'onetwo', 'x'.repeat(1234)]);
        pipelined.close();
      });
    });

    it('what is no HTTP behind a request costs it neither its answer nor those before it theirs', async () => {
      await withServer({ app: APP, args }, async ({ address }) => {
        const late = 'GET /late HTTP/1.1\r\nHost: test\r\n';
        for (const bytes of [`${late}Connection: close\r\n\r\n${late}\r\n`, `${late}\r\nNO HTTP\r\n\r\n`]) {
          const text = await ask(address, bytes);
          assert.match(text, /^HTTP\/1\.1 200 OK\r\n/);
          assert.equal(text.split('HTTP/1.1 ').length, 2, text);
          assert.match(text, /\r\nConnection: close\r\n[\s\S]*late/);
        }
        const chunked = 'POST /late HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n';
        assert.match(await ask(address, `${chunked}5\r\nhelloX\r\n0\r\n\r\n`), /^HTTP\/1\.1 400 Bad Request\r\n/);
      });
    });

    it('an app that says Connection: close has its connection closed behind the answer', async () => {
      await withServer({ app: APP, args }, async ({ address }) => {
        for (const path of ['/last', '/last-pieces', '/not-kept']) {
          const next = 'GET / HTTP/1.1\r\nHost: test\r\n\r\n';
          const text = await ask(address, `GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n${next}`);
          assert.match(text, /\r\nConnection: close\r\n/);
          assert.doesNotMatch(text, /hello/);
        }
      });
    });

    it('strictContentLength: more than the Content-Length says is an error', async () => {
      await withServer({ app: APP, args }, async (server) => {
        assert.equal((await server.get('/strict')).text(), 'TCH');
      });
    });

    it('the response has the connection of its request until it is over, and can end it', async () => {
      await withServer({ app: APP, args }, async (server) => {
        assert.deepEqual(JSON.parse((await server.get('/socket')).text()), [true, '127.0.0.1', true]);
        await server.marked('socket-after-null');
        const connection = await server.connect();
        await connection.send('GET /destroy-socket HTTP/1.1\r\nHost: test\r\n\r\n');
        await connection.end();
        assert.doesNotMatch(connection.pending, /\r\n0\r\n\r\n$/);
        await server.marked('socket-destroyed');
        connection.close();
      });
    });

    for (const name of ['', ':server']) {
      it(`an app that is exported${name} and listens later does so where it is served, and nowhere else`, async () => {
        const port = await freePort();
        const options = { app: `./node/listens_later.cjs${name}`, args, env: { OWN_PORT: String(port) } };
        await withServer(options, async (server) => {
          await until(() => server.stdout.includes(`begins at ${server.port}\n`), 'the app to begin');
          assert.equal((await server.get('/')).text(), 'exported');
          assert.equal(await isListening({ host: '127.0.0.1', port }), false);
        });
      });
    }

    it('an app that says it is ready before it is loaded gets no request before', async () => {
      await withServer({ app: './node/early.mjs', args: [...args, '--wait-ready'] }, async (server) => {
        assert.equal((await server.get('/')).text(), 'made');
      });
    });

    it('what is no Request for a fetch handler is a 400, and no error of the app', async () => {
      await withServer({ app: './node/fetch.mjs', args }, async (server) => {
        for (const head of [
          'GET / HTTP/1.1\r\nHost: a b',
          'POST / HTTP/1.1\r\nHost: a@b\r\nContent-Length: 0',
          'OPTIONS * HTTP/1.1\r\nHost: a',
          'TRACE / HTTP/1.1\r\nHost: a',
        ]) {
          const connection = await server.connect();
          await connection.send(`${head}\r\n\r\n`);
          assert.equal((await connection.response()).status, 400, head);
          connection.close();
        }
        assert.doesNotMatch(server.log, /Error handling request/);
      });
    });

    it('tools that trace requests see them', async () => {
      await withServer({ app: './node/traced.mjs', args }, async (server) => {
        assert.equal((await server.get('/x')).text(), 'channel /x true,emit /x');
      });
    });

    it('100-continue is sent before the body is', async () => {
      await withServer({ app: APP, args }, async (server) => {
        const connection = await server.connect();
        await connection.send('POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n');
        assert.equal(await connection.readThrough('\r\n\r\n'), 'HTTP/1.1 100 Continue\r\n\r\n');
        await connection.send('body');
        assert.equal((await connection.response()).text(), 'body');
        connection.close();
      });
    });

    it('server-sent events leave one by one and end with their client', async () => {
      await withServer({ app: APP, args }, async (server) => {
        const connection = await server.connect();
        await connection.send('GET /events HTTP/1.1\r\nHost: test\r\n\r\n');
        for (let number = 1; number <= 3; number++) {
          await connection.readThrough(`data: ${number}\n\n`);
          server.mark(`event-${number}`);
        }
        connection.close();
        await server.marked('events-closed');
      });
    });

    it('a header that cannot be sent is an error of the app, one in latin-1 leaves as bytes', async () => {
      await withServer({ app: APP, args }, async (server) => {
        for (const path of ['/split', '/bare-split', '/nul', '/wide', '/trailer-length']) {
          const response = await server.get(path);
          assert.deepEqual([response.status, response.header('x-injected')], [500, undefined], path);
        }
        assert.equal((await server.get('/latin-1')).header('x-name'), 'caf\xe9');
      });
    });

    it('headers may be given to writeHead() in an object without a prototype', async () => {
      await withServer({ app: APP, args }, async (server) => {
        assert.deepEqual((await server.get('/bare')).headers('x-a'), ['one', 'two']);
        const both = await server.get('/bare-and-set');
        assert.deepEqual(
          [both.headers('x-a'), both.headers('x-b')],
          [
            ['one', 'two'],
            ['three', 'four'],
          ],
        );
      });
    });

    it('a request does not run in the async context of the one before', async () => {
      await withServer({ app: APP, args }, async (server) => {
        const client = async (): Promise<string[]> => {
          const connection = await server.connect();
          const seen: string[] = [];
          for (let request = 0; request < 50; request++) {
            await connection.send('GET /context HTTP/1.1\r\nHost: test\r\n\r\n');
            seen.push((await connection.response()).text());
          }
          connection.close();
          return seen;
        };
        const answers = (await Promise.all(Array.from({ length: 10 }, client))).flat();
        assert.deepEqual(new Set(answers), new Set(['none']));
      });
    });

    it('a response that is destroyed ends its connection, and whoever waits for the end hears of it', async () => {
      await withServer({ app: APP, args }, async (server) => {
        const connection = await server.connect();
        await connection.send('GET /destroy HTTP/1.1\r\nHost: test\r\n\r\n');
        await connection.readThrough('one');
        await connection.end();
        connection.close();
        await server.marked('response-closed');
        await server.marked('request-closed');
      });
    });

    it('a request that the app has not read is closed after its answer', async () => {
      await withServer({ app: APP, args }, async (server) => {
        const body = 'POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody';
        assert.equal((await exchange(server.address, body)).text(), 'unread');
        await server.marked('unread-closed');
      });
    });

    for (const [name, app, answer] of [
      ['an exported http.Server', './node/http.mjs:server', 'of the server'],
      ['a factory that calls listen()', './node/http.mjs:listening', 'of the listening server'],
    ] as const) {
      it(name, async () => {
        await withServer({ app, args }, async (server) => {
          assert.equal((await server.get('/')).text(), answer);
        });
      });
    }

    it('TypeScript, where Node runs it', { skip: !RUNS_TYPESCRIPT }, async () => {
      const files = {
        'app.ts': `import type { IncomingMessage, ServerResponse } from 'node:http';
const greeting: string = 'typed';
export default (_: IncomingMessage, response: ServerResponse): void => void response.end(greeting);
`,
      };
      await withServer({ app: './app.ts', chdir: '{home}', files, args }, async (server) => {
        assert.equal((await server.get('/')).text(), 'typed');
      });
    });

    it('an error at the import names the file and the line', async () => {
      await finishing(await Server.spawn({ app: './node/broken.mjs', args }), async (server) => {
        assert.equal((await server.exit()).code, 3);
        assert.match(server.log, /Exception in worker process\nError: broken at import\n.*broken\.mjs:2/);
      });
    });
  });
}

it('a WebSocket behind nginx, under async', { skip }, async () => {
  const bind = `127.0.0.1:${await freePort()}`;
  const options = { app: './node/frameworks/ws.mjs', env: { NODE_APPS }, bind: [bind] };
  await withServer(options, async (server) => {
    const locationLines =
      'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";';
    await withNginx({ upstream: bind, locationLines }, async (nginx) => {
      const connection = await Connection.open(nginx.address);
      await connection.send(
        'GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
          'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
      );
      await server.marked('connected');
      assert.match(await connection.readThrough('hello'), /^HTTP\/1.1 101 /);
      connection.close();
    });
  });
});
