// Server hooks that run in a worker: called in gunicorn's order, with what gunicorn's objects have. Each transcript is that
// of both servers, run with the same configuration file.
import { strict as assert } from 'node:assert';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { KINDS } from '../helpers/matrix.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { isAtRest } from '../helpers/processes.ts';
import { type Kind, Server, withServer } from '../helpers/server.ts';
import { onEach, sameOnBoth, stops, withConfig } from '../helpers/transcript.ts';

const CONFIG = join(FIXTURES, 'hooks', 'worker.conf.py');

describe('hooks of a worker', () => {
  it('see a worker from its fork to its end', async () => {
    const lines = await sameOnBoth(CONFIG, {}, async (server) => {
      assert.match(server.log, /\[INFO\] hello from post_fork/);
      assert.doesNotMatch(server.log, /not shown/);
      for (const path of ['/a%20b?c=d', '/stream', '/raise']) await server.get(path, 'X-Test: 1\r\nCookie: a=b\r\n');
      await stops('SIGTERM')(server, () => []);
    });
    assert.deepEqual(
      lines.map((line) => line.split(' ')[0]),
      [
        'post_fork',
        'app',
        'post_worker_init',
        ...['pre_request', 'post_request', 'pre_request', 'post_request', 'pre_request', 'post_request'],
        'worker_exit',
      ],
    );
    assert.match(
      lines[0] ?? '',
      /^post_fork 1 True True True True False 1 15\.0 0 False 30 True hooks.app:application$/,
    );
    assert.match(lines[3] ?? '', /^pre_request GET \/a%20b\?c=d \/a%20b c=d \(1, 1\) http 127\.0\.0\.1 \[.*'X-TEST'/);
    assert.deepEqual(
      lines.slice(3).filter((line) => line.startsWith('post')),
      [
        'post_request /a%20b /a b 200 OK 5 True',
        'post_request /stream /stream 200 OK 6 True',
        'post_request /raise /raise None 0 True',
      ],
    );
  });

  it('fail as the app does before a request, and harm nobody after it', async () => {
    await sameOnBoth(CONFIG, {}, async (server) => {
      assert.equal((await server.get('/refuse')).status, 500);
      assert.equal((await server.get('/after')).status, 200);
      await server.waitForLog(/Exception in post_request hook\n(.*\n)+ValueError: post_request fails/);
      assert.match(server.log, /Error handling request .*\/refuse\n(.*\n)+ValueError: pre_request fails/);
      assert.equal((await server.get('/again')).status, 200);
    });
  });

  it('give the app the request that pre_request has made of it', async () => {
    await withConfig(
      `
def pre_request(worker, req):
    if req.path.startswith("/old/"):
        req.query = "name=" + req.path[5:]
        req.path = "/environ/b%20c"
        req.uri = req.uri + "#changed"
        req.method = "PUT"
        req.scheme = "https"
        req.headers.remove(("X-GONE", "1"))
        req.headers += [("X-ADDED", "1"), ("X-ADDED", "2"), ("Kept-As-It-Is", "3"), ("CONTENT-TYPE", "text/new")]
`,
      async (path) => {
        const environs: Record<string, unknown>[] = [];
        for (const kind of KINDS as Kind[]) {
          await withServer({ kind, app: 'wsgi_matrix:application', args: ['-c', path] }, async (server) => {
            const { body } = await server.get('/old/a%20b?c=d', 'X-Gone: 1\r\nX-Here: 1\r\n');
            const { REMOTE_PORT, SERVER_PORT, HTTP_HOST, SERVER_SOFTWARE, ...environ } = JSON.parse(String(body));
            environs.push(environ);
          });
        }
        const names = ['REQUEST_METHOD', 'PATH_INFO', 'QUERY_STRING', 'RAW_URI', 'wsgi.url_scheme', 'CONTENT_TYPE'];
        for (const environ of environs) {
          assert.deepEqual(
            names.map((name) => environ[name]),
            ['PUT', '/environ/b c', 'name=a%20b', '/old/a%20b?c=d#changed', 'https', 'text/new'],
          );
          const headers = Object.keys(environ).filter((name) => name.startsWith('HTTP_'));
          assert.deepEqual(headers.sort(), ['HTTP_CONNECTION', 'HTTP_Kept_As_It_Is', 'HTTP_X_ADDED', 'HTTP_X_HERE']);
          assert.equal(environ.HTTP_X_ADDED, '1,2');
        }
      },
    );
  });

  it('find the settings under their names, and as gunicorn keeps them', async () => {
    await withConfig(
      `
def post_fork(server, worker):
    settings = server.cfg.settings
    worker.log.info("settings %s %s %s", settings["bind"].get()[0], settings["preload_app"].value, settings["threads"].name)
`,
      async (path) => {
        for (const kind of KINDS as Kind[]) {
          await withServer({ kind, app: 'hooks.app:application', args: ['-c', path] }, async (server) => {
            assert.match(server.log, /settings 127\.0\.0\.1:\d+ False threads/);
          });
        }
      },
    );
  });

  it('worker.alive = False ends the worker after its request, and another takes its place', async () => {
    await onEach(CONFIG, {}, async (server, lines) => {
      const [before = 0] = server.workers();
      assert.equal((await server.get('/recycle')).status, 200);
      await until(
        () => lines().some((line) => line.startsWith('worker_exit')) && !server.workers().includes(before),
        () => `a new worker\n${server.output}`,
      );
      await server.ready();
      assert.equal((await server.get('/after-all')).status, 200);
      assert.equal(lines().filter((line) => line.startsWith('post_worker_init')).length, 2);
    });
  });

  it('worker_int is called at a quick stop, worker_exit after it', async () => {
    const lines = await sameOnBoth(CONFIG, {}, stops('SIGINT'));
    assert.deepEqual(lines.slice(-2), ['worker_int False True', 'worker_exit True True 1']);
  });

  it('worker_int is called in a worker that gets SIGQUIT, worker_abort in one that gets SIGABRT', async () => {
    for (const [signal, hook] of [
      ['SIGQUIT', 'worker_int False True'],
      ['SIGABRT', 'worker_abort False'],
    ] as const) {
      await onEach(CONFIG, { threads: 2 }, async (server, lines) => {
        const [pid = 0] = server.workers();
        // At SIGABRT `faulthandler` reads the stacks of all threads, which may crash on one that runs.
        await until(() => isAtRest(pid), 'its threads to rest');
        process.kill(pid, signal);
        await until(
          () => lines().includes(hook) && !server.workers().includes(pid),
          () => `${hook}\n${lines().join('\n')}\n${server.output}`,
        );
        await server.ready();
      });
    }
  });

  it('a post_request that takes its time holds up neither its client nor the next request', async () => {
    await withConfig(
      `
import os, time
def post_request(worker, req):
    if req.path == "/slow":
        while not os.path.exists(os.path.join(os.environ["HOME"], "go")):
            time.sleep(0.01)
`,
      async (path) => {
        await withServer({ app: 'hooks.app:application', threads: 2, args: ['-c', path] }, async (server) => {
          assert.equal(String((await server.get('/slow')).body), 'hello');
          for (let at = 0; at < 20; at++) assert.equal((await server.get('/')).status, 200);
          server.mark('go');
        });
      },
    );
  });

  it('with two or three arguments, as a dotted name, and called by every thread', async () => {
    await withConfig(
      `
pre_request = "hooks.by_name.pre_request"
def post_request(worker, req, environ):
    worker.log.info("three %s %s", req.path, environ["PATH_INFO"])
`,
      async (path) => {
        for (const kind of KINDS as Kind[]) {
          await withServer(
            { kind, app: 'hooks.app:application', threads: 2, args: ['-c', path], env: { PYTHONPATH: FIXTURES } },
            async (server) => {
              await server.get('/x%20y');
              await server.waitForLog(/by name GET \/x%20y\n(.*\n)*.*three \/x%20y \/x y/);
            },
          );
        }
      },
    );
  });

  for (const [what, config, code] of [
    ['post_fork', 'def post_fork(server, worker): raise ValueError("no")', 3],
    ['post_worker_init', 'def post_worker_init(worker): raise ValueError("no")', 3],
    ['a hook with the wrong number of arguments', 'def post_fork(worker): pass', 1],
    ['a hook that is no function', 'worker_exit = 5', 1],
    ['a hook that cannot be imported', 'worker_exit = "no.such.hook"', 1],
  ] as const) {
    it(`an error in ${what} ends the start with exit code ${code}`, async () => {
      await withConfig(config, async (path) => {
        for (const kind of KINDS as Kind[]) {
          const server = await Server.spawn({ kind, app: 'hooks.app:application', args: ['-c', path] });
          assert.deepEqual(await server.exit(), { code, signal: null }, server.output);
          if (kind === 'nunicorn') await server.nothingLeft();
          server.destroy();
        }
      });
    });
  }

  it('that change a setting are told where to assign it', { skip: !KINDS.includes('nunicorn') }, async () => {
    await withConfig('def post_fork(server, worker): server.cfg.set("timeout", 120)', async (path) => {
      const server = await Server.spawn({ app: 'hooks.app:application', args: ['-c', path] });
      assert.deepEqual(await server.exit(), { code: 3, signal: null }, server.output);
      assert.match(server.log, /a hook cannot change timeout: assign it in the configuration file/);
      server.destroy();
    });
  });
});
