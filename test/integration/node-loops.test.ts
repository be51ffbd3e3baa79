// Node apps under -k async with --threads: several event loops in one worker, each with any number of requests at a time.
import { strict as assert } from 'node:assert';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import type { Connection } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { type Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const skip = !NUNICORN_RUNS;
const APP = './node/listener.cjs';
const LOOPS = ['-k', 'async', '--threads', '2'];

async function text(server: Server, path: string): Promise<string> {
  return (await server.get(path, '', 20_000)).text();
}

/** More than a window of them. */
const LARGE = 8_000_000;

function upgradeOf(path: string): string {
  return (
    `GET ${path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
    'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
  );
}

/** Of so many requests at a time: which threads answered. */
async function threads(server: Server): Promise<Set<string>> {
  return new Set(await Promise.all(Array.from({ length: 40 }, () => text(server, '/thread'))));
}

describe('several event loops in one worker', { skip }, () => {
  it('each runs many requests at a time, and the least busy one gets the next', async () => {
    await withServer({ app: APP, args: LOOPS }, async (server) => {
      await server.waitForLog(/Using worker: async/);
      await server.waitForLog(/1 worker x 2 threads = 2 event loops/);
      const held = Array.from({ length: 20 }, () => server.get('/hold', '', 30_000));
      await server.marked('held');
      assert.equal((await threads(server)).size, 2);
      server.mark('go-on');
      for (const answer of await Promise.all(held)) assert.equal(answer.text(), 'went on');
      assert.equal(server.workers().length, 1);
    });
  });

  it('a loop that computes holds up only what it has itself', async () => {
    await withServer({ app: APP, args: [...LOOPS, '--timeout', '3'] }, async (server) => {
      const pid = await text(server, '/pid');
      const looping = server.get('/loop', '', 30_000);
      await server.marked('looping');
      const others = new Set<string>();
      for (let i = 0; i < 10; i++) others.add(await text(server, '/thread'));
      assert.equal(others.size, 1);
      assert.equal((await looping).status, 504);
      await server.waitForLog(
        /WORKER TIMEOUT.*thread \d has not answered for 3 s and is ended\n {4}at \/loop \(.*listener/,
      );
      await until(async () => (await threads(server)).size === 2, 'two threads again', 20_000);
      assert.equal(await text(server, '/pid'), pid);
    });
  });

  it('a request that overruns --timeout gets 504, its signal is aborted, its thread goes on', async () => {
    await withServer({ app: APP, args: [...LOOPS, '--timeout', '2'] }, async (server) => {
      const before = await threads(server);
      assert.equal((await server.get('/never', '', 20_000)).status, 504);
      await server.marked('aborted-TimeoutError');
      await server.waitForLog(/WORKER TIMEOUT.*GET \/never, .* in thread \d$/m);
      assert.deepEqual([...(await threads(server))].sort(), [...before].sort());
    });
  });

  it('a client that leaves aborts the signal', async () => {
    await withServer({ app: APP, args: LOOPS }, async (server) => {
      const connection = await server.connect();
      await connection.send('GET /never HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.seenByFront();
      connection.close();
      await server.marked('aborted-AbortError');
    });
  });

  it('what the listener throws is a 500, what nobody catches a 502 when its neighbours are done', async () => {
    await withServer({ app: APP, args: LOOPS }, async (server) => {
      const pid = await text(server, '/pid');
      assert.equal((await server.get('/reject', '', 20_000)).status, 500);
      const neighbours = Array.from({ length: 6 }, () => server.get('/hold', '', 30_000));
      await server.marked('held');
      const failing = server.get('/throw-later', '', 30_000);
      await server.waitForLog(/Uncaught error in the application, in thread \d\nError: thrown by a timer/);
      server.mark('go-on');
      for (const answer of await Promise.all(neighbours)) assert.equal(answer.text(), 'went on');
      assert.equal((await failing).status, 502);
      await until(async () => (await threads(server)).size === 2, 'two threads again', 20_000);
      assert.equal(await text(server, '/pid'), pid);
    });
  });

  it('a thread whose app fails before it has served anything is replaced later each time', async () => {
    const app = `const { existsSync } = require('node:fs');
const timer = setInterval(() => {
  if (!existsSync('broken')) return;
  clearInterval(timer);
  throw new Error('broken on purpose');
}, 10);
module.exports = (_, response) => response.end('hello');
`;
    const options = { app: './app.cjs', chdir: '{home}', files: { 'app.cjs': app }, args: LOOPS };
    await withServer(options, async (server) => {
      server.mark('broken');
      const failures = (): number => server.log.split('in thread 1\nError: broken on purpose').length - 1;
      await until(() => failures() >= 2, 'the first that has served nothing', 30_000);
      const since = performance.now();
      await until(() => failures() >= 5, 'three more', 60_000);
      // 0.25 + 0.5 + 1 s
      assert.ok(performance.now() - since > 1500, 'tried again at once');
    });
  });

  it('--max-requests replaces threads under load, and HUP workers: nothing is lost', async () => {
    await withServer({ app: APP, args: [...LOOPS, '--max-requests', '100'] }, async (server) => {
      const load = new Load({ address: server.address, clients: 8, keepAlive: true });
      const seen = new Set<string>();
      await until(
        async () => {
          seen.add(await text(server, '/thread'));
          return seen.size > 4;
        },
        'more than four threads seen',
        60_000,
      );
      const [pid] = server.workers();
      server.kill('SIGHUP');
      await until(() => server.workers().every((one) => one !== pid), 'another worker', 30_000);
      assert.deepEqual([...(await load.stop()).keys()], ['200']);
    });
  });

  it('an app takes connections over: bytes go both ways as they are, also while a client does not read', async () => {
    await withServer({ app: './node/upgrade.cjs', args: LOOPS }, async (server) => {
      const connections = await Promise.all(Array.from({ length: 4 }, () => server.connect()));
      for (const connection of connections) {
        await connection.send(upgradeOf('/echo'));
        assert.match(
          await connection.readThrough('\r\n\r\n'),
          /^HTTP\/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n/,
        );
        await connection.send('there ');
        assert.equal(await connection.readThrough('there '), 'there ');
      }
      const [first, second] = connections as [Connection, Connection];
      first.socket.pause();
      const sent = first.send(Buffer.alloc(LARGE, 'x'));
      const all = first.send('and back');
      // A connection that has been taken over is beside the others, not in their place.
      assert.equal(await text(server, '/'), 'ok');
      await second.send('and back');
      assert.equal(await second.readThrough('and back'), 'and back');
      first.socket.resume();
      await Promise.all([sent, all]);
      assert.equal((await first.readThrough('and back', 60_000)).length, LARGE + 'and back'.length);
      first.halfClose();
      assert.equal(await first.end(), 'fin');
      second.reset();
      await server.marked('closed');
      assert.equal(await text(server, '/'), 'ok');
    });
  });

  it('a connection that was taken over has no time limit, and ends with its worker', async () => {
    const args = [...LOOPS, '--timeout', '1', '--keep-alive', '1', '--graceful-timeout', '60'];
    await withServer({ app: './node/upgrade.cjs', args }, async (server) => {
      const connection = await server.connect();
      await connection.send(upgradeOf('/echo'));
      await connection.readThrough('\r\n\r\n');
      // What takes too long is found later than this one would have been.
      assert.equal((await server.get('/never', '', 20_000)).status, 504);
      assert.equal((await server.get('/never', '', 20_000)).status, 504);
      await connection.send('still there');
      assert.equal(await connection.readThrough('still there'), 'still there');
      server.kill('SIGTERM');
      await connection.end();
      assert.equal((await server.exit()).code, 0);
    });
  });

  it('an app may refuse to take a connection over, close it, fail at it, or say nothing', async () => {
    await withServer({ app: './node/upgrade.cjs', args: [...LOOPS, '--timeout', '2'] }, async (server) => {
      for (const [path, status] of [
        ['/refuse', 401],
        ['/silent', 504],
        ['/throw', 500],
      ] as const) {
        const connection = await server.connect();
        await connection.send(upgradeOf(path));
        assert.equal((await connection.response('GET', 20_000)).status, status);
        assert.equal(await connection.end(), 'fin');
      }
      const connection = await server.connect();
      await server.marked('closed-thrown');
      await connection.send(upgradeOf('/destroy'));
      await connection.end();
      assert.equal(await text(server, '/'), 'ok');
    });
  });
});
