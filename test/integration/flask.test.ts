// A Flask application: JSON, sessions, uploads, streaming with the request context, errors.
import { strict as assert } from 'node:assert';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { Browser } from '../helpers/browser.ts';
import { until } from '../helpers/deadline.ts';
import { post } from '../helpers/http.ts';
import { matrix } from '../helpers/matrix.ts';

matrix({ app: 'flask_app:app', workers: 1 }, (scenario, { threads }) => {
  scenario('routing, query and URL', async (server) => {
    const answer = JSON.parse((await server.get('/hello/Zo%C3%AB?a=1&a=2&b=%20')).text());
    assert.deepEqual(answer, {
      name: 'Zoë',
      url: 'http://test/hello/Zoë?a=1&a=2&b=%20',
      args: { a: ['1', '2'], b: [' '] },
    });
  });

  scenario('JSON both ways', async (server) => {
    const value = { text: 'ü€😀', list: [1, 2.5, null, true] };
    const answer = await post(server.address, '/json', JSON.stringify(value), 'Content-Type: application/json\r\n');
    assert.deepEqual(JSON.parse(answer.text()), { got: value });
    const broken = await post(server.address, '/json', '{"a"', 'Content-Type: application/json\r\n');
    assert.equal(broken.status, 400);
  });

  scenario('sessions', async (server) => {
    const browser = new Browser(server.address);
    assert.equal((await browser.get('/whoami')).text(), 'nobody');
    const login = await browser.get('/login?user=zoe');
    assert.deepEqual([login.status, login.framing], [204, 'none']);
    assert.equal((await browser.get('/whoami')).text(), 'zoe');
  });

  scenario('uploads of all sizes', async (server) => {
    for (const size of [1, 60_000, 2_000_000]) {
      const content = randomBytes(size);
      const file = { name: 'a.bin', type: 'application/octet-stream', content };
      const answer = JSON.parse((await new Browser(server.address).post('/upload', { note: 'ä', file })).text());
      const sha256 = createHash('sha256').update(content).digest('hex');
      assert.deepEqual(answer, { name: 'a.bin', size, sha256, note: 'ä' });
    }
  });

  if (threads > 1) {
    scenario('a stream arrives piece by piece', async (server) => {
      const name = randomUUID();
      const connection = await server.connect();
      await connection.send(`GET /stream/${name} HTTP/1.1\r\nHost: test\r\n\r\n`);
      await connection.readThrough('\r\n\r\n');
      for (let step = 0; step < 3; step++) {
        assert.equal(await connection.chunk(), `/stream/${name} ${step}\n`);
        await server.get(`/open/${name}-${step}`);
      }
      assert.equal(await connection.chunk(), '');
      connection.close();
    });

    scenario('a stream whose client leaves is ended, in its request context', async (server) => {
      const name = randomUUID();
      const connection = await server.connect();
      await connection.send(`GET /endless/${name} HTTP/1.1\r\nHost: test\r\n\r\n`);
      for (let piece = 0; piece < 3; piece++) await connection.readThrough(`/endless/${name}\n`);
      connection.reset();
      await until(
        async () => (await server.get(`/is-open/ended-${name}`)).text() === 'true\n',
        'the end of the stream',
      );
    });
  }

  scenario('a body is read as a stream', async (server) => {
    for (const size of [0, 5_000_000]) {
      const answer = await post(server.address, '/count', Buffer.alloc(size));
      assert.deepEqual(JSON.parse(answer.text()), { bytes: size });
    }
  });

  scenario('an error in a view is the 500 of the framework', async (server) => {
    const from = server.log.length;
    assert.equal((await server.get('/error')).status, 500);
    await server.waitForLog(/RuntimeError: raised in a view/, { from });
    assert.equal((await server.get('/nowhere')).status, 404);
    assert.equal((await post(server.address, '/', '')).status, 405);
  });
});
