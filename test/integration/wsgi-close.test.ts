// close() of what the application returned is called once, whatever happens.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { count, counted } from '../helpers/count.ts';
import { exchange } from '../helpers/http.ts';
import { matrix, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { withServer } from '../helpers/server.ts';

matrix({ app: 'wsgi_matrix:application', workers: 1 }, (scenario) => {
  for (const [name, method, path] of [
    ['list', 'GET', '/close/list'],
    ['error-first', 'GET', '/close/error-first'],
    ['error-later', 'GET', '/close/error-later'],
    ['raises', 'GET', '/close/raises'],
    ['head', 'HEAD', '/generator/head'],
    ['file', 'GET', '/file/close'],
  ] as const) {
    scenario(`once: ${name}`, async (server) => {
      const before = await count(server, name);
      await exchange(server.address, `${method} ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
      await counted(server, name, before + 1);
      assert.equal(await count(server, name), before + 1);
    });
  }

  scenario('an error in close() spoils nothing that was sent', async (server) => {
    const response = await server.get('/close/raises');
    assert.deepEqual([response.status, response.text(), response.complete], [200, 'body', true]);
  });

  for (const how of ['fin', 'reset'] as const) {
    scenario(`an endless slow stream is closed after its client left (${how})`, async (server) => {
      const before = await count(server, 'endless');
      const connection = await server.connect();
      await connection.send('GET /close/endless HTTP/1.1\r\nHost: test\r\n\r\n');
      await connection.readThrough('tick\n');
      if (how === 'fin') connection.close();
      else connection.reset();
      await counted(server, 'endless', before + 1, 5_000);
      await counted(server, 'endless-finally', before + 1, 5_000);
      assert.equal(await count(server, 'endless'), before + 1);
    });

    scenario(`an endless fast stream is closed after its client left (${how})`, async (server) => {
      const before = await count(server, 'endless-fast');
      const connection = await server.connect();
      await connection.send('GET /close/endless-fast HTTP/1.1\r\nHost: test\r\n\r\n');
      await connection.readThrough('xxxx');
      if (how === 'fin') connection.close();
      else connection.reset();
      await counted(server, 'endless-fast', before + 1, 5_000);
    });
  }
});

it('HEAD of an endless stream holds no thread', { skip: !NUNICORN_RUNS }, async () => {
  await withServer({ app: 'wsgi_matrix:application', workers: 1, threads: 2 }, async (server) => {
    const connection = await server.connect();
    await connection.send('HEAD /close/endless HTTP/1.1\r\nHost: test\r\n\r\n');
    assert.equal((await connection.response('HEAD')).status, 200);
    await counted(server, 'endless', 1, 5_000);
    connection.close();
  });
});

for (const [what, query] of [
  ['in one piece', '6,length'],
  ['in two pieces', '2,4,length'],
  ['without a length', '2,4,'],
] as const) {
  it(`while close() goes on the client's next request is answered: a body ${what}`, {
    skip: !NUNICORN_RUNS,
  }, async () => {
    await withServer({ app: 'wsgi_matrix:application', workers: 1, threads: 2 }, async (server) => {
      const connection = await server.connect();
      await connection.send(`GET /close/gate?${query} HTTP/1.1\r\nHost: test\r\n\r\n`);
      assert.equal((await connection.response()).text(), 'abcdef');
      await connection.send('GET /count/gate HTTP/1.1\r\nHost: test\r\n\r\n');
      assert.equal((await connection.response()).text(), '0');
      connection.close();
      await server.get('/open/close');
      await counted(server, 'gate', 1);
    });
  });
}
