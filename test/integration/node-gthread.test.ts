// Node apps under -k gthread: one request at a time on each of the worker's threads, the clients kept by its main thread.
import { strict as assert } from 'node:assert';
import { createHash, randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { finishing, Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const skip = !NUNICORN_RUNS;
const APP = './node/listener.cjs';

async function text(server: Server, path: string): Promise<string> {
  return (await server.get(path, '', 20_000)).text();
}

async function threads(server: Server, path = '/thread'): Promise<Set<string>> {
  return new Set(await Promise.all(Array.from({ length: 40 }, () => text(server, path))));
}

describe('requests and answers', { skip }, () => {
  it('an answer is the same as under async', async () => {
    await withServer({ app: APP, threads: 2 }, async (server) => {
      await server.waitForLog(/Using worker: gthread/);
      const made = await server.get('/cookies');
      assert.deepEqual([made.status, made.reason, made.text()], [201, 'Made', 'made']);
      assert.deepEqual(made.headers('set-cookie'), ['a=1', 'b=2']);
      assert.deepEqual(made.headers('x-more'), ['yes']);
      const unchanged = await server.get('/not-modified');
      assert.deepEqual([unchanged.status, unchanged.text(), unchanged.header('etag')], [304, '', '"1"']);
      const echo = JSON.parse(await text(server, '/echo?a=%20')) as { url: string; peer: string };
      assert.deepEqual([echo.url, echo.peer], ['/echo?a=%20', '127.0.0.1']);
      const head = await fetch(`http://127.0.0.1:${server.port}/`, { method: 'HEAD' });
      assert.deepEqual([head.status, await head.text()], [200, '']);
    });
  });

  it('bodies of any size go in whole', async () => {
    await withServer({ app: APP, threads: 2 }, async (server) => {
      for (const size of [1, 1000, 100_000, 20_000_000]) {
        const body = randomBytes(size);
        const response = await fetch(`http://127.0.0.1:${server.port}/hash`, { method: 'POST', body });
        assert.equal(await response.text(), createHash('sha256').update(body).digest('hex'), `${size} bytes`);
      }
    });
  });

  it('a large answer, a streamed one and one with trailers come whole', async () => {
    await withServer({ app: APP, threads: 1, args: ['-k', 'gthread'] }, async (server) => {
      assert.equal((await server.get('/large', '', 30_000)).body.length, 20_000_000);
      const stream = server.get('/stream', '', 20_000);
      await server.marked('streaming');
      server.mark('go-on');
      assert.equal((await stream).text(), 'first\nlast\n');
      const connection = await server.connect();
      await connection.send('GET /trailer HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n');
      await connection.readThrough('X-Sum: 42\r\n\r\n');
    });
  });

  it('a client that leaves in the middle of a stream ends it', async () => {
    await withServer({ app: APP, threads: 2 }, async (server) => {
      const connection = await server.connect();
      await connection.send('GET /stream HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.marked('streaming');
      connection.reset();
      await server.marked('stream-closed');
    });
  });

  it('a client that leaves aborts the signal', async () => {
    await withServer({ app: APP, threads: 2 }, async (server) => {
      const connection = await server.connect();
      await connection.send('GET /never HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.seenByFront();
      connection.close();
      await server.marked('aborted-AbortError');
    });
  });

  it('a time zone that the app sets is not heeded, and the log says where it is', async () => {
    const env = { TZ: 'UTC' };
    await withServer({ app: './node/zone.cjs', threads: 2, env }, async (server) => {
      assert.equal((await server.get('/')).text(), '0');
      await server.waitForLog(/The application sets TZ, to no effect on threads: .* --env TZ=Asia\/Tokyo/);
    });
    const args = ['--env', 'TZ=Asia/Tokyo'];
    await withServer({ app: './node/zone.cjs', threads: 2, env, args }, async (server) => {
      assert.equal((await server.get('/')).text(), '9');
      assert.doesNotMatch(server.log, /TZ/);
    });
  });

  it('a fetch handler and a program that listens run on threads too', async () => {
    await withServer({ app: './node/fetch.mjs', threads: 2 }, async (server) => {
      const response = await fetch(`http://127.0.0.1:${server.port}/echo`, { method: 'POST', body: 'some text' });
      assert.deepEqual([response.status, await response.text()], [201, 'some text']);
    });
    await withServer({ app: './node/program.cjs', threads: 2 }, async (server) => {
      assert.match(await text(server, '/x'), /^program \d+ \/x$/);
    });
  });

  it('a WebSocket is refused in one clear line', async () => {
    await withServer({ app: './node/upgrade.cjs', args: ['-k', 'gthread'] }, async (server) => {
      const refused = await server.get('/echo', 'Upgrade: websocket\r\nConnection: Upgrade\r\n');
      assert.deepEqual([refused.status, refused.text()], [501, 'WebSocket needs -k async\n']);
      await server.waitForLog(/A WebSocket was refused: WebSocket needs -k async$/m);
      assert.equal(await text(server, '/'), 'ok');
    });
  });

  it('each thread runs one request at a time, and any idle one takes the next', async () => {
    await withServer({ app: APP, threads: 3 }, async (server) => {
      const held = server.get('/hold', '', 20_000);
      await server.marked('held');
      assert.equal((await threads(server)).size, 2);
      server.mark('go-on');
      assert.equal((await held).text(), 'went on');
    });
  });
});

describe('what goes wrong', { skip }, () => {
  for (const [path, stack] of [
    ['/never', /^\(in no JavaScript: its event loop waits/m],
    ['/loop', /^ {4}at \/loop \(.*listener\.cjs:\d+:\d+\)\n {4}at module\.exports \(.*listener\.cjs/m],
  ] as const) {
    it(`${path} overruns --timeout: 504, that thread alone is replaced`, async () => {
      await withServer({ app: APP, threads: 2, args: ['--timeout', '2'] }, async (server) => {
        const pid = await text(server, '/pid');
        const load = new Load({ address: server.address, clients: 2, keepAlive: true });
        assert.equal((await server.get(path, '', 20_000)).status, 504);
        await server.waitForLog(new RegExp(`WORKER TIMEOUT.*GET ${path}.*in thread \\d`));
        await server.waitForLog(stack);
        await load.more(50);
        assert.deepEqual([...(await load.stop()).keys()], ['200']);
        await until(async () => (await threads(server)).size === 2, 'two threads again', 20_000);
        assert.equal(await text(server, '/pid'), pid);
      });
    });
  }

  it('a thread that hangs in native code is given up with its worker, its neighbours finish', async () => {
    const args = ['--timeout', '2', '--graceful-timeout', '5'];
    await withServer({ app: APP, threads: 2, args }, async (server) => {
      const pid = await text(server, '/pid');
      const hanging = server.get('/native-sleep', '', 20_000);
      await server.marked('sleeping');
      assert.equal((await hanging).status, 504);
      await server.waitForLog(/^\(in native code, or in a call that blocks\)/m);
      const neighbour = server.get('/stream', '', 20_000);
      await server.marked('streaming');
      await server.waitForLog(/is replaced: a request ran into --timeout/);
      server.mark('go-on');
      assert.equal((await neighbour).text(), 'first\nlast\n');
      await until(async () => (await text(server, '/pid')) !== pid, 'another worker', 30_000);
      const sleeping = (): boolean => server.processes().some(({ title }) => title.startsWith('sleep 3600'));
      await until(() => !sleeping(), 'the end of what the app has started', 30_000);
    });
  });

  it('what the listener throws is a 500, what nobody catches a 502 and another thread', async () => {
    await withServer({ app: APP, threads: 2 }, async (server) => {
      const pid = await text(server, '/pid');
      for (const path of ['/throw', '/reject']) {
        assert.equal((await server.get(path)).status, 500, path);
        await server.waitForLog(
          new RegExp(`Error handling request GET ${path}\\nError: .* by the listener\\n.*listener.cjs`),
        );
      }
      const neighbour = server.get('/hold', '', 20_000);
      await server.marked('held');
      for (const path of ['/throw-later', '/reject-later', '/throw-null', '/exit']) {
        assert.equal((await server.get(path, '', 20_000)).status, 502, path);
      }
      assert.match(
        server.log,
        /Uncaught error in the application, in thread \d\nError: thrown by a timer\n.*listener.cjs/,
      );
      server.mark('go-on');
      assert.equal((await neighbour).text(), 'went on');
      assert.equal(await text(server, '/pid'), pid);
    });
  });

  it('a thread that needs more than --thread-memory-limit is replaced, its request gets 502', async () => {
    await withServer({ app: APP, threads: 2, args: ['--thread-memory-limit', '64'] }, async (server) => {
      const pid = await text(server, '/pid');
      assert.equal((await server.get('/leak', '', 60_000)).status, 502);
      await server.waitForLog(/Thread \d needed more memory/);
      await until(async () => (await threads(server)).size === 2, 'two threads again', 20_000);
      assert.equal(await text(server, '/pid'), pid);
    });
  });
});

describe('life of the threads', { skip }, () => {
  it('--max-requests replaces threads under load, the process stays and nothing is lost', async () => {
    // Clients on a busy machine may be idle for longer than the two seconds of --keep-alive.
    const args = ['--max-requests', '100', '--min-worker-lifetime', '0', '--keep-alive', '60'];
    await withServer({ app: APP, threads: 2, args }, async (server) => {
      const [pid] = server.workers();
      const seen = new Set<string>();
      const looked = performance.now() + 2500; // the master has looked twice who is to be replaced
      const load = new Load({ address: server.address, clients: 4, keepAlive: true });
      await until(
        async () => {
          seen.add(await text(server, '/thread'));
          return seen.size > 5 && performance.now() > looked;
        },
        'more than five threads seen',
        60_000,
      );
      assert.deepEqual([...(await load.stop()).keys()], ['200']);
      assert.deepEqual(server.workers(), [pid]);
    });
  });

  it('a thread whose replacement does not boot goes on, and the next try waits longer each time', async () => {
    const files = {
      'app.mjs': `import { existsSync } from 'node:fs';
if (existsSync('broken')) throw new Error('broken on purpose');
export default (request, response) => response.end('ok');
`,
    };
    const args = ['--max-requests', '1'];
    const options = { app: './app.mjs', chdir: '{home}', files, args: ['-k', 'gthread', ...args] };
    await withServer(options, async (server) => {
      server.mark('broken');
      await text(server, '/');
      const failures = (): number => server.log.split('broken on purpose').length - 1;
      await until(failures, 'the first failure', 30_000);
      const since = performance.now();
      await until(() => failures() >= 5, 'four more', 60_000);
      // 0.25 + 0.5 + 1 + 2 s
      assert.ok(performance.now() - since > 1500, 'tried again at once');
      assert.equal(await text(server, '/'), 'ok');
    });
  });

  it('HUP under load loses nothing', async () => {
    await withServer({ app: APP, workers: 2, threads: 2 }, async (server) => {
      const before = server.workers();
      const loads = [true, false].map(
        (keepAlive) => new Load({ address: server.address, clients: 4, path: '/cpu', keepAlive }),
      );
      server.kill('SIGHUP');
      await until(() => server.log.split('Booting worker').length > 4, 'new workers', 30_000);
      await until(() => server.workers().length === 2, 'two workers', 30_000);
      for (const load of loads) assert.deepEqual([...(await load.stop()).keys()], ['200']);
      assert.deepEqual(
        server.workers().filter((pid) => before.includes(pid)),
        [],
      );
    });
  });

  it('an app that does not load ends the start', async () => {
    await finishing(await Server.spawn({ app: './node/broken.mjs', threads: 2 }), async (server) => {
      assert.equal((await server.exit()).code, 3);
      assert.match(server.log, /Exception in worker process\nError: broken at import\n.*broken\.mjs:2/);
    });
  });

  it('onShutdown runs in each thread', async () => {
    const options = { app: './node/hooks.mjs', threads: 2, args: ['--wait-ready'] };
    await finishing(await Server.spawn(options), async (server) => {
      await server.marked('imported');
      assert.doesNotMatch(server.log, /Listening at/);
      server.mark('be-ready');
      await server.ready();
      await server.stop();
      assert.ok(server.hasMark('shut-down'));
    });
  });

  for (const workerClass of ['async', 'gthread']) {
    const args = ['-k', workerClass, '--threads', '2'];
    it(`${workerClass}: a program ends by its own handler for SIGTERM, which may take its time`, async () => {
      await withServer({ app: './node/ending.cjs', args }, async (server) => {
        assert.equal((await server.get('/')).text(), 'true');
        await server.stop();
        assert.ok(server.hasMark('ended-1') && server.hasMark('ended-2'), server.log);
      });
    });

    it(`${workerClass}: a thread that is replaced and sends itself SIGTERM ends alone`, async () => {
      const options = { app: './node/ending.cjs', args: [...args, '--max-requests', '1'] };
      await withServer(options, async (server) => {
        const before = server.workers();
        assert.equal((await server.get('/')).status, 200);
        await server.marked('ended');
        assert.equal((await server.get('/')).status, 200);
        assert.deepEqual(server.workers(), before);
        assert.doesNotMatch(server.log, /SIGTERM/);
      });
    });
  }

  it('a --graceful-timeout longer than timers of Node is one', async () => {
    const args = ['--graceful-timeout', '3000000'];
    await finishing(await Server.spawn({ app: './node/hooks.mjs', threads: 2, args }), async (server) => {
      await server.ready();
      await server.stop();
      assert.ok(server.hasMark('shut-down'));
      assert.doesNotMatch(server.output, /TimeoutOverflowWarning/);
    });
  });
});
