// wsgi.file_wrapper with real files, file-like objects, offsets and lengths.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { fetchLarge } from '../helpers/client.ts';
import { exchange } from '../helpers/http.ts';
import { matrix, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { peakResidentMiB } from '../helpers/processes.ts';
import { withServer } from '../helpers/server.ts';

const CONTENT = Buffer.concat(Array.from({ length: 400 }, () => Buffer.from(Array.from({ length: 256 }, (_, i) => i))));

matrix({ app: 'wsgi_matrix:application', workers: 1 }, (scenario) => {
  for (const path of ['/file', '/file/length', '/file/bytesio', '/file/iterated']) {
    scenario(`${path} arrives whole and the connection stays usable`, async (server) => {
      const connection = await server.connect();
      for (let time = 0; time < 2; time++) {
        await connection.send(`GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
        const response = await connection.response();
        assert.equal(response.status, 200);
        assert.equal(response.complete, true);
        assert.ok(response.body.equals(CONTENT), `${response.body.length} bytes`);
      }
      connection.close();
    });
  }

  scenario('a file of 300 MB passes, and no process holds it', async (server) => {
    await fetchLarge(server.address, '/file/large?3000000');
    const before = server.processes().map(({ pid }) => ({ pid, peak: peakResidentMiB(pid) }));
    const { status, length } = await fetchLarge(server.address, '/file/large?300000000');
    assert.deepEqual({ status, length }, { status: 200, length: 300_000_000 });
    for (const { pid, peak } of before) {
      const grown = peakResidentMiB(pid) - peak;
      assert.ok(grown < 60, `process ${pid} grew by ${grown} MiB`);
    }
  });

  scenario('a shorter Content-Length cuts the file', async (server) => {
    const connection = await server.connect();
    await connection.send('GET /file/length-shorter HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n');
    assert.ok((await connection.response()).body.equals(CONTENT.subarray(0, 1000)));
    await connection.end();
    assert.equal(connection.pending, '');
    connection.close();
  });

  scenario('a file is sent from where it stands', async (server) => {
    assert.ok((await server.get('/file/offset')).body.equals(CONTENT.subarray(-10)));
  });

  scenario('an object with read() and close()', async (server) => {
    assert.equal((await server.get('/file/close')).text(), 'piecepiecepiece');
  });

  scenario('HEAD of a file has no body', async (server) => {
    const connection = await server.connect();
    await connection.send('HEAD /file/length HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n');
    const response = await connection.response('HEAD');
    assert.equal(response.header('content-length'), String(CONTENT.length));
    await connection.end();
    assert.equal(connection.pending, '');
    connection.close();
  });

  scenario('over HTTP/1.0 the file is not chunked', async (server) => {
    const response = await exchange(server.address, 'GET /file HTTP/1.0\r\n\r\n');
    assert.equal(response.header('transfer-encoding'), undefined);
    assert.ok(response.body.equals(CONTENT));
  });

  scenario('a client that leaves in the middle of a file leaves no descriptor open', async (server) => {
    await server.get('/file/length');
    const before = await server.descriptorsAtRest();
    for (let time = 0; time < 20; time++) {
      const connection = await server.connect();
      await connection.send('GET /file/length HTTP/1.1\r\nHost: test\r\n\r\n');
      await connection.readThrough('\r\n\r\n');
      connection.reset();
    }
    await server.descriptorsBackTo(before);
  });
});

const SHRINKING = `
import tempfile
opened = tempfile.TemporaryFile()
opened.truncate(100_000_000)

def application(environ, start_response):
    if environ["PATH_INFO"] == "/file":
        start_response("200 OK", [("Content-Length", "100000000")])
        return environ["wsgi.file_wrapper"](opened)
    if environ["PATH_INFO"] == "/shrink":
        opened.truncate(1000)
    start_response("200 OK", [("Content-Length", "0")])
    return []
`;

it('a file that shrinks while it is sent is not told as the death of its worker', {
  skip: !NUNICORN_RUNS,
}, async () => {
  const files = { 'shrinking.py': SHRINKING };
  await withServer({ app: 'shrinking:application', chdir: '{home}', files, threads: 2 }, async (server) => {
    const workers = server.workers();
    const connection = await server.connect();
    await connection.send('GET /file HTTP/1.1\r\nHost: test\r\n\r\n');
    await connection.readThrough('\r\n\r\n');
    await server.get('/shrink');
    await connection.end();
    await server.waitForLog(
      /Request GET \/file was lost: its worker \(pid:\d+\) died, or its thread lost the connection/,
    );
    assert.deepEqual(server.workers(), workers);
    connection.close();
  });
});
