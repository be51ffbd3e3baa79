// wsgiref.validate finds nothing to say, neither about the environ nor about the use of the iterable.
import { strict as assert } from 'node:assert';
import { exchange } from '../helpers/http.ts';
import { matrix } from '../helpers/matrix.ts';

const BODY = 'ab\ncdef\nghi';

matrix({ app: 'wsgi_matrix:validated', workers: 1 }, (scenario) => {
  for (const path of [
    '/',
    '/list',
    '/list/two',
    '/list/empty',
    '/write',
    '/generator',
    '/generator/empty-first',
    '/exc-info-before',
    '/close/list',
    '/header/duplicates',
    '/204',
    '/environ',
    '/environ/caf%C3%A9',
    '/errors',
    '/stream/bytes?200000',
  ]) {
    for (const method of ['GET', 'HEAD']) {
      if (method === 'HEAD' && path === '/exc-info-before') continue;
      scenario(`${method} ${path}`, async (server) => {
        const from = server.log.length;
        const response = await exchange(server.address, `${method} ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
        assert.ok([200, 204, 503].includes(response.status), String(response.status));
        assert.equal(response.complete, true);
        await server.get('/');
        assert.doesNotMatch(server.log.slice(from), /AssertionError|WSGIWarning|without being closed/);
      });
    }
  }

  for (const read of ['read-3', 'readline', 'readlines', 'iter', 'read-minus-one']) {
    scenario(`wsgi.input: ${read}`, async (server) => {
      const head = `POST /input/${read} HTTP/1.1\r\nHost: test\r\nContent-Length: ${BODY.length}\r\n\r\n`;
      const response = await exchange(server.address, head + BODY);
      assert.equal(response.status, 200);
      assert.equal((JSON.parse(response.text()) as string[]).join(''), BODY);
    });
  }
});
