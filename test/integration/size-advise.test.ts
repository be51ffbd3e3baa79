// `nunicorn advise` against an admin address that answers with a known status.
import { strict as assert } from 'node:assert';
import { execFile, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { it } from 'node:test';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { NUNICORN } from '../helpers/paths.ts';
import { freePort } from '../helpers/ports.ts';

const skip = !NUNICORN_RUNS;
const STATUS = {
  settings: { workers: 2, threads: 2, preload: false },
  workers: [1, 2].map((number) => ({ number, state: 'ready', age: 60, requests: 100, memory: { pss: 5e7, rss: 9e7 } })),
  recent: {
    seconds: 60,
    requestsPerSecond: 80,
    errorRatio: 0,
    utilization: 0.95,
    queueTime: { p50: 0.02, p99: 0.2 },
    appTime: { mean: 0.045, p99: 0.1 },
    perRequest: { cpu: 0.005, gilWait: 0, cpuWait: 0, io: 0.04 },
  },
  totals: { requests: 4800 },
};

async function advise(
  body: string,
  code: number,
  ...args: string[]
): Promise<{ stdout: string; stderr: string; code: unknown; authorization: string | undefined }> {
  let authorization: string | undefined;
  const server = createServer((request, response) => {
    ({ authorization } = request.headers);
    response.writeHead(request.url === '/status' ? code : 404);
    response.end(body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    const { port } = server.address() as AddressInfo;
    return await new Promise((resolve) => {
      const words = [NUNICORN, 'advise', '--watch', '0', '--cpus', '4', ...args, `127.0.0.1:${port}`];
      execFile(process.execPath, words, (error, stdout, stderr) => {
        resolve({ stdout, stderr, code: error?.code ?? 0, authorization });
      });
    });
  } finally {
    server.close();
  }
}

it('says what to change, why, and what to expect', { skip }, async () => {
  const { stdout, code, authorization } = await advise(JSON.stringify(STATUS), 200, '--admin-token', 'secret');
  assert.equal(code, 0);
  assert.equal(authorization, 'Bearer secret');
  assert.match(stdout, /2 workers x 2 threads on 4 processors: 80\.0 requests\/s, 95 % of the threads busy/);
  assert.match(stdout, /- Run 2 x 4 [^\n]*\n {2}Why: [^\n]*\n {2}Expect: /);
});

it('says what is wrong when it is no admin address', { skip }, async () => {
  const none = await advise('{}', 404);
  assert.equal(none.code, 1);
  assert.match(none.stderr, /answered with 404: is it the --admin-bind of a nunicorn\?/);
  const nobody = spawnSync(process.execPath, [NUNICORN, 'advise', `127.0.0.1:${await freePort()}`], {
    encoding: 'utf8',
  });
  assert.equal(nobody.status, 1);
  assert.match(nobody.stderr, /nobody listens there: was the server started with --admin-bind/);
  const locked = await advise('{}', 401);
  assert.equal(locked.code, 1);
  assert.match(locked.stderr, /it asks for its token: give --admin-token, or NUNICORN_ADMIN_TOKEN/);
  const other = await advise('{"a": 1}', 200);
  assert.match(other.stderr, /not the status of a nunicorn/);
});
