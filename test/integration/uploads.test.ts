// Large and slow request bodies: they hold no thread, no memory and, afterwards, no file.
import { strict as assert } from 'node:assert';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { it } from 'node:test';
import { fetchLarge } from '../helpers/client.ts';
import { count } from '../helpers/count.ts';
import { until } from '../helpers/deadline.ts';
import { matrix, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { peakResidentMiB } from '../helpers/processes.ts';
import { type Server, withServer } from '../helpers/server.ts';

const MB = 1_000_000;
/** What a process may grow by, however large the body is. */
const FLAT_MIB = 60;

function* pieces(total: number): Generator<Buffer> {
  const piece = randomBytes(65_536);
  for (let left = total; left > 0; left -= piece.length) yield left < piece.length ? piece.subarray(0, left) : piece;
}

async function assertFlat(server: Server, work: () => Promise<void>): Promise<void> {
  // The first body makes the buffers that are kept.
  await fetchLarge(server.address, '/length', pieces(5 * MB), { 'content-length': String(5 * MB) });
  const before = new Map(server.processes().map(({ pid }) => [pid, peakResidentMiB(pid)]));
  await work();
  for (const { pid, title } of server.processes()) {
    const peak = before.get(pid);
    if (peak === undefined) continue;
    const grown = peakResidentMiB(pid) - peak;
    assert.ok(grown < FLAT_MIB, `${title} (${pid}) grew by ${grown} MiB`);
  }
}

/** Folders and files below the server's TMPDIR, without what nunicorn always keeps there. */
function spooled(server: Server): string[] {
  return readdirSync(server.temporary, { recursive: true })
    .map(String)
    .filter((name) => !name.startsWith('nunicorn-'));
}

async function roundTrip(server: Server, size: number): Promise<void> {
  const upload = await fetchLarge(server.address, '/length', pieces(size), { 'content-length': String(size) }, 600_000);
  assert.deepEqual([upload.status, upload.text], [200, String(size)]);
  const download = await fetchLarge(server.address, `/stream/bytes?${size}`, undefined, {}, 600_000);
  assert.deepEqual([download.status, download.length], [200, size]);
}

matrix({ app: 'wsgi_matrix:application', workers: 1 }, (scenario) => {
  scenario('100 MB up with Content-Length and 100 MB down, and no process holds them', async (server) => {
    await assertFlat(server, () => roundTrip(server, 100 * MB));
  });

  scenario('100 MB up, chunked', async (server) => {
    await assertFlat(server, async () => {
      const upload = await fetchLarge(server.address, '/length', pieces(100 * MB), { 'transfer-encoding': 'chunked' });
      assert.deepEqual([upload.status, upload.text], [200, String(100 * MB)]);
    });
  });

  scenario('a large body comes back byte for byte', async (server) => {
    const body = randomBytes(3 * MB);
    const answer = await fetchLarge(server.address, '/echo', [body], { 'content-length': String(body.length) });
    assert.equal(answer.sha256, createHash('sha256').update(body).digest('hex'));
  });

  scenario.differs('uploads that trickle hold no thread', 'each holds one', async (server) => {
    const bodies = await count(server, 'bodies');
    const slow = await Promise.all(Array.from({ length: 16 }, () => server.connect()));
    for (const connection of slow) {
      await connection.send('POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\n\r\n');
      await connection.send('x'.repeat(100_000));
    }
    assert.equal((await server.get('/')).text(), 'ok');
    assert.equal(await count(server, 'bodies'), bodies);
    for (const connection of slow) await connection.send('x'.repeat(100_000));
    for (const connection of slow) {
      assert.equal((await connection.response()).text(), '200000');
      connection.close();
    }
  });

  scenario.differs('requests that stop in the middle of the head hold no thread', 'freeze it', async (server) => {
    const slow = await Promise.all(Array.from({ length: 16 }, () => server.connect()));
    for (const connection of slow) await connection.send('GET / HT');
    assert.equal((await server.get('/')).text(), 'ok');
    for (const connection of slow) await connection.send('TP/1.1\r\nHost: te');
    assert.equal((await server.get('/')).text(), 'ok');
    for (const connection of slow) {
      await connection.send('st\r\n\r\n');
      assert.equal((await connection.response()).text(), 'ok');
      connection.close();
    }
  });

  scenario.differs('an upload broken off leaves neither file nor descriptor', 'calls the app', async (server) => {
    await server.get('/');
    const bodies = await count(server, 'bodies');
    const before = await server.descriptorsAtRest();
    for (let time = 0; time < 5; time++) {
      const connection = await server.connect();
      await connection.send('POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 9000000\r\n\r\n');
      await connection.send(Buffer.alloc(5_000_000, 'x'));
      connection.reset();
    }
    await server.descriptorsBackTo(before);
    await until(
      () => spooled(server).length === 0,
      () => `spooled bodies left: ${spooled(server).join(', ')}`,
    );
    assert.equal(await count(server, 'bodies'), bodies);
  });
});

it('a body over --limit-request-body is a 413', { skip: !NUNICORN_RUNS }, async () => {
  await withServer({ app: 'wsgi_matrix:application', args: ['--limit-request-body', '1000'] }, async (server) => {
    for (const bytes of [
      `POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: 1001\r\n\r\n`,
      `POST /unread HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n${'x'.repeat(1001)}\r\n0\r\n\r\n`,
      'POST /unread HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n',
    ]) {
      const connection = await server.connect();
      await connection.send(bytes);
      const response = await connection.response();
      assert.equal(response.status, 413);
      assert.equal(response.interim.length, 0);
      connection.close();
    }
    assert.equal(await count(server, 'unread'), 0);
    const fits = await server.connect();
    await fits.send(`POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n${'x'.repeat(1000)}`);
    assert.equal((await fits.response()).text(), '1000');
    fits.close();
  });
});

it('a client that stops in the head gets 408 after --header-timeout', { skip: !NUNICORN_RUNS }, async () => {
  await withServer({ app: 'wsgi_matrix:application', args: ['--header-timeout', '1'] }, async (server) => {
    const connection = await server.connect();
    await connection.send('GET / HTTP/1.1\r\nHost:');
    assert.equal((await connection.response()).status, 408);
    await connection.end();
    connection.close();
  });
});

it('a client that stops in the body gets 408 after --body-timeout', { skip: !NUNICORN_RUNS }, async () => {
  await withServer({ app: 'wsgi_matrix:application', args: ['--body-timeout', '1'] }, async (server) => {
    const connection = await server.connect();
    await connection.send('POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello');
    assert.equal((await connection.response()).status, 408);
    await connection.end();
    connection.close();
    assert.equal(await count(server, 'unread'), 0);
  });
});

it('soak: 1 GiB up and down with flat memory', {
  skip: !NUNICORN_RUNS || !process.env.NUNICORN_TEST_SOAK,
  timeout: 900_000,
}, async () => {
  await withServer({ app: 'wsgi_matrix:application', workers: 1, threads: 2 }, async (server) => {
    await assertFlat(server, () => roundTrip(server, 1024 ** 3));
  });
});
