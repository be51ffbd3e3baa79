// wsgi.input: the same answers whether the body came with a Content-Length or chunked.
import { strict as assert } from 'node:assert';
import { exchange } from '../helpers/http.ts';
import { matrix } from '../helpers/matrix.ts';

const BODY = 'ab\ncdef\nghi';

function withLength(path: string, body: string): string {
  return `POST ${path} HTTP/1.1\r\nHost: test\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}

/** Each chunk one to three bytes, so that no chunk ends where a line does. */
function chunked(path: string, body: string): string {
  let chunks = '';
  for (let at = 0, size = 1; at < body.length; at += size, size = (size % 3) + 1) {
    const chunk = body.slice(at, at + size);
    chunks += `${chunk.length.toString(16)}\r\n${chunk}\r\n`;
  }
  return `POST ${path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}0\r\n\r\n`;
}

const READS: readonly (readonly [path: string, pieces: readonly string[], withoutBody: readonly string[]])[] = [
  ['read', [BODY], ['']],
  ['read-none', [BODY], ['']],
  ['read-minus-one', [BODY], ['']],
  ['read-0', ['', BODY], ['', '']],
  ['read-3', ['ab\n', 'cde', 'f\nghi', ''], ['', '', '', '']],
  ['read-at-end', [BODY, '', ''], ['', '', '']],
  ['readline', ['ab\n', 'cdef\n', 'ghi', '', ''], ['', '', '', '', '']],
  ['readline-3', ['ab\n', 'cde', 'f\n', 'ghi', ''], ['', '', '', '', '']],
  ['readline-0', ['', 'ab\n'], ['', '']],
  ['readline-minus-one', ['ab\n', 'cdef\n'], ['', '']],
  ['readlines', ['ab\n', 'cdef\n', 'ghi'], []],
  ['iter', ['ab\n', 'cdef\n', 'ghi'], []],
  ['mixed', ['ab\n', 'cd', 'ef\n', 'ghi'], ['', '']],
];

matrix({ app: 'wsgi_matrix:application', workers: 1 }, (scenario) => {
  for (const [read, pieces, withoutBody] of READS) {
    scenario(`${read} of a body with Content-Length, of a chunked one, of none`, async (server) => {
      const path = `/input/${read}`;
      assert.deepEqual(JSON.parse((await exchange(server.address, withLength(path, BODY))).text()), pieces);
      assert.deepEqual(JSON.parse((await exchange(server.address, chunked(path, BODY))).text()), pieces);
      assert.deepEqual(JSON.parse((await server.get(path)).text()), withoutBody);
      const empty = `POST ${path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n`;
      assert.deepEqual(JSON.parse((await exchange(server.address, empty)).text()), withoutBody);
    });
  }

  scenario('next(iter()) then read() loses nothing', async (server) => {
    const path = '/input/next-iter';
    assert.deepEqual(JSON.parse((await exchange(server.address, withLength(path, BODY))).text()), [
      'ab\n',
      'cdef\nghi',
    ]);
    assert.deepEqual(JSON.parse((await exchange(server.address, chunked(path, BODY))).text()), ['ab\n', 'cdef\nghi']);
  });

  scenario('bodies of every size around the limits of buffers and frames come through unchanged', async (server) => {
    for (const size of [1, 4095, 4096, 8192, 65535, 65536, 65537, 131072, 1 << 20, (1 << 20) + 1]) {
      const body = Buffer.alloc(size, 'abcdefghijklmnopqrstuvwxyz\n');
      const head = `POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: ${size}\r\n\r\n`;
      const response = await exchange(server.address, Buffer.concat([Buffer.from(head), body]));
      assert.equal(response.status, 200, `${size} bytes`);
      assert.ok(response.body.equals(body), `${size} bytes`);
    }
  });

  scenario('a body may be read after the first piece was yielded', async (server) => {
    const response = await exchange(server.address, withLength('/input/after-first-yield', 'hello'));
    assert.equal(response.text(), 'start,hello');
  });

  scenario('the body is there when the client has shut down its side', async (server) => {
    const connection = await server.connect();
    await connection.send(withLength('/echo', BODY));
    connection.halfClose();
    assert.equal((await connection.response()).text(), BODY);
    connection.close();
  });

  scenario.differs('a body left unread does not disturb the next request', 'closes instead', async (server) => {
    const connection = await server.connect();
    for (const size of [10, 300_000]) {
      await connection.send(withLength('/unread', 'x'.repeat(size)));
      assert.equal((await connection.response()).text(), 'unread');
      await connection.send(withLength('/echo', 'next'));
      assert.equal((await connection.response()).text(), 'next');
    }
    connection.close();
  });
});
