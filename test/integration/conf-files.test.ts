// gunicorn.conf.py files as people write them, unchanged: each starts under gunicorn and under nunicorn and does what it says.
import { strict as assert } from 'node:assert';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { isSettingName } from '../../src/settings/table.ts';
import { makeCertificates } from '../helpers/certificates.ts';
import { until } from '../helpers/deadline.ts';
import { KINDS } from '../helpers/matrix.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { type Kind, Server, type ServerOptions, withServer } from '../helpers/server.ts';

interface Told {
  readonly pid: number;
  readonly environ: Readonly<Record<string, string>>;
  readonly scheme: string;
  readonly multithread: boolean;
  readonly migrated: boolean;
}

const FOLDER = join(FIXTURES, 'conf');
const BOOT_MS = 60_000;

async function ask(server: Server, path = '/'): Promise<Told> {
  return JSON.parse((await server.get(path)).text()) as Told;
}

for (const kind of ['nunicorn', 'gunicorn'] satisfies Kind[]) {
  const using = (file: string, more: Partial<ServerOptions> = {}): ServerOptions => ({
    kind,
    app: 'conf_app:application',
    args: ['-c', join(FOLDER, file)],
    bootMs: BOOT_MS,
    ...more,
  });

  /** `needs`: settings of the file that nunicorn has to know before it can take it. */
  const holds = (
    file: string,
    what: string,
    needs: readonly string[],
    test: (server: Server) => Promise<void>,
    more: Partial<ServerOptions> = {},
  ): void => {
    const missing = kind === 'nunicorn' ? needs.filter((name) => !isSettingName(name)) : [];
    const skip = missing.length > 0 ? `not yet: ${missing.join(', ')}` : false;
    it(`${file}: ${what}`, { skip }, () => withServer(using(file, more), test));
  };

  describe(`${kind} with`, { skip: !KINDS.includes(kind) }, () => {
    holds('multiprocessing_formula.py', 'as many workers as the formula says', [], async (server) => {
      await until(
        () => server.workers().length === cpus().length * 2 + 1,
        () => `the workers of the formula\n${server.output}`,
        BOOT_MS,
      );
      assert.equal((await ask(server)).multithread, true);
      assert.match(server.log, /Using worker: gthread/);
    });

    holds(
      'hooks_that_log.py',
      'the lines of its hooks, in the places where they belong',
      ['pre_fork', 'pre_exec', 'when_ready'],
      async (server) => {
        assert.equal((await server.get('/shop')).status, 200);
        await server.waitForLog(/\[INFO\] Server is ready\. Spawning workers$/m);
        for (const pid of server.workers())
          await server.waitForLog(new RegExp(`\\[${pid}\\] \\[INFO\\] Worker spawned \\(pid: ${pid}\\)$`, 'm'));
        await server.waitForLog(/\[INFO\] \/shop took 0 s: 200/m);
        await until(() => server.stdout.includes('"GET /shop HTTP/1.1" 200'), 'the access log');
        const workers = server.workers();
        server.kill('SIGTERM');
        await server.exit();
        for (const pid of workers) assert.match(server.log, new RegExp(`Goodbye from worker ${pid}$`, 'm'));
      },
      { workers: 2 },
    );

    {
      const metrics = mkdtempSync(join(tmpdir(), 'nt-prometheus-'));
      holds(
        'prometheus_child_exit.py',
        'the gauges of a dead worker are removed',
        ['child_exit'],
        async (server) => {
          const [victim] = server.workers();
          assert(victim !== undefined);
          const file = `gauge_liveall_${victim}.db`;
          await until(() => readdirSync(metrics).includes(file), 'the file of the worker');
          process.kill(victim, 'SIGKILL');
          await until(
            () => !readdirSync(metrics).includes(file),
            () => `the file to be removed\n${server.output}`,
          );
          await until(() => server.workers().length === 2, 'the next worker', BOOT_MS);
          await server.stop();
          rmSync(metrics, { recursive: true });
        },
        { workers: 2, env: { PROMETHEUS_MULTIPROC_DIR: metrics } },
      );
    }

    holds(
      'migrations_on_starting.py',
      'they are done once, before the first worker',
      ['on_starting'],
      async (server) => {
        const { migrated, environ } = await ask(server);
        assert.equal(migrated, true);
        assert.match(environ.MIGRATED_BY ?? '', /^\d+$/);
        assert.equal([...server.log.matchAll(/\[INFO\] Running migrations$/gm)].length, 1);
        assert.ok(server.log.indexOf('Running migrations') < server.log.indexOf('Booting worker'), server.log);
      },
    );

    // gunicorn's own gevent needs a package more than the test environment has.
    if (kind === 'nunicorn') {
      it('gevent_patch.py: one clear line', async () => {
        const server = await Server.spawn(using('gevent_patch.py'));
        try {
          assert.deepEqual(await server.exit(BOOT_MS), { code: 1, signal: null }, server.output);
          assert.match(
            server.log,
            /^\nError: invalid value for worker_class: 'gevent': nunicorn does not run this worker class; [^\n]* \(from [^\n]*gevent_patch\.py:8\)\n$/,
          );
          await server.nothingLeft();
        } finally {
          server.destroy();
        }
      });
    }

    holds('logging_dict.py', 'both logs in its format', ['logconfig_dict'], async (server) => {
      await server.get('/page');
      await server.waitForLog(/^level=INFO logger=gunicorn\.access message=.*"GET \/page HTTP\/1\.1" 200/m);
      assert.match(server.log, /^level=INFO logger=gunicorn\.error message=Booting worker with pid: \d+$/m);
    });

    holds(
      'docker_environment.py',
      'what the environment says',
      ['worker_tmp_dir'],
      async (server) => {
        await until(() => server.workers().length === 3, 'three workers', BOOT_MS);
        assert.match(server.stdout, /^\{"loglevel": "debug", "workers": 3, "bind": "0\.0\.0\.0:80"/m);
        assert.equal((await ask(server)).multithread, true);
        await until(() => /"GET \/ HTTP\/1\.1" 200/.test(server.stdout), 'the access log');
        assert.doesNotMatch(server.log, /not a setting/);
      },
      { env: { WEB_CONCURRENCY: '3', THREADS: '2', PORT: '80', LOG_LEVEL: 'debug' } },
    );

    holds('raw_env.py', 'the variables reach the application', [], async (server) => {
      const { environ } = await ask(server);
      assert.equal(environ.DJANGO_SETTINGS_MODULE, 'project.settings');
      assert.equal(environ.DATABASE_URL, 'postgres://user:secret@db:5432/name?sslmode=require');
      assert.equal(environ.STARTED_IN, server.home);
    });

    {
      const folder = mkdtempSync(join(tmpdir(), 'nt-tls-'));
      const { ca } = makeCertificates(folder);
      holds(
        'tls.py',
        'HTTPS',
        [],
        async (server) => {
          assert.equal((await ask(server)).scheme, 'https');
          await server.stop();
          rmSync(folder, { recursive: true });
        },
        { env: { CERTIFICATES: folder }, tls: { ca: readFileSync(ca) } },
      );
    }

    const missing = kind === 'nunicorn' && !isSettingName('statsd_host');
    it('statsd.py: its counts arrive', { skip: missing ? 'not yet: statsd_host' : false }, async () => {
      const agent = createSocket('udp4');
      let packets = '';
      agent.on('message', (packet) => {
        packets += `${packet}\n`;
      });
      agent.bind(0, '127.0.0.1');
      await once(agent, 'listening');
      try {
        await withServer(
          using('statsd.py', { env: { STATSD_HOST: `127.0.0.1:${agent.address().port}` } }),
          async (server) => {
            await server.get('/counted');
            for (const name of [
              'shop\\.web\\.gunicorn\\.requests:1\\|c',
              'shop\\.web\\.gunicorn\\.request\\.status\\.200:1\\|c',
            ]) {
              await until(
                () => new RegExp(`^${name}.*#env:test`, 'm').test(packets),
                () => `${name} in ${packets}`,
              );
            }
          },
        );
      } finally {
        agent.close();
      }
    });
  });
}
