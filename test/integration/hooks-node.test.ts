// Server hooks that are functions of a nunicorn.config file: those of the master in a Node process of their own, those of a worker in
// the workers of a Node app.
import { strict as assert } from 'node:assert';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { Server, type ServerOptions, withServer } from '../helpers/server.ts';
import { type Act, stops, transcriptOf } from '../helpers/transcript.ts';

const CONFIG = join(FIXTURES, 'hooks', 'master.config.mjs');
const WORKER_CONFIG = join(FIXTURES, 'hooks', 'worker.config.mjs');
const REQUEST_CONFIG = join(FIXTURES, 'hooks', 'request.config.mjs');
const PYTHON = 'hooks.app:application';
const LISTENER = './node/listener.cjs';
const APPS: readonly (readonly [string, Partial<ServerOptions>])[] = [
  ['a Python app', { app: PYTHON }],
  ['a Python app with --preload', { app: PYTHON, args: ['--preload'] }],
  ['a Node app', { app: LISTENER }],
];

const transcript = (options: Partial<ServerOptions>, act: Act, config = CONFIG): Promise<string[]> =>
  transcriptOf('nunicorn', config, options, act);

const named = (lines: readonly string[], ...names: string[]): string[] =>
  lines.filter((line) => names.includes(line.split(' ')[0] ?? ''));

const hookProcesses = (server: Server): number[] =>
  server.processes().flatMap(({ title, pid }) => (title.startsWith('nunicorn: hooks') ? [pid] : []));

/** Starts with a configuration file of that text, and waits for the end. */
async function ends(config: string, app = PYTHON): Promise<{ readonly code: number | null; readonly output: string }> {
  const files = { 'nunicorn.config.mjs': config };
  const server = await Server.spawn({ app, args: ['-c', '{home}/nunicorn.config.mjs'], files });
  try {
    const { code } = await server.exit();
    await server.nothingLeft();
    return { code, output: server.output };
  } finally {
    server.destroy();
  }
}

