// What is written to the log files, and that all of it gets there.
import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;

it('every answer has its line in the access log when the server is gone', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'logs-'));
  const path = join(folder, 'access.log');
  try {
    await withServer({ app: 'pathology.faults:application', args: ['--access-logfile', path] }, async (server) => {
      const before = 100;
      for (let at = 0; at < before; at++) await server.get(`/?${at}`);
      await server.get('/nothing-here', 'Referer: http://there/"\\\r\nUser-Agent: a b\r\n');
      server.kill('SIGTERM');
      assert.deepEqual(await server.exit(), { code: 0, signal: null });
      const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
      for (let at = 0; at < before; at++) {
        const own = lines.filter((line) => line.includes(`"GET /?${at} HTTP/1.1" 200 `));
        assert.equal(own.length, 1, `line of request ${at}`);
      }
      assert.match(
        lines.at(-1) ?? '',
        /^127\.0\.0\.1 - - \[\d\d\/\w{3}\/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET \/nothing-here HTTP\/1\.1" \d{3} \d+ "http:\/\/there\/\\"\\\\" "a b"$/,
      );
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
