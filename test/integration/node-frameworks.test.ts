// Real frameworks and a real program, under async and gthread: a page, an upload of 100 MB, server-sent events.
import { strict as assert } from 'node:assert';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { FIXTURES, NEXT_SERVER, NODE_APPS } from '../helpers/paths.ts';
import { freePort, isListening } from '../helpers/ports.ts';
import { type Server, withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;
const UPLOAD_BYTES = 100 * 1024 * 1024;
const PIECE = Buffer.alloc(1024 * 1024, 'x');

/** Sends 100 MB piece by piece, as the server takes them, and gives the answer. */
async function upload(server: Server): Promise<string> {
  return await new Promise<string>((resolve, reject) => {
    const request = httpRequest({ port: server.port, path: '/upload', method: 'POST' }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (piece: string) => {
        body += piece;
      });
      response.on('end', () => resolve(body));
    });
    request.on('error', reject);
    let left = UPLOAD_BYTES / PIECE.length;
    const more = (): void => {
      while (left > 0) {
        left--;
        if (!request.write(PIECE)) {
          request.once('drain', more);
          return;
        }
      }
      request.end();
    };
    more();
  });
}

/** The events as they come: each proves that it was not held back until the end. */
async function events(server: Server): Promise<string[]> {
  const response = await fetch(`http://127.0.0.1:${server.port}/events`);
  assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/);
  const seen: string[] = [];
  const decoder = new TextDecoder();
  for await (const piece of response.body ?? []) {
    seen.push(
      ...decoder
        .decode(piece)
        .split('\n\n')
        .filter((event) => event !== ''),
    );
    // The app waits for this before the next one.
    await server.get(`/go/${seen.length}`);
  }
  return seen;
}

const framework = (name: string): string => `./node/frameworks/${name}.mjs`;
const APPS: readonly (readonly [name: string, app: string])[] = [
  ...['express', 'fastify', 'koa', 'hono'].map((name) => [name, framework(name)] as const),
  ['next', NEXT_SERVER],
];

for (const [mode, threads] of [
  ['async', 1],
  ['gthread', 3],
] as const) {
  describe(`frameworks under ${mode}`, { skip }, () => {
    for (const [name, app] of APPS) {
      it(name, async () => {
        const env = { NODE_APPS };
        await withServer({ app, threads, env }, async (server) => {
          await server.waitForLog(new RegExp(`Using worker: ${mode}`));
          const page = await server.get('/hello/world?x=1');
          assert.deepEqual([page.status, page.text()], [200, `${name} says hello to world, 1`]);
          assert.equal((await server.get('/nowhere')).status, 404);
          assert.equal(await upload(server), String(UPLOAD_BYTES));
          assert.deepEqual(await events(server), ['data: 0', 'data: 1', 'data: 2']);
        });
      });
    }
  });
}

describe('programs that call listen()', { skip }, () => {
  for (const threads of [1, 2]) {
    it(`fastify, ${threads} event loops: exported, it listens later where it is served, and nowhere else`, async () => {
      const app = `const app = require(process.env.NODE_APPS + '/node_modules/fastify')();
app.get('/', async () => 'served');
setTimeout(async () => console.log('listens', await app.listen({ host: '127.0.0.1', port: Number(process.env.OWN_PORT) })), 10);
module.exports = app;
`;
      const port = await freePort();
      const env = { NODE_APPS, OWN_PORT: String(port) };
      const args = ['-k', 'async', '--threads', `${threads}`];
      await withServer({ app: './app.cjs', chdir: '{home}', files: { 'app.cjs': app }, env, args }, async (server) => {
        await until(() => server.stdout.includes(`listens http://127.0.0.1:${server.port}\n`), 'the app to listen');
        assert.equal((await server.get('/')).text(), 'served');
        assert.equal(await isListening({ host: '127.0.0.1', port }), false);
      });
    });
  }

  it('serve, the static file server, started by its own command and ended by its own handler for SIGTERM', async () => {
    const app = `${NODE_APPS}/node_modules/serve/build/main.js`;
    const env = { NO_UPDATE_CHECK: '1' };
    const options = { app, workers: 2, env, readyPath: '/listener.cjs', chdir: join(FIXTURES, 'node') };
    await withServer(options, async (server) => {
      assert.match((await server.get('/listener.cjs')).text(), /module.exports/);
      server.kill('SIGTERM');
      assert.equal((await server.exit()).code, 0);
      assert.match(server.stdout, /Gracefully shutting down/);
    });
  });

  for (const threads of [1, 2]) {
    it(`ws, ${threads} event loops: a WebSocket goes through the upgrade, and closes at the end of its worker`, async () => {
      const options = { app: framework('ws'), env: { NODE_APPS }, args: ['-k', 'async', '--threads', `${threads}`] };
      await withServer(options, async (server) => {
        const connection = await server.connect();
        await connection.send(
          'GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
            'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
        );
        await server.marked('connected');
        assert.match(await connection.readThrough('hello'), /^HTTP\/1.1 101 /);
        server.kill('SIGHUP');
        await connection.end();
      });
    });
  }
});