describe('hooks of the master in a nunicorn.config file', { skip: !NUNICORN_RUNS }, () => {
  for (const [what, options] of APPS) {
    it(`are called from the start to the end: ${what}`, async () => {
      const lines = await transcript(options, async (server, all) => {
        assert.equal(hookProcesses(server).length, 1);
        assert.match(server.log, /\[INFO\] the hook says so/);
        await stops('SIGTERM')(server, all);
      });
      assert.deepEqual(
        lines.filter((line) => line !== 'app imported'),
        [
          'nworkers_changed 1 null 1',
          'on_starting true 0 1',
          'when_ready kept http true Master 0',
          'pre_fork 1 null true',
          'child_exit 1 number false',
          'on_exit kept 0',
        ],
      );
    });
  }

  it('TTIN and TTOU change the number of workers, HUP runs the file again in the same process', async () => {
    const lines = await transcript({ app: PYTHON }, async (server, all) => {
      const before = hookProcesses(server);
      server.kill('SIGTTIN');
      await until(() => server.workers().length === 2, 'two workers');
      server.kill('SIGTTOU');
      await until(() => named(all(), 'child_exit').length === 1, 'one worker');
      server.kill('SIGHUP');
      await until(() => named(all(), 'child_exit').length === 2, 'another worker');
      assert.deepEqual(hookProcesses(server), before);
      await stops('SIGTERM')(server, all);
    });
    assert.deepEqual(lines.filter((line) => line !== 'app imported').slice(3), [
      'pre_fork 1 null true',
      'nworkers_changed 2 1 1',
      'pre_fork 2 null true',
      'nworkers_changed 1 2 1',
      'child_exit 2 number false',
      'nworkers_changed 1 1 1',
      'on_reload kept',
      'pre_fork 3 null true',
      'child_exit 1 number false',
      'child_exit 2 number false',
      'on_exit kept 0',
    ]);
  });

  it('HUP calls the functions as they are now, adds hooks and takes them away', async () => {
    const files = { 'nunicorn.config.mjs': 'export default {};\n' };
    await withServer({ app: PYTHON, args: ['-c', '{home}/nunicorn.config.mjs'], files }, async (server) => {
      assert.deepEqual(hookProcesses(server), []);
      const reload = async (config: string): Promise<void> => {
        const from = server.log.length;
        writeFileSync(join(server.home, 'nunicorn.config.mjs'), config);
        server.kill('SIGHUP');
        await server.waitForLog(/Reloaded: all workers are ready/, { from });
      };
      await reload('export default { pre_fork(server) { server.log.info("one"); } };\n');
      assert.equal(hookProcesses(server).length, 1);
      assert.match(server.log, /\[INFO\] one/);
      const from = server.log.length;
      await reload('export default { pre_fork(server) { server.log.info("two"); } };\n');
      assert.match(server.log.slice(from), /\[INFO\] two/);
      assert.doesNotMatch(server.log.slice(from), /\[INFO\] one/);
      await reload('export default {};\n');
      assert.deepEqual(hookProcesses(server), []);
      assert.equal((await server.get('/')).status, 200);
    });
  });

  it('pre_exec runs before an upgrade, the hooks of the start in the new master too', async () => {
    const lines = await transcript({ app: PYTHON }, async (server, all) => {
      server.kill('SIGUSR2');
      await until(() => named(all(), 'on_starting').length === 2, 'the new master');
      const [, pid = '0'] = await server.waitForLog(/the new master is pid (\d+)/);
      await until(() => server.log.split('Started: all workers are ready').length === 3, 'its workers', 30_000);
      process.kill(Number(pid), 'SIGTERM');
      await until(() => named(all(), 'on_exit').length === 1, 'its end');
    });
    assert.equal(named(lines, 'pre_exec').length, 1);
  });

  it('their process is replaced when it dies, and knows what there is', async () => {
    const lines = await transcript({ app: PYTHON, workers: 2 }, async (server, all) => {
      process.kill(hookProcesses(server)[0] ?? 0, 'SIGKILL');
      await server.waitForLog(
        /\[ERROR\] The process of the hooks \(pid:\d+\) ended \(SIGKILL\): another one is started/,
      );
      await until(() => named(all(), 'when_ready').length === 2, 'the hooks of the start');
      assert.equal((await server.get('/')).status, 200);
      process.kill(server.workers()[0] ?? 0, 'SIGKILL');
      await until(() => named(all(), 'child_exit').length === 1, 'child_exit');
      await until(() => server.workers().length === 2, 'two workers');
    });
    assert.equal(named(lines, 'pre_fork').length, 3);
  });

  for (const app of [PYTHON, LISTENER]) {
    for (const [what, hook, code] of [
      ['an error in on_starting', 'on_starting() { throw new Error("no"); }', 1],
      ['a rejection in when_ready', 'async when_ready() { throw new Error("no"); }', 1],
      ['an error in nworkers_changed', 'nworkers_changed() { throw new Error("no"); }', 1],
      ['an error in pre_fork', 'pre_fork() { throw new Error("no"); }', 255],
      ['process.exit(7) in on_starting', 'on_starting() { process.exit(7); }', 7],
      ['process.exit(7) in pre_fork', 'pre_fork() { process.exit(7); }', 7],
    ] as const) {
      it(`${what} ends the start of ${app} with exit code ${code}`, async () => {
        const { code: seen, output } = await ends(`export default { ${hook} };`, app);
        assert.equal(seen, code, output);
        if (!what.startsWith('process'))
          assert.match(output, /Exception in \w+ hook\nError: no\n +at .*nunicorn\.config/);
      });
    }
  }

  it('an error in on_exit, or in child_exit while the server runs, is the exit code', async () => {
    for (const [hook, code] of [
      ['on_exit', 1],
      ['child_exit', 255],
    ] as const) {
      const files = { 'nunicorn.config.mjs': `export default { ${hook}() { throw new Error("no"); } };` };
      const server = await Server.start({ app: PYTHON, args: ['-c', '{home}/nunicorn.config.mjs'], files });
      try {
        if (hook === 'child_exit') process.kill(server.workers()[0] ?? 0, 'SIGKILL');
        else server.kill('SIGTERM');
        assert.deepEqual(await server.exit(40_000), { code, signal: null }, server.output);
        await server.nothingLeft();
      } finally {
        server.destroy();
      }
    }
  });

  it('TERM ends a server whose on_starting hangs', async () => {
    const files = {
      'nunicorn.config.mjs': 'export default { on_starting: () => new Promise(() => setInterval(() => {}, 1000)) };',
    };
    const server = await Server.spawn({ app: PYTHON, args: ['-c', '{home}/nunicorn.config.mjs'], files });
    try {
      await until(() => hookProcesses(server).length === 1, 'the process of the hooks');
      server.kill('SIGTERM');
      assert.deepEqual(await server.exit(), { code: 0, signal: null }, server.output);
      await server.nothingLeft();
    } finally {
      server.destroy();
    }
  });

  it('stand beside hooks of Python, which are named', async () => {
    const config = `
      import { appendFileSync } from 'node:fs';
      export default {
        post_fork: 'hooks.by_name.post_fork',
        when_ready: () => appendFileSync(process.env.TRANSCRIPT, 'when_ready of JavaScript\\n'),
      };`;
    const options = { app: PYTHON, files: { 'mixed.config.mjs': config } };
    const lines = await transcript(options, async () => {}, '{home}/mixed.config.mjs');
    assert.deepEqual(named(lines, 'when_ready', 'post_fork'), ['when_ready of JavaScript', 'post_fork by name']);
  });
});

