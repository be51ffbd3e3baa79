// Node apps under -k async: the app in the event loop of the worker.
import { strict as assert } from 'node:assert';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../helpers/deadline.ts';
import { get } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { finishing, Server, withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;
const APP = './node/listener.cjs';

async function text(server: Server, path: string): Promise<string> {
  return (await server.get(path, '', 20_000)).text();
}

describe('what an app may be', { skip }, () => {
  const FORMS: readonly [string, string][] = [
    ['./node/listener.cjs', 'hello\n'],
    ['./node/listener.cjs:other', 'the other one'],
    ['./node/fetch.mjs', 'fetched'],
    ['./node/fetch.mjs:plain', 'plain GET'],
    ['./node/fetch.mjs:factory', 'from a factory'],
  ];
  for (const [app, answer] of FORMS) {
    it(`${app}`, async () => {
      await withServer({ app }, async (server) => {
        assert.equal(await text(server, '/'), answer);
        await server.waitForLog(/Using worker: async/);
      });
    });
  }

  it('a program that calls listen() is served at --bind, and ends by its own handler for SIGTERM', async () => {
    await withServer({ app: './node/program.cjs', workers: 2 }, async (server) => {
      assert.match(await text(server, '/x'), /^program \d+ \/x$/);
      await until(() => server.stdout.split(`"port":${server.port}`).length === 3, 'its own word of where it listens');
      const pids = server.workers();
      server.kill('SIGTERM');
      assert.deepEqual(await server.exit(), { code: 0, signal: null });
      for (const pid of pids) assert.ok(server.hasMark(`closed-${pid}`), `${pid} of ${readdirSync(server.home)}`);
    });
  });

  for (const name of ['', ':listener']) {
    it(`two_servers.cjs${name}: of several servers the one that is exported is served, the other listens where it says`, async () => {
      await withServer({ app: `./node/two_servers.cjs${name}` }, async (server) => {
        assert.equal(await text(server, '/'), 'the app');
        const port = (): number => Number(/figures at (\d+)/.exec(server.stdout)?.[1] ?? 0);
        await until(() => port() > 0, 'the other server to listen');
        assert.equal((await get({ host: '127.0.0.1', port: port() })).text(), 'figures');
      });
    });
  }

  it('an error at the top level of a program that listens already is not lost', async () => {
    await finishing(await Server.spawn({ app: './node/fails_late.mjs' }), async (server) => {
      await server.waitForLog(/Uncaught error in the application\nError: failed when it listened/);
    });
  });

  it('an app that listens to its parent hears nothing of what the master and its worker say', async () => {
    await withServer({ app: './node/child.cjs' }, async (server) => {
      assert.equal(await text(server, '/'), 'child');
      server.kill('SIGTERM');
      assert.deepEqual(await server.exit(), { code: 0, signal: null });
      assert.doesNotMatch(server.log, /no work/);
    });
  });

  it('a worker whose app has closed its server is replaced', async () => {
    await withServer({ app: './node/program.cjs' }, async (server) => {
      const [before] = server.workers();
      await text(server, '/close');
      await server.waitForLog(/The application has closed its server/);
      assert.doesNotMatch(await text(server, '/x'), new RegExp(`program ${before} `));
    });
  });

  const MISTAKES: readonly [string, number, RegExp][] = [
    ['./node/missing.js', 4, /there is no file .*missing\.js/],
    ['./node/fetch.mjs:absent', 4, /has no export 'absent'; it has default, factory, nothing, plain/],
    ['./node/fetch.mjs:nothing', 4, /is no app but number/],
    ['./node/broken.mjs', 3, /Exception in worker process\nError: broken at import\n.*broken\.mjs:2/],
    ['./node/fails_behind.cjs', 3, /Exception in worker process\nError: failed behind listen\(\)/],
    ['./node/syntax.mjs', 3, /syntax\.mjs:2/],
  ];
  for (const [app, code, log] of MISTAKES) {
    it(`${app} ends the start with ${code} and says why`, async () => {
      await finishing(await Server.spawn({ app }), async (server) => {
        assert.equal((await server.exit()).code, code);
        assert.match(server.log, log);
      });
    });
  }
});

it('--check-config loads a Node app', { skip }, async () => {
  for (const [app, code] of [
    [APP, 0],
    ['./node/program.cjs', 0],
    ['./node/broken.mjs', 1],
  ] as const) {
    const server = await Server.spawn({ app, args: ['--check-config'] });
    assert.equal((await server.exit()).code, code, app);
    server.destroy();
  }
});

it('--check-config refuses a program that will not serve anything', {
  skip,
}, async () => {
  const server = await Server.spawn({ app: './node/guarded.cjs', args: ['--check-config'] });
  assert.equal((await server.exit()).code, 1);
  assert.match(server.log, /Error: .*guarded\.cjs exports no app and has called no listen\(\).*named with -c/);
  server.destroy();
});

describe('requests and answers', { skip }, () => {
  it('headers, status and bodies go through as node:http gives and takes them', async () => {
    await withServer({ app: APP }, async (server) => {
      const made = await server.get('/cookies');
      assert.deepEqual([made.status, made.reason, made.text()], [201, 'Made', 'made']);
      assert.deepEqual(made.headers('set-cookie'), ['a=1', 'b=2']);
      const unchanged = await server.get('/not-modified');
      assert.deepEqual([unchanged.status, unchanged.text()], [304, '']);
      const echo = JSON.parse(await text(server, '/echo?a=%20')) as { url: string; peer: string };
      assert.deepEqual([echo.url, echo.peer], ['/echo?a=%20', '127.0.0.1']);
    });
  });

  it('a body of 20 MB is read as it comes', async () => {
    await withServer({ app: APP }, async (server) => {
      const body = randomBytes(20_000_000);
      const response = await fetch(`http://127.0.0.1:${server.port}/hash`, { method: 'POST', body });
      assert.equal(await response.text(), createHash('sha256').update(body).digest('hex'));
    });
  });

  it('a fetch handler gets the body as a stream and answers with one', async () => {
    await withServer({ app: './node/fetch.mjs' }, async (server) => {
      const response = await fetch(`http://127.0.0.1:${server.port}/echo`, { method: 'POST', body: 'some text' });
      assert.deepEqual(
        [response.status, response.headers.get('x-method'), await response.text()],
        [201, 'POST', 'some text'],
      );
      assert.deepEqual((await server.get('/cookies')).headers('set-cookie'), ['a=1', 'b=2']);
      assert.equal((await server.get('/throw')).status, 500);
      await server.waitForLog(/thrown by fetch/);
    });
  });

  it('the limits of the server hold', async () => {
    const args = ['--limit-request-line', '100', '--limit-request-fields', '12', '--limit-request-body', '10'];
    await withServer({ app: APP, args }, async (server) => {
      assert.equal((await server.get(`/${'x'.repeat(200)}`)).status, 414);
      assert.equal((await server.get('/', 'A: 1\r\n'.repeat(13))).status, 431);
      // Who is refused while it sends hears why, and no reset.
      for (const [status, start] of [
        [431, 'GET / HTTP/1.1\r\nHost: test\r\nX-Long: '],
        [400, 'no HTTP\r\n'],
      ] as const) {
        const sender = await server.connect();
        void sender.send(start + 'x'.repeat(10_000_000));
        assert.equal((await sender.response()).status, status);
        assert.equal(await sender.end(), 'fin');
        sender.close();
      }
      const large = await fetch(`http://127.0.0.1:${server.port}/hash`, { method: 'POST', body: 'x'.repeat(20) });
      assert.equal(large.status, 413);
      const chunked = await server.connect();
      await chunked.send(
        'POST /hash HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n6\r\n789012\r\n0\r\n\r\n',
      );
      assert.equal((await chunked.response('POST')).status, 413);
      chunked.close();
    });
  });

  it("a request that only the app's own listener for Expect hears is finished at a reload", async () => {
    await withServer({ app: './node/program.cjs', args: ['--keep-alive', '1'] }, async (server) => {
      const connection = await server.connect();
      await connection.send('POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n');
      await server.marked('begun');
      server.kill('SIGHUP');
      await server.waitForLog(/Reloaded: all workers are ready/);
      await sleep(2500); // by then an idle connection would have been closed
      server.mark('go');
      assert.equal((await connection.response('POST')).text(), 'continued');
      connection.close();
    });
  });

  it('what the app says to its parent is no word of the server', async () => {
    const files = {
      'app.mjs': `for (const word of [null, 7, 'stopped', { op: 'stopped' }, { op: 'stuck' }]) process.send(word);
export default (_, response) => response.end('said');
`,
    };
    await withServer({ app: './app.mjs', chdir: '{home}', files, args: ['-k', 'async'] }, async (server) => {
      assert.equal(await text(server, '/'), 'said');
    });
  });

  it('HEAD of an endless body is answered', async () => {
    await withServer({ app: './node/fetch.mjs' }, async (server) => {
      const connection = await server.connect();
      await connection.send('HEAD /endless HTTP/1.1\r\nHost: test\r\n\r\nHEAD / HTTP/1.1\r\nHost: test\r\n\r\n');
      for (let answer = 0; answer < 2; answer++) assert.equal((await connection.response('HEAD')).status, 200);
      connection.close();
    });
  });

  it('the access log tells who a client was that left, and of none that left before its answer began', async () => {
    const args = ['--access-logfile', '-', '--access-logformat', '%(h)s %(m)s %(U)s %(s)s'];
    await withServer({ app: APP, args }, async (server) => {
      for (const path of ['/never', '/stream']) {
        const connection = await server.connect();
        await connection.send(`GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
        if (path === '/never') await server.get('/');
        else await server.marked('streaming');
        connection.close();
      }
      await until(() => / GET \/stream /.test(server.stdout), 'the line of /stream');
      assert.match(server.stdout, /^127\.0\.0\.1 GET \/stream 200$/m);
      assert.doesNotMatch(server.stdout, /never/);
    });
  });

  it('the access log has a line for each', async () => {
    await withServer({ app: APP, args: ['--access-logfile', '-', '--timeout', '1'] }, async (server) => {
      await server.get('/cookies');
      await server.get('/never');
      await until(() => /"GET \/cookies HTTP\/1.1" 201 4 /.test(server.stdout), 'the line of /cookies');
      await until(() => /"GET \/never HTTP\/1.1" 504 \d{2,} /.test(server.stdout), 'the line of /never');
    });
  });
});

describe('what goes wrong', { skip }, () => {
  it('a request that overruns --timeout gets 504 and its signal is aborted', async () => {
    await withServer({ app: APP, args: ['--timeout', '1'] }, async (server) => {
      const pid = await text(server, '/pid');
      assert.equal((await server.get('/never', '', 20_000)).status, 504);
      await server.marked('aborted-TimeoutError');
      await server.waitForLog(/WORKER TIMEOUT.*GET \/never/);
      assert.equal(await text(server, '/pid'), pid);
    });
  });

  it('a client that leaves aborts the signal', async () => {
    await withServer({ app: APP }, async (server) => {
      const connection = await server.connect();
      await connection.send('GET /never HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.get('/');
      connection.close();
      await server.marked('aborted-AbortError');
    });
  });

  it('what the listener throws is a 500 with its stack in the log', async () => {
    await withServer({ app: APP }, async (server) => {
      const pid = await text(server, '/pid');
      for (const path of ['/throw', '/reject']) {
        assert.equal((await server.get(path)).status, 500, path);
        await server.waitForLog(
          new RegExp(`Error handling request GET ${path}\\nError: .* by the listener\\n.*listener.cjs`),
        );
      }
      assert.equal(await text(server, '/pid'), pid);
    });
  });

  for (const path of ['/throw-later', '/reject-later']) {
    it(`${path}: an error that nobody caught replaces the worker, its neighbours finish`, async () => {
      await withServer({ app: APP }, async (server) => {
        const pid = await text(server, '/pid');
        const neighbour = server.get('/hold', '', 20_000);
        await server.marked('held');
        const failing = server.get(path, '', 20_000);
        await server.waitForLog(/Uncaught error in the application\nError: (thrown|rejected) by/);
        // At once: it has 5 s, and on a busy machine the next worker may take longer.
        server.mark('go-on');
        assert.equal((await neighbour).text(), 'went on');
        await until(async () => (await text(server, '/pid')) !== pid, 'another worker', 20_000);
        assert.equal((await failing).status, 502);
      });
    });
  }

  it('a handler that computes: a request that came meanwhile is served, although its connection seems idle', async () => {
    await withServer({ app: APP, args: ['--keep-alive', '1'] }, async (server) => {
      const connection = await server.connect();
      await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
      assert.equal((await connection.response()).status, 200);
      await sleep(300); // it has been seen idle
      const computing = server.get('/compute?1500', '', 20_000);
      await server.marked('computing');
      await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
      assert.equal((await computing).status, 200);
      assert.equal((await connection.response('GET', 20_000)).status, 200);
    });
  });

  it('a handler that computes: the head of a request that came meanwhile is not late', async () => {
    await withServer({ app: APP, args: ['--header-timeout', '1'] }, async (server) => {
      const connection = await server.connect();
      const computing = server.get('/compute?2500', '', 20_000);
      await server.marked('computing');
      await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
      assert.equal((await computing).status, 200);
      assert.equal((await connection.response('GET', 20_000)).status, 200);
      assert.doesNotMatch(server.log, /Request timeout/);
      const late = await server.connect();
      await late.send('GET / HTT');
      assert.equal((await late.response('GET', 20_000)).status, 408);
    });
  });

  it('a worker whose event loop stands still is replaced', async () => {
    await withServer({ app: APP, args: ['--timeout', '1', '--graceful-timeout', '2'] }, async (server) => {
      const connection = await server.connect();
      await connection.send('GET /loop HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.marked('looping');
      await server.waitForLog(/worker 1 has not answered for 1 s/, { ms: 20_000 });
      assert.equal((await server.get('/', '', 20_000)).status, 200);
      connection.close();
    });
  });

  it('a worker that ends is replaced', async () => {
    await withServer({ app: APP }, async (server) => {
      await server.get('/exit').catch(() => {});
      await server.waitForLog(/exited with code 7/);
      assert.equal((await server.get('/', '', 20_000)).status, 200);
    });
  });
});
