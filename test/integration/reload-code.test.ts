// --reload: code that changes is served without a signal.
import { strict as assert } from 'node:assert';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { type Server, withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;
const LONG_MS = 30_000;
let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'reload-'));
  mkdirSync(join(folder, 'templates'));
  writeFileSync(join(folder, 'templates', 'page.html'), 'page');
  writeFileSync(join(folder, 'part.py'), 'VERSION = b"one"\n');
  writeFileSync(
    join(folder, 'app.py'),
    `import part
def application(environ, start_response):
    start_response("200 OK", [])
    return [part.VERSION]
`,
  );
});
afterEach(() => rmSync(folder, { recursive: true }));

async function serves(server: Server, version: string): Promise<void> {
  await until(
    async () => (await server.get('/')).text() === version,
    () => `${version}\n${server.output}`,
    LONG_MS,
  );
}

for (const args of [['--reload-engine', 'poll'], [], ['--preload']]) {
  it(`a file that the app has imported changes: its code is served ${args.join(' ')}`, { skip }, async () => {
    await withServer({ app: 'app', chdir: folder, args: ['--reload', ...args] }, async (server) => {
      assert.match(server.log, /\[WARNING\] Reloader is on. Use in development only!/);
      await serves(server, 'one');
      // The first change that is seen proves that the file is watched; the worker names its files a moment after its start.
      await until(
        () => {
          writeFileSync(join(folder, 'part.py'), 'VERSION = b"two"\n');
          return server.log.includes(`Worker reloading: ${join(folder, 'part.py')} modified`);
        },
        () => `the change to be seen\n${server.output}`,
        LONG_MS,
      );
      await serves(server, 'two');
      writeFileSync(join(folder, 'part.py'), 'this is no Python\n');
      await server.waitForLog(/SyntaxError/, { ms: LONG_MS });
      assert.equal((await server.get('/')).text(), 'two', 'the old code goes on');
      writeFileSync(join(folder, 'part.py'), 'VERSION = b"three"\n');
      await serves(server, 'three');
    });
  });
}

for (const args of [['--reload-engine', 'poll'], [], ['--preload']]) {
  it(`new code that cannot be imported is mended in another file: it is served ${args.join(' ')}`, {
    skip,
  }, async () => {
    await withServer({ app: 'app', chdir: folder, args: ['--reload', ...args] }, async (server) => {
      let from = 0;
      const fails = async (error: RegExp) => {
        await server.waitForLog(error, { from, ms: LONG_MS });
        await server.waitForLog(/did not boot/, { from, ms: LONG_MS });
        from = server.log.length;
      };
      const imports = (module: string) => writeFileSync(join(folder, 'app.py'), `from ${module} import application\n`);
      const answers = (version: string) =>
        `def application(environ, start_response):\n    start_response("200 OK", [])\n    return [b"${version}"]\n`;
      await serves(server, 'one');
      await until(
        () => {
          imports('part');
          return server.log.includes(`Worker reloading: ${join(folder, 'app.py')} modified`);
        },
        () => `the change to be seen\n${server.output}`,
        LONG_MS,
      );
      await fails(/ImportError/);
      writeFileSync(join(folder, 'added.py'), 'raise LookupError("no such setting")\n');
      imports('added');
      await fails(/LookupError/);
      writeFileSync(join(folder, 'added.py'), 'this is no Python\n');
      await fails(/SyntaxError/);
      writeFileSync(join(folder, 'added.py'), answers('two'));
      await serves(server, 'two');
      imports('missing');
      await fails(/ModuleNotFoundError/);
      writeFileSync(join(folder, 'missing.py'), answers('three'));
      await serves(server, 'three');
    });
  });
}

it('--reload-extra-file takes patterns, also for files that come later', { skip }, async () => {
  const args = ['--reload', '--reload-extra-file', join(folder, 'templates', '**', '*.html')];
  await withServer({ app: 'app', chdir: folder, args }, async (server) => {
    writeFileSync(join(folder, 'templates', 'other.html'), 'new');
    await server.waitForLog(/Worker reloading: .*\/templates\/other.html modified/, { ms: LONG_MS });
    const from = server.log.length;
    writeFileSync(join(folder, 'templates', 'page.html'), 'changed');
    await server.waitForLog(/Worker reloading: .*\/templates\/page.html modified/, { from, ms: LONG_MS });
  });
});