describe('hooks of a worker in a nunicorn.config file', { skip: !NUNICORN_RUNS }, () => {
  for (const workerClass of ['async', 'gthread']) {
    it(`run in the worker of a Node app under ${workerClass}`, async () => {
      const options = { app: LISTENER, args: ['-k', workerClass] };
      const lines = await transcript(options, stops('SIGINT'), WORKER_CONFIG);
      assert.deepEqual(lines, [
        'pre_fork 1',
        'post_fork 1 1 true true',
        'post_worker_init kept false',
        'worker_int kept',
        'worker_exit kept true',
      ]);
    });
  }

  it('TERM calls worker_exit alone', async () => {
    const lines = await transcript({ app: LISTENER }, stops('SIGTERM'), WORKER_CONFIG);
    assert.deepEqual(lines.slice(3), ['worker_exit kept true']);
  });

  it('post_fork runs before the app is imported', async () => {
    const files = { 'app.mjs': 'const text = globalThis.setByPostFork;\nexport default (_, res) => res.end(text);\n' };
    await transcript(
      { app: './app.mjs', chdir: '{home}', files },
      async (server) => assert.equal((await server.get('/')).text(), 'yes'),
      WORKER_CONFIG,
    );
  });

  for (const hook of ['post_fork', 'post_worker_init']) {
    it(`an error in ${hook} ends the start with exit code 3`, async () => {
      const { code, output } = await ends(`export default { ${hook}() { throw new Error("no"); } };`, LISTENER);
      assert.equal(code, 3, output);
      assert.match(output, /Error: no/);
    });
  }

  const ECHO = `(req, res) => {
    if (req.url === '/throw' && req.own) throw new Error('of the app');
    res.end(String(req.own));
  }`;
  const KINDS_OF_APP = {
    'a listener': `export default ${ECHO};\n`,
    'a server of its own': `import { createServer } from 'node:http';\ncreateServer(${ECHO}).listen();\n`,
  };
  for (const [what, text] of Object.entries(KINDS_OF_APP)) {
    for (const [how, args] of [
      ['async', ['-k', 'async']],
      ['async with two threads', ['-k', 'async', '--threads', '2']],
      ['gthread', ['-k', 'gthread', '--threads', '2']],
    ] as const) {
      it(`pre_request and post_request are called around each request: ${what}, ${how}`, async () => {
        const options = { app: './app.mjs', chdir: '{home}', files: { 'app.mjs': text }, args: [...args] };
        const lines = await transcript(
          options,
          async (server, all) => {
            assert.equal((await server.get('/a?b', 'X-Own: 1\r\n')).text(), 'kept');
            assert.equal((await server.get('/refuse')).status, 500);
            assert.equal((await server.get('/refuse-later')).status, 500);
            assert.equal((await server.get('/after')).text(), 'kept');
            await server.waitForLog(/Exception in post_request hook\nError: post_request fails/);
            assert.match(server.log, /Error handling request GET \/refuse\nError: pre_request fails/);
            assert.equal((await server.get('/last')).text(), 'kept');
            await until(() => all().includes('post_request GET /last 200 true kept'), 'the last one');
          },
          REQUEST_CONFIG,
        );
        const of = (path: string): string[] => lines.filter((line) => line.includes(` ${path} `));
        assert.deepEqual(of('/a?b'), ['pre_request 1 GET /a?b 1', 'post_request GET /a?b 200 true kept']);
        assert.deepEqual(
          of('/refuse').map((line) => line.split(' ')[0]),
          ['pre_request', 'post_request'],
        );
      });
    }
  }

  it('is refused for a Python app, with where it belongs', async () => {
    const { code, output } = await ends('export default {\n  post_fork() {},\n};');
    assert.equal(code, 1);
    assert.match(output, /post_fork runs in the workers, .* write it in gunicorn\.conf\.py \(from .*config\.mjs:2\)/);
    const request = await ends('export default { pre_request() {} };');
    assert.match(request.output, /pre_request runs in the workers, .* write it in gunicorn\.conf\.py/);
  });
});
