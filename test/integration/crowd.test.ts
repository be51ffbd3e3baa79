// More clients than there are descriptors: those who are there are served, workers can still be replaced, the rest hears 503.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { SOON_MS, until } from '../helpers/deadline.ts';
import type { Connection } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;
const DESCRIPTORS = 120;
/** 60 uploads on a busy machine. */
const BUSY_MS = 60_000;

async function ask(connection: Connection): Promise<string> {
  await connection.send('GET /list HTTP/1.1\r\nHost: test\r\n\r\n');
  return (await connection.response()).text();
}

it('clients that take all descriptors keep no worker from being replaced', { skip }, async () => {
  const args = ['--header-timeout', '60', '--keep-alive', '60'];
  await withServer({ app: 'wsgi_matrix:application', descriptors: DESCRIPTORS, args }, async (server) => {
    const before = await server.descriptorsAtRest();
    const first = await server.connect();
    assert.equal(await ask(first), 'hello');
    const crowd: Connection[] = [];
    for (let at = 0; at < 2 * DESCRIPTORS; at++) crowd.push(await server.connect());
    await until(
      () => crowd.some((connection) => connection.pending.startsWith('HTTP/1.1 503 ')),
      () => `a client to be turned away\n${server.output}`,
    );
    await server.waitForLog(/Connections are turned away with 503: .* 120 descriptors \(ulimit -n\)/);
    assert.equal(await ask(first), 'hello');

    const fronts = server.fronts();
    const [worker] = server.workers();
    assert(worker !== undefined);
    process.kill(worker, 'SIGKILL');
    await until(() => server.workers().some((pid) => pid !== worker), 'another worker', SOON_MS);
    assert.equal(await ask(first), 'hello');
    assert.deepEqual(server.fronts(), fronts);

    for (const connection of crowd) connection.reset();
    first.close();
    await until(async () => {
      const connection = await server.connect();
      try {
        return (await ask(connection)) === 'hello';
      } catch {
        return false;
      } finally {
        connection.close();
      }
    }, 'a new client to be served');
    await server.descriptorsBackTo(before);
  });
});

it('many threads have descriptors of their own, also while all workers are replaced', { skip }, async () => {
  // Each front's: 2 x 2 x (3 x 20 + 2) for the workers, and 32 of its own.
  const descriptors = 400;
  const args = ['--header-timeout', '60', '--keep-alive', '60'];
  const options = { app: 'wsgi_matrix:application', descriptors, args, workers: 2, threads: 20 };
  await withServer(options, async (server) => {
    await server.waitForLog(/\[WARNING\] Of 400 descriptors \(.*\) 72 are left for clients: .* need 124, and as many/);
    const crowd: Connection[] = [];
    for (let at = 0; at < descriptors; at++) crowd.push(await server.connect());
    await until(
      () => crowd.filter((connection) => connection.pending.startsWith('HTTP/1.1 503 ')).length >= 20,
      () => `clients to be turned away with 503\n${server.output}`,
    );
    const [first] = crowd;
    assert(first !== undefined);
    assert.equal(await ask(first), 'hello');
    const [before, fronts] = [server.workers(), server.fronts()];
    server.kill('SIGHUP');
    await until(
      () => server.workers().length === 2 && server.workers().every((pid) => !before.includes(pid)),
      () => `new workers\n${server.output}`,
      BUSY_MS,
    );
    assert.deepEqual(server.fronts(), fronts);
    for (const connection of crowd) connection.reset();
    await until(async () => (await server.get('/list').catch(() => null))?.text() === 'hello', 'a client to be served');
  });
});

it('a body for which no file can be opened is a 503, and the others are served', { skip }, async () => {
  const args = ['--header-timeout', '60', '--body-timeout', '60'];
  await withServer({ app: 'wsgi_matrix:application', descriptors: DESCRIPTORS, args }, async (server) => {
    const uploads: Connection[] = [];
    // Each is a connection and a file, and 67 of either kind there may be; 82 until even a 503 is too much.
    for (let at = 0; at < 42; at++) {
      const connection = await server.connect();
      await connection.send('POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 300001\r\n\r\n');
      await connection.send(Buffer.alloc(300_000, 'x'));
      uploads.push(connection);
    }
    // One line for both, whichever comes first: a connection too many, or a file.
    await server.waitForLog(/turned away with 503: .*, and this process may have 120 descriptors/, { ms: BUSY_MS });
    const answers = await Promise.all(
      uploads.map(async (connection) => {
        await connection.send('x');
        return (await connection.response('POST', BUSY_MS)).status;
      }),
    );
    assert.deepEqual([...new Set(answers)].sort(), [200, 503]);
    for (const connection of uploads) connection.close();
  });
});
