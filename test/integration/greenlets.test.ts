// An app that puts greenlets in the place of threads, as gevent's monkey.patch_all() does.
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { KINDS, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { PYTHON } from '../helpers/paths.ts';
import { type Kind, Server, withServer } from '../helpers/server.ts';

const NO_GEVENT = spawnSync(PYTHON, ['-c', 'import gevent']).status !== 0 && 'this Python has no gevent';

const OPTIONS = {
  app: 'greened',
  chdir: '{home}',
  files: {
    'greened.py': `from gevent import monkey
monkey.patch_all()
import subprocess, threading, time

turns = 0
def turn():
    global turns
    while True:
        time.sleep(0.01)
        turns += 1
threading.Thread(target=turn, daemon=True).start()

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hang":
        time.sleep(60)
    text = str(turns)
    if path == "/works":
        found = []
        thread = threading.Thread(target=lambda: (time.sleep(0.01), found.append("thread")))
        thread.start()
        thread.join()
        text = " ".join([*found, subprocess.run(["echo", "process"], capture_output=True, text=True).stdout.strip()])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
`,
  },
};

for (const kind of ['nunicorn', 'gunicorn'] satisfies Kind[]) {
  describe(kind, { skip: !KINDS.includes(kind) || NO_GEVENT }, () => {
    for (const args of kind === 'nunicorn' ? [[], ['--preload'], ['--statsd-host', '127.0.0.1:9']] : [[]]) {
      it(`with one thread it is served, and its greenlets run between requests ${args.join(' ')}`, async () => {
        await withServer({ kind, ...OPTIONS, args }, async (server) => {
          assert.equal((await server.get('/works')).text(), 'thread process');
          await until(async () => Number((await server.get('/')).text()) > 10, 'the greenlet to run');
          assert.doesNotMatch(server.log, /has started threads/);
        });
      });
    }
  });
}

it('what it waits for is interrupted at --timeout', { skip: !NUNICORN_RUNS || NO_GEVENT }, async () => {
  await withServer({ ...OPTIONS, args: ['--timeout', '1'] }, async (server) => {
    assert.equal((await server.get('/hang', '', 20_000)).status, 504);
    assert.equal((await server.get('/works', '', 20_000)).text(), 'thread process');
    assert.doesNotMatch(server.log, /does not leave by itself/);
  });
});

it('with several threads it does not boot, and the log says what to do', {
  skip: !NUNICORN_RUNS || NO_GEVENT,
}, async () => {
  const server = await Server.spawn({ ...OPTIONS, threads: 2 });
  try {
    assert.deepEqual(await server.exit(20_000), { code: 3, signal: null }, server.output);
    assert.match(
      server.log,
      /has put greenlets in the place of threads .* take that out of it, or run it with one thread/,
    );
    await server.nothingLeft();
  } finally {
    server.destroy();
  }
});
