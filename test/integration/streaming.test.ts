// A piece reaches the client when it is yielded, not when the next one comes or the buffer is full.
import { strict as assert } from 'node:assert';
import { randomUUID } from 'node:crypto';
import { it } from 'node:test';
import { fetchLarge } from '../helpers/client.ts';
import { count, counted } from '../helpers/count.ts';
import { matrix, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { peakResidentMiB } from '../helpers/processes.ts';
import { withServer } from '../helpers/server.ts';

matrix({ app: 'wsgi_matrix:application', workers: 1, threads: 4 }, (scenario) => {
  for (const path of ['/stream/steps', '/stream/steps-write']) {
    scenario(`each piece of ${path} arrives before the next one is made`, async (server) => {
      const name = randomUUID();
      const connection = await server.connect();
      await connection.send(`GET ${path}?${name} HTTP/1.1\r\nHost: test\r\n\r\n`);
      const head = await connection.readThrough('\r\n\r\n');
      assert.match(head, /Transfer-Encoding: chunked/i);
      for (let step = 0; step < 3; step++) {
        // The app goes on only after the gate was opened, and that only after the piece was here.
        assert.equal(await connection.chunk(), `piece ${step}\n`);
        await server.get(`/open/${name}-${step}`);
      }
      assert.equal(await connection.chunk(), '');
      connection.close();
    });

    scenario(`${path} over HTTP/1.0 is not held back either`, async (server) => {
      const name = randomUUID();
      const connection = await server.connect();
      await connection.send(`GET ${path}?${name} HTTP/1.0\r\n\r\n`);
      await connection.readThrough('\r\n\r\n');
      for (let step = 0; step < 3; step++) {
        assert.equal(await connection.readThrough(`piece ${step}\n`), `piece ${step}\n`);
        await server.get(`/open/${name}-${step}`);
      }
      await connection.end();
      connection.close();
    });
  }

  scenario('100 MB without Content-Length arrive whole, and no process holds them', async (server) => {
    const before = new Map(server.processes().map(({ pid }) => [pid, peakResidentMiB(pid)]));
    const { status, length } = await fetchLarge(server.address, '/stream/bytes?100000000');
    assert.deepEqual({ status, length }, { status: 200, length: 100_000_000 });
    for (const [pid, peak] of before) {
      const grown = peakResidentMiB(pid) - peak;
      assert.ok(grown < 60, `process ${pid} grew by ${grown} MiB`);
    }
  });

  scenario('a client that does not read holds the stream back', async (server) => {
    const closed = await count(server, 'stream-bytes');
    const connection = await server.connect();
    connection.socket.pause();
    const before = new Map(server.processes().map(({ pid }) => [pid, peakResidentMiB(pid)]));
    await connection.send('GET /stream/bytes?400000000 HTTP/1.1\r\nHost: test\r\n\r\n');
    // 100 other requests are time enough to see that the stream waits and the memory stays.
    for (let i = 0; i < 100; i++) await server.get('/');
    assert.equal(await count(server, 'stream-bytes'), closed);
    for (const [pid, peak] of before) {
      const grown = peakResidentMiB(pid) - peak;
      assert.ok(grown < 60, `process ${pid} grew by ${grown} MiB`);
    }
    connection.reset();
    await counted(server, 'stream-bytes', closed + 1, 10_000);
  });
});

it('a thread that a slow client held back at the very end of its answer reads on', {
  skip: !NUNICORN_RUNS,
}, async () => {
  await withServer({ app: 'wsgi_matrix:application', workers: 1, threads: 1 }, async (server) => {
    // The last piece, with the end of the answer behind it, is the one that fills the buffer for some of these sizes.
    for (let size = 1_000_000; size < 9_000_000; size += 55_555) {
      const slow = await server.connect();
      await slow.send(`GET /big?${size} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n`);
      slow.socket.pause();
      await server.seenByFront();
      slow.socket.resume();
      assert.equal((await slow.response()).body.length, size);
      slow.close();
      assert.equal((await server.get('/')).text(), 'ok', `after ${size} bytes`);
    }
  });
});
