// Settings of how the application is found and run: --paste, --spew, --no-sendfile, titles.
import { strict as assert } from 'node:assert';
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
