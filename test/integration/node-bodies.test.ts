// Bodies of requests and answers of Node apps: they stream both ways and are held back, under async and gthread alike.
import { strict as assert } from 'node:assert';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../helpers/deadline.ts';
import type { Connection } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { type Server, withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;
const APP = './node/bodies.mjs';
const KINDS = ['async', 'gthread'] as const;
/** More than a thread is given at once, and than the sockets' buffers hold. */
const LARGE = 24_000_000;
const SLOW_MS = 60_000;

function sha256(body: Buffer): string {
  return createHash('sha256').update(body).digest('hex');
}

function head(path: string, more: string): string {
  return `POST ${path} HTTP/1.1\r\nHost: test\r\n${more}\r\n\r\n`;
}

function chunked(body: Buffer, trailers = ''): Buffer {
  const chunks = Array.from({ length: Math.ceil(body.length / 50_000) }, (_, at) => {
    const piece = body.subarray(at * 50_000, (at + 1) * 50_000);
    return Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n')]);
  });
  return Buffer.concat([...chunks, Buffer.from(`0\r\n${trailers}\r\n`)]);
}

interface Hashed {
  readonly bytes: number;
  readonly hash: string;
  readonly trailers: Readonly<Record<string, string>>;
}

async function hashed(connection: Connection): Promise<Hashed> {
  const answer = await connection.response('POST', SLOW_MS);
  assert.equal(answer.status, 200);
  return JSON.parse(answer.text()) as Hashed;
}

/** The most memory that any worker has had, in megabytes. */
function mostMemory(server: Server): number {
  const peaks = server.workers().map((pid) => {
    const [, kilobytes] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1')) ?? [];
    return Number(kilobytes) / 1024;
  });
  return Math.max(...peaks);
}

async function upload(connection: Connection, bytes: number): Promise<void> {
  const piece = Buffer.alloc(1024 * 1024, 'x');
  await connection.send(head('/hash', `Content-Length: ${bytes}`));
  for (let left = bytes; left > 0; left -= piece.length) await connection.send(piece);
}

for (const kind of KINDS) {
  describe(`bodies under ${kind}`, { skip }, () => {
    const options = { app: APP, args: ['-k', kind] };

    it('the app reads a large body while the client still sends it', async () => {
      await withServer(options, async (server) => {
        const body = randomBytes(1_000_000);
        const connection = await server.connect();
        await connection.send(head('/hash', `Content-Length: ${body.length}`));
        await connection.send(body.subarray(0, 600_000));
        await server.marked('begun');
        await connection.send(body.subarray(600_000));
        assert.deepEqual(await hashed(connection), { bytes: body.length, hash: sha256(body), trailers: {} });
      });
    });

    it('a client is held back by an app that does not read, and nothing is lost', async () => {
      await withServer(options, async (server) => {
        const body = randomBytes(LARGE);
        const connection = await server.connect();
        await connection.send(head('/hold', `Content-Length: ${body.length}`));
        const sending = connection.send(body);
        await server.marked('held');
        assert.ok(connection.socket.writableLength > 0, 'all of it was taken');
        server.mark('go-on');
        await sending;
        assert.deepEqual(await hashed(connection), { bytes: body.length, hash: sha256(body), trailers: {} });
      });
    });

    it('an upload and a download of 300 MB pass through little memory', async () => {
      await withServer(options, async (server) => {
        const bytes = 300 * 1024 * 1024;
        const connection = await server.connect();
        await upload(connection, bytes);
        assert.equal((await hashed(connection)).bytes, bytes);
        connection.discard();
        await connection.send(`GET /large HTTP/1.1\r\nHost: test\r\nX-Bytes: ${bytes}\r\nConnection: close\r\n\r\n`);
        await connection.end(SLOW_MS);
        assert.ok(connection.received > bytes);
        // Pieces that nobody needs any more stay until they are collected: on Node 24 up to 200 MB of them. All would be 360.
        assert.ok(mostMemory(server) < 320, `${mostMemory(server)} MB`);
      });
    });

    it('what the app echoes comes back while the rest is still sent', async () => {
      await withServer(options, async (server) => {
        const body = randomBytes(600_000);
        const connection = await server.connect();
        await connection.send(head('/echo', 'Transfer-Encoding: chunked\r\nConnection: close'));
        const bytes = chunked(body);
        await connection.send(bytes.subarray(0, 500_000));
        const first = await connection.readThrough('\r\n\r\n');
        assert.match(first, /^HTTP\/1.1 200/);
        assert.notEqual(await connection.chunk(), undefined);
        await connection.send(bytes.subarray(500_000));
        for (let piece = await connection.chunk(); piece !== ''; piece = await connection.chunk()) {
          assert.notEqual(piece, undefined, 'the end of the connection, before the last chunk');
        }
      });
    });

    for (const size of [1000, 700_000]) {
      it(`trailers behind a body of ${size} bytes`, async () => {
        await withServer(options, async (server) => {
          const body = randomBytes(size);
          const connection = await server.connect();
          await connection.send(head('/hash', 'Transfer-Encoding: chunked\r\nTrailer: X-Sum'));
          await connection.send(chunked(body, 'X-Sum: 42\r\n'));
          assert.deepEqual(await hashed(connection), { bytes: size, hash: sha256(body), trailers: { 'x-sum': '42' } });
        });
      });
    }

    it('an answer before the body is read: the client gets it, and its next request is served', async () => {
      await withServer(options, async (server) => {
        // Under async a connection that closes is closed by node:http, which may lose the answer.
        for (const last of kind === 'async' ? [false] : [false, true]) {
          const connection = await server.connect();
          const more = `Content-Length: ${LARGE}${last ? '\r\nConnection: close' : ''}`;
          const sending = connection.send(Buffer.concat([Buffer.from(head('/refuse', more)), Buffer.alloc(LARGE)]));
          const answer = await connection.response('POST', SLOW_MS);
          assert.deepEqual([answer.status, answer.text(), answer.complete], [422, 'no', true]);
          await sending;
          if (last) continue;
          await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
          assert.equal((await connection.response('GET', SLOW_MS)).status, 200);
          connection.close();
        }
      });
    });

    it('an app may read on after its answer', async () => {
      await withServer(options, async (server) => {
        const connection = await server.connect();
        await connection.send(head('/after', `Content-Length: ${LARGE}`));
        await connection.send(Buffer.alloc(LARGE));
        assert.equal((await connection.response('POST', SLOW_MS)).text(), 'taken');
        await server.marked(`read-${LARGE}`);
      });
    });

    it('a client that leaves in the middle of its body: the app hears of it', async () => {
      await withServer(options, async (server) => {
        const connection = await server.connect();
        await connection.send(head('/abort', 'Content-Length: 1000000'));
        await connection.send(Buffer.alloc(600_000));
        await server.marked('begun');
        connection.close();
        await server.marked('error-ECONNRESET');
        await server.marked('aborted');
        assert.equal((await server.get('/', '', SLOW_MS)).status, 200);
      });
    });

    it('an app that destroys the request ends the connection, and nothing else', async () => {
      await withServer(options, async (server) => {
        const pids = server.workers();
        for (const size of [1000, 700_000]) {
          const connection = await server.connect();
          void connection.send(
            Buffer.concat([Buffer.from(head('/destroy', `Content-Length: ${size}`)), Buffer.alloc(size)]),
          );
          await connection.end();
        }
        assert.equal((await server.get('/', '', SLOW_MS)).status, 200);
        assert.deepEqual(server.workers(), pids);
        assert.doesNotMatch(server.log, /Uncaught|CRITICAL/);
      });
    });

    it('a client that stops in the middle of its body gets 408 after --body-timeout, not 504', async () => {
      const args = [...options.args, '--body-timeout', '2', '--timeout', '1'];
      await withServer({ app: APP, args }, async (server) => {
        const connection = await server.connect();
        await connection.send(head('/abort', 'Content-Length: 1000000'));
        await connection.send(Buffer.alloc(600_000));
        assert.equal((await connection.response('POST', SLOW_MS)).status, 408);
        await server.marked('aborted');
        assert.equal((await server.get('/', '', SLOW_MS)).status, 200);
      });
    });
  });
}

describe('bodies and the threads of gthread', { skip }, () => {
  const options = { app: APP, args: ['-k', 'gthread'] };

  it('a slow client holds no thread: its body is read whole first, and left nowhere', async () => {
    await withServer(options, async (server) => {
      const body = randomBytes(400_000);
      const connection = await server.connect();
      await connection.send(head('/hash', `Content-Length: ${body.length}`));
      await connection.send(body.subarray(0, 100_000));
      await sleep(1200); // so slow is this client
      await connection.send(body.subarray(100_000, 399_000));
      await server.seenByFront();
      assert.equal((await server.get('/', '', SLOW_MS)).status, 200);
      assert.ok(!server.hasMark('begun'));
      await connection.send(body.subarray(399_000));
      assert.equal((await hashed(connection)).hash, sha256(body));
      const left = (): boolean =>
        readdirSync(server.temporary, { recursive: true }).some((name) => String(name).includes('body-'));
      await until(() => !left(), 'the end of the file');
    });
  });

  it('a client that reads slowly holds no thread: up to 1 MiB of its answer is kept for it', async () => {
    // A Unix socket's own buffers are small.
    await withServer({ ...options, bind: ['unix:{home}/s'] }, async (server) => {
      const slow = await server.connect();
      slow.socket.pause();
      await slow.send('GET /large HTTP/1.1\r\nHost: test\r\nX-Bytes: 917504\r\n\r\n');
      await server.seenByFront();
      assert.equal((await server.get('/', '', SLOW_MS)).status, 200);
      slow.socket.resume();
      assert.equal((await slow.response('GET', SLOW_MS)).body.length, 917_504);
    });
  });

  it('a body without a length that grows beyond --limit-request-body gets 413', async () => {
    await withServer({ app: APP, args: [...options.args, '--limit-request-body', '1000000'] }, async (server) => {
      const connection = await server.connect();
      await connection.send(head('/abort', 'Transfer-Encoding: chunked'));
      const body = chunked(Buffer.alloc(2_000_000));
      await connection.send(body.subarray(0, 600_000));
      await server.marked('begun');
      void connection.send(body.subarray(600_000));
      assert.equal((await connection.response('POST', SLOW_MS)).status, 413);
      await server.marked('aborted');
      assert.equal((await server.get('/', '', SLOW_MS)).status, 200);
    });
  });

  it('an app that does not read its body overruns --timeout as any other', async () => {
    const args = [...options.args, '--threads', '2', '--timeout', '2'];
    await withServer({ app: APP, args }, async (server) => {
      const connection = await server.connect();
      await connection.send(head('/hold', `Content-Length: ${LARGE}`));
      void connection.send(Buffer.alloc(LARGE));
      // The app does not read: the time is its own.
      assert.equal((await connection.response('POST', SLOW_MS)).status, 504);
      assert.equal((await server.get('/', '', SLOW_MS)).status, 200);
    });
  });
});
