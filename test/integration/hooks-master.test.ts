// Server hooks of the master: they run in one process that forks the workers, in gunicorn's order, and what they leave behind is
// there for those after them. Compared with the transcripts of gunicorn, run with the same configuration file.
import { strict as assert } from 'node:assert';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { KINDS } from '../helpers/matrix.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { isAlive } from '../helpers/processes.ts';
import { type Kind, Server, withServer } from '../helpers/server.ts';
import { type Act, onEach, sameOnBoth, stops, transcriptOf, withConfig } from '../helpers/transcript.ts';

const CONFIG = join(FIXTURES, 'hooks', 'master.conf.py');
const none = { skip: !KINDS.includes('nunicorn') };

const seen =
  (...names: string[]) =>
  (lines: string[]): string[] =>
    lines.filter((line) => names.includes(line.split(' ')[0] ?? ''));

const waitFor = async (server: Server, lines: () => string[], pattern: RegExp): Promise<void> => {
  await until(
    () => lines().some((line) => pattern.test(line)),
    () => `${pattern} in\n${lines().join('\n')}\n${server.output}`,
  );
};

describe('hooks of the master', () => {
  it('are called from the start to the end, and share what they set with each other and the workers', async () => {
    const lines = await sameOnBoth(CONFIG, {}, stops('SIGTERM'));
    assert.deepEqual(lines, [
      'nworkers_changed 1 None 1',
      'on_starting 42 True [] 1',
      "when_ready kept ['http'] Master 0",
      'pre_fork 1 [booting] True True',
      'post_fork 1 kept yes 42',
      'app imported',
      'child_exit 1 True False',
      'on_exit kept 0',
    ]);
  });

  it('with --preload the app is imported before on_starting, once', async () => {
    const lines = await sameOnBoth(CONFIG, { args: ['--preload'], workers: 2 }, stops('SIGTERM'), (all) =>
      all.filter((line) => !/^(post_fork|child_exit) /.test(line)),
    );
    assert.deepEqual(lines.slice(0, 3), ['nworkers_changed 2 None 2', 'app imported', 'on_starting 42 True [] 2']);
    assert.equal(lines.filter((line) => line === 'app imported').length, 1);
  });

  it('TTIN and TTOU change the number of workers', async () => {
    const act: Act = async (server, lines) => {
      server.kill('SIGTTIN');
      await waitFor(server, lines, /^post_fork 2/);
      await until(() => server.workers().length === 2, 'two workers');
      server.kill('SIGTTOU');
      await waitFor(server, lines, /^child_exit/);
      await stops('SIGTERM')(server, lines);
    };
    const names = ['nworkers_changed', 'on_starting', 'when_ready', 'pre_fork', 'on_exit'];
    const lines = await sameOnBoth(CONFIG, {}, act, seen(...names));
    assert.deepEqual(seen('nworkers_changed')(lines).slice(1), ['nworkers_changed 2 1 1', 'nworkers_changed 1 2 1']);
  });

  it('HUP runs the file again in the process that has run on_starting', async () => {
    const act: Act = async (server, lines) => {
      server.kill('SIGHUP');
      await waitFor(server, lines, /^child_exit/);
      await stops('SIGTERM')(server, lines);
    };
    const names = ['nworkers_changed', 'on_starting', 'when_ready', 'on_reload', 'pre_fork', 'on_exit'];
    const lines = await sameOnBoth(CONFIG, {}, act, seen(...names));
    assert.deepEqual(lines.slice(4), [
      'nworkers_changed 1 1 1',
      'on_reload kept',
      'pre_fork 2 [booting] True True',
      'on_exit kept 0',
    ]);
  });

  it('HUP with --preload: the next mold runs the hooks of the start too', none, async () => {
    const lines = await transcriptOf('nunicorn', CONFIG, { args: ['--preload'] }, async (server, now) => {
      server.kill('SIGHUP');
      await waitFor(server, now, /^on_reload/);
      await until(() => now().filter((line) => line.startsWith('post_fork')).length === 2, 'the next worker');
      await server.ready();
    });
    assert.equal(lines.filter((line) => line.startsWith('on_starting')).length, 2);
    assert.ok(lines.findLastIndex((line) => line.startsWith('on_starting')) < lines.indexOf('on_reload kept'));
  });

  const PORT_IN_WHEN_READY = `
import os, socket
listener = socket.socket(socket.AF_UNIX)
def on_starting(server):
    server.log.info("on_starting %d", len(server.LISTENERS))
def when_ready(server):
    path = os.path.join(os.environ["HOME"], "metrics")
    with socket.socket(socket.AF_UNIX) as other:
        if other.connect_ex(path) == 0 or os.path.exists(os.environ["HOME"] + "/taken"):
            raise OSError("the port is taken")
    if os.path.exists(path):
        os.unlink(path)
    listener.bind(path)
    listener.listen()
    server.log.info("when_ready %d", len(server.LISTENERS))
def pre_fork(server, worker):
    server.log.info("pre_fork %d", len(server.LISTENERS))
`;

  it('HUP with --preload: what when_ready opens is free, for the mold before has ended', none, async () => {
    await withConfig(PORT_IN_WHEN_READY, async (path) => {
      const options = { app: 'hooks.app:application', workers: 2, args: ['--preload', '-c', path] };
      await withServer(options, async (server) => {
        const hooks = (): string[] => server.log.match(/(?<=\] )(on_starting|when_ready|pre_fork) \d/g) ?? [];
        const first = ['on_starting 0', 'when_ready 1', 'pre_fork 1', 'pre_fork 1'];
        assert.deepEqual(hooks(), first);
        const next = ['on_starting 1', 'pre_fork 1', 'pre_fork 1', 'when_ready 1'];
        for (const round of [1, 2]) {
          const molds = server.molds();
          server.kill('SIGHUP');
          await until(() => hooks().length === 4 + 4 * round, 'when_ready of the next mold');
          assert.deepEqual(hooks().slice(-4), next);
          assert.equal(server.molds().length, 1);
          assert.notDeepEqual(server.molds(), molds);
          assert.equal((await server.get('/')).status, 200);
        }
      });
    });
  });

  it('HUP with --preload: where when_ready fails the server goes on, and says so', none, async () => {
    await withConfig(PORT_IN_WHEN_READY, async (path) => {
      const options = { app: 'hooks.app:application', workers: 2, args: ['--preload', '-c', path] };
      await withServer(options, async (server) => {
        const before = server.workers();
        writeFileSync(join(server.home, 'taken'), '');
        server.kill('SIGHUP');
        await server.waitForLog(/when_ready has failed after a reload: the server goes on without what it does/);
        assert.match(server.log, /Exception in when_ready hook/);
        assert.equal(before.filter((pid) => server.workers().includes(pid)).length, 0);
        assert.equal((await server.get('/')).status, 200);
      });
    });
  });

  it('child_exit is called for a worker that is killed', async () => {
    await onEach(CONFIG, {}, async (server, lines) => {
      process.kill(server.workers()[0] ?? 0, 'SIGKILL');
      await waitFor(server, lines, /^child_exit 1 True False/);
      await until(() => server.workers().length === 1, 'the next worker');
    });
  });

  it('a process of their own exists only where they are set', none, async () => {
    const molds = (server: Server): number => server.processes().filter(({ title }) => title.includes('mold')).length;
    await withConfig('def post_fork(server, worker): pass', async (path) => {
      await withServer({ app: 'hooks.app:application', args: ['-c', path] }, async (server) => {
        assert.equal(molds(server), 0);
      });
    });
    await transcriptOf('nunicorn', CONFIG, {}, async (server) => assert.equal(molds(server), 1));
  });

  it('the death of their process is told once, and another one takes its place', none, async () => {
    await transcriptOf('nunicorn', CONFIG, { workers: 2 }, async (server, lines) => {
      const mold = server.processes().find(({ title }) => title.includes('mold'))?.pid ?? 0;
      process.kill(mold, 'SIGKILL');
      await server.waitForLog(
        /\[ERROR\] The mold \(pid:\d+\) has died; its workers go on until a new one replaces them/,
      );
      for (let at = 0; at < 20; at++) assert.equal((await server.get('/')).status, 200);
      await until(() => lines().filter((line) => line.startsWith('post_fork')).length === 4, 'two workers more');
      await until(() => server.workers().length === 2 && !isAlive(mold), 'two workers');
      assert.equal(lines().filter((line) => line.startsWith('on_starting')).length, 2);
    });
  });

  for (const [what, config, code] of [
    ['on_starting', 'def on_starting(server): raise ValueError("no")', 1],
    ['when_ready', 'def when_ready(server): raise ValueError("no")', 1],
    ['nworkers_changed', 'def nworkers_changed(server, new, old): raise ValueError("no")', 1],
    ['pre_fork', 'def pre_fork(server, worker): raise ValueError("no")', 255],
    ['sys.exit() in on_starting', 'import sys\ndef on_starting(server): sys.exit(7)', 7],
  ] as const) {
    it(`an error in ${what} ends the start with exit code ${code}`, async () => {
      await withConfig(config, async (path) => {
        for (const kind of KINDS as Kind[]) {
          const server = await Server.spawn({ kind, app: 'hooks.app:application', args: ['-c', path] });
          assert.deepEqual(await server.exit(), { code, signal: null }, server.output);
          if (!what.startsWith('sys')) assert.match(server.log, /ValueError: no/);
          if (kind === 'nunicorn') await server.nothingLeft();
          server.destroy();
        }
      });
    });
  }

  for (const [what, config, code] of [
    ['child_exit', 'def child_exit(server, worker): raise ValueError("no")', 255],
    ['on_exit', 'def on_exit(server): raise ValueError("no")', 1],
  ] as const) {
    it(`an error in ${what} while the server runs ends it with exit code ${code}`, async () => {
      await withConfig(config, async (path) => {
        for (const kind of KINDS as Kind[]) {
          const server = await Server.start({ kind, app: 'hooks.app:application', args: ['-c', path] });
          if (what === 'child_exit') process.kill(server.workers()[0] ?? 0, 'SIGKILL');
          else server.kill('SIGTERM');
          assert.deepEqual(await server.exit(40_000), { code, signal: null }, server.output);
          if (kind === 'nunicorn') await server.nothingLeft();
          server.destroy();
        }
      });
    });
  }

  it('an address that cannot be had ends what on_starting has begun', none, async () => {
    await transcriptOf('nunicorn', CONFIG, {}, async (first) => {
      await withConfig('def on_starting(server): pass\ndef on_exit(server): print("on_exit ran")', async (path) => {
        const server = await Server.spawn({ app: 'hooks.app:application', args: ['-c', path], bind: first.binds });
        assert.deepEqual(await server.exit(), { code: 1, signal: null }, server.output);
        assert.match(server.log, /Can't listen at/);
        assert.doesNotMatch(server.stdout, /on_exit ran/);
        await until(() => server.processes().length === 0, 'no process of it');
        server.destroy();
      });
    });
  });

  it('TERM ends a server whose on_starting hangs', none, async () => {
    await withConfig('import time\ndef on_starting(server): time.sleep(1000)', async (path) => {
      const server = await Server.spawn({ app: 'hooks.app:application', args: ['-c', path] });
      await until(() => server.processes().some(({ title }) => title.includes('mold')), 'the mold');
      server.kill('SIGTERM');
      assert.deepEqual(await server.exit(), { code: 0, signal: null }, server.output);
      await server.nothingLeft();
      server.destroy();
    });
  });
});
