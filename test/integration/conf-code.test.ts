// What a gunicorn.conf.py does beside its settings: it is there in the processes that run the app, as in those that gunicorn forks.
import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { KINDS, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { FIXTURES, NUNICORN, VENV, VENV_BIN } from '../helpers/paths.ts';
import { type Kind, withServer } from '../helpers/server.ts';

const APP = `import logging, sys
def application(environ, start_response):
    logging.getLogger("shop").info("sold")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(sys.getrecursionlimit()).encode()]
`;
const LOGGING = `import logging
from gunicorn import glogging
accesslog = "-"
glogging.Logger.error_fmt = "error: %(levelname)s %(message)s"
glogging.Logger.access_fmt = "access: %(message)s"
glogging.Logger.now = lambda self: "now"
logging.getLogger("gunicorn.access").addFilter(lambda record: "/health" not in record.getMessage())
handler = logging.FileHandler("more.log")
handler.setFormatter(logging.Formatter("more: %(message)s"))
logging.getLogger("gunicorn.error").addHandler(handler)
`;
const CONFIG = `import logging, os, sys
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "src"))
logging.basicConfig(level=logging.INFO, format="root: %(name)s %(message)s")
sys.setrecursionlimit(1717)
`;

for (const kind of ['nunicorn', 'gunicorn'] satisfies Kind[]) {
  describe(kind, { skip: !KINDS.includes(kind) }, () => {
    for (const more of [['--workers', '1'], ['--workers', '2'], ['--preload']]) {
      it(`sys.path, logging and what else the file changes is there in the workers, with ${more.join(' ')}`, async () => {
        const options = {
          kind,
          app: 'shop:application',
          args: ['-c', '{home}/gunicorn.conf.py', ...more],
          files: { 'gunicorn.conf.py': CONFIG, 'src/shop.py': APP },
        };
        await withServer(options, async (server) => {
          assert.equal((await server.get('/')).text(), '1717');
          await server.waitForLog(/^root: shop sold$/m);
        });
      });
    }

    it('what the file changes of glogging.Logger and of the loggers of gunicorn is so in all lines', async () => {
      const options = {
        kind,
        app: 'shop:application',
        args: ['-c', '{home}/gunicorn.conf.py'],
        files: { 'gunicorn.conf.py': LOGGING, 'src/shop.py': APP },
        env: { PYTHONPATH: '{home}/src' },
      };
      await withServer(options, async (server) => {
        for (const path of ['/health', '/cart']) assert.equal((await server.get(path)).status, 200);
        await until(() => /^access: .* now "GET \/cart /m.test(server.stdout), 'the access log');
        assert.doesNotMatch(server.output, /health/);
        assert.match(server.log, /^error: INFO Listening at/m);
        await server.waitForLog(/^error: INFO Booting worker/m);
        const more = readFileSync(join(server.home, 'more.log'), 'utf8');
        assert.match(more, /^more: Listening at/m);
        assert.match(more, /^more: Booting worker/m);
      });
    });

    it('with --paste it is this file that is run, not the one that describes the app', async () => {
      const options = {
        kind,
        app: '',
        args: ['--paste', `${join(FIXTURES, 'paste_loggers.ini')}#main`, '-c', '{home}/gunicorn.conf.py'],
        files: { 'gunicorn.conf.py': 'def post_fork(server, worker):\n    print("forked", flush=True)\n' },
      };
      await withServer(options, async (server) => {
        assert.equal((await server.get('/')).status, 200);
        assert.match(server.stdout, /^forked$/m);
      });
    });
  });
}

it('--check-config finds the app by what the file has put into sys.path', { skip: !NUNICORN_RUNS }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'nt-conf-'));
  mkdirSync(join(folder, 'src'));
  writeFileSync(join(folder, 'src', 'shop.py'), APP);
  writeFileSync(join(folder, 'gunicorn.conf.py'), CONFIG);
  const env = { PATH: `${VENV_BIN}:${process.env.PATH}`, VIRTUAL_ENV: VENV };
  execFileSync(process.execPath, [NUNICORN, '--check-config', 'shop:application'], { cwd: folder, env });
  rmSync(folder, { recursive: true });
});
