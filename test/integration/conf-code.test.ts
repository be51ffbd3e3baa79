// What a gunicorn.conf.py does beside its settings: it is there in the processes that run the app, as in those that gunicorn forks.
import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { KINDS, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { FIXTURES, NUNICORN, VENV, VENV_BIN } from '../helpers/paths.ts';
import { type Kind, withServer } from '../helpers/server.ts';

const APP = `import logging, socket
def application(environ, start_response):
    logging.getLogger("shop").info("sold")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(socket.getdefaulttimeout()).encode()]
`;
const CONFIG = `import logging, os, socket, sys
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "src"))
logging.basicConfig(level=logging.INFO, format="root: %(name)s %(message)s")
socket.setdefaulttimeout(17)
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
          assert.equal((await server.get('/')).text(), '17.0');
          await server.waitForLog(/^root: shop sold$/m);
        });
      });
    }

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
