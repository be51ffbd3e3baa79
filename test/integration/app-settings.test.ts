// Settings of how the application is found and run: --paste, --spew, --no-sendfile, titles.
import { strict as assert } from 'node:assert';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { KINDS, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { type Kind, Server, withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;

for (const kind of ['nunicorn', 'gunicorn'] satisfies Kind[]) {
  describe(`${kind} --paste`, { skip: !KINDS.includes(kind) }, () => {
    it('serves the application that the file describes, with its configuration', async () => {
      const args = ['--paste', join(FIXTURES, 'paste.ini'), '--paste-global', 'shape=round'];
      await withServer({ kind, app: 'not:used', args }, async (server) => {
        const { global, local } = JSON.parse((await server.get('/')).text());
        assert.equal(global.colour, 'green');
        assert.equal(global.shape, 'round');
        assert.deepEqual(local, { name: 'main' });
      });
    });

    it('configures the logging of the application, where the file has loggers', async () => {
      const args = ['--paste', `${join(FIXTURES, 'paste_loggers.ini')}#main`];
      await withServer({ kind, app: 'not:used', args }, async (server) => {
        assert.equal(JSON.parse((await server.get('/')).text()).local.name, 'main');
        await server.waitForLog(/^root INFO paste_app main is made$/m);
      });
    });

    it('serves the one that #NAME names', async () => {
      const args = ['--paste', `${join(FIXTURES, 'paste.ini')}#admin`];
      await withServer({ kind, app: 'not:used', args }, async (server) => {
        assert.deepEqual(JSON.parse((await server.get('/')).text()).local, { name: 'admin' });
      });
    });
  });
}

it('--paste with a file that has no such application: exit 3 and the reason', { skip }, async () => {
  const server = await Server.spawn({ app: 'not:used', args: ['--paste', `${join(FIXTURES, 'paste.ini')}#lost`] });
  try {
    assert.deepEqual(await server.exit(30_000), { code: 3, signal: null }, server.output);
    assert.match(server.log, /No section 'lost'/);
    await server.nothingLeft();
  } finally {
    server.destroy();
  }
});

for (const threads of [1, 2]) {
  it(`--spew prints the lines of the application, with ${threads} of its threads`, { skip }, async () => {
    await withServer({ app: 'spewed:application', threads, args: ['--spew'] }, async (server) => {
      assert.equal((await server.get('/')).status, 200);
      await until(
        () => /^spewed:\d+: {5}start_response\(/m.test(server.stdout),
        () => `the line in the output\n${server.output}`,
      );
      assert.match(server.stdout, /^spewed:\d+: def application/m);
      assert.doesNotMatch(server.stdout, /^nunicorn_worker/m);
    });
  });
}

it('--no-sendfile reads files block by block', { skip }, async () => {
  for (const args of [[], ['--no-sendfile']]) {
    await withServer({ app: 'sendfile_app:application', args }, async (server) => {
      const response = await server.get('/');
      assert.equal(response.header('x-wrapper'), args.length === 0 ? 'FileWrapper' : 'ReadFileWrapper');
      assert.ok(response.text().startsWith('"""An app that answers with its own source'));
    });
  }
});

// As setproctitle from PyPI does: argv is looked for by what Python was started with. Who does not find it says nothing.
const SETPROCTITLE = `
import ctypes
import sys

with open("/proc/self/cmdline", "rb") as file:
    FOUND = file.read().split(b"\\0")[:-1] == [word.encode() for word in sys.orig_argv]
with open("/proc/self/stat", "rb") as file:
    START, END = (int(field) for field in file.read().rpartition(b") ")[2].split()[45:47])

def setproctitle(title):
    if FOUND:
        ctypes.memmove(START, title.encode().ljust(END - START, b"\\0"), END - START)
`;

for (const workers of [1, 2]) {
  it(`setproctitle in the application sets the title that ps shows, with --workers ${workers}`, { skip }, async () => {
    const files = {
      'setproctitle.py': SETPROCTITLE,
      'own.py': `
import setproctitle
def application(environ, start_response):
    setproctitle.setproctitle("a title of its own")
    start_response("200 OK", [("Content-Length", "0")])
    return []
`,
    };
    const options = { app: 'own:application', workers, files, env: { PYTHONPATH: '{home}' }, readyPath: '/' };
    await withServer(options, async (server) => {
      const titles = server.processes().map(({ title }) => title);
      assert.ok(titles.includes('a title of its own'), titles.join('\n'));
    });
  });
}

it('--worker-tmp-dir holds the private folder while the server runs', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nt-own-'));
  try {
    await withServer({ app: 'spewed:application', args: ['--worker-tmp-dir', folder] }, async (server) => {
      assert.equal(readdirSync(folder).length, 1);
      await server.stop();
      assert.deepEqual(readdirSync(folder), []);
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('--initgroups gives the workers the groups of the user', { skip: skip || process.getuid?.() !== 0 }, async () => {
  const groupsWith = async (args: readonly string[]): Promise<readonly number[]> => {
    let groups: readonly number[] = [];
    // The test's own folder is root's alone.
    const reachable = ['--worker-tmp-dir', '/dev/shm', '--spool-dir', '/dev/shm'];
    const all = ['--user', 'daemon', '--group', 'daemon', ...reachable, ...args];
    await withServer({ app: 'facts_app', args: all }, async (server) => {
      groups = (JSON.parse((await server.get('/')).text()) as { readonly groups: readonly number[] }).groups;
    });
    return groups;
  };
  assert.deepEqual(await groupsWith([]), []);
  const groups = await groupsWith(['--initgroups']);
  assert.ok(groups.length > 0 && !groups.includes(0), JSON.stringify(groups));
});
