// HUP, TTIN and TTOU: the workers change, the service does not.
import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { type Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const skip = !NUNICORN_RUNS;
let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'reload-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Writes the application; its answer is `version` and the pid of its worker. */
function deploy(version: string, head = ''): void {
  writeFileSync(
    join(folder, 'app.py'),
    `import os
${head}
def application(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [b"${version} %d" % os.getpid()]
`,
  );
}

async function version(server: Server): Promise<string> {
  return (await server.get('/')).text().split(' ')[0] ?? '';
}

/** The pids of the workers that answer now. */
async function workers(server: Server): Promise<string[]> {
  const pids = new Set<string>();
  for (const answer of await Promise.all(Array.from({ length: 40 }, () => server.get('/')))) {
    pids.add(answer.text().split(' ')[1] ?? '');
  }
  return [...pids].sort();
}

for (const args of [[], ['--preload']]) {
  it(`HUP brings new code and drops no request ${args.join(' ')}`, { skip }, async () => {
    deploy('one');
    await withServer({ app: 'app', chdir: folder, workers: 2, threads: 2, args }, async (server) => {
      const load = new Load({
        address: server.address,
        clients: 8,
        method: 'POST',
        body: Buffer.alloc(16_384, 'x'),
        keepAlive: true,
      });
      await load.more(100);
      for (const name of ['two', 'three', 'four']) {
        deploy(name);
        server.kill('SIGHUP');
        await until(async () => (await version(server)) === name, `an answer of version ${name}`, 15_000);
      }
      await load.more(100);
      const outcomes = await load.stop();
      assert.deepEqual([...outcomes.keys()], ['200'], load.describe());
    });
  });
}

it('HUP with code that does not import leaves the old workers serving and shows why', { skip }, async () => {
  deploy('good');
  await withServer({ app: 'app', chdir: folder, workers: 2 }, async (server) => {
    const before = server.workers();
    deploy('bad', 'raise RuntimeError("a bad deployment")');
    server.kill('SIGHUP');
    await server.waitForLog(/did not boot: the worker stays/);
    await server.waitForLog(/RuntimeError: a bad deployment/);
    assert.deepEqual(server.workers(), before);
    assert.equal(await version(server), 'good');
    deploy('mended');
    server.kill('SIGHUP');
    await until(async () => (await version(server)) === 'mended', 'an answer of the mended version', 15_000);
  });
});

it('TTIN adds a worker, TTOU takes one away, and the last one stays', { skip }, async () => {
  deploy('one');
  await withServer({ app: 'app', chdir: folder, workers: 1, threads: 2 }, async (server) => {
    const count = (wanted: number) =>
      until(async () => (await workers(server)).length === wanted, `${wanted} workers`, 15_000);
    server.kill('SIGTTIN');
    await count(2);
    server.kill('SIGTTOU');
    await count(1);
    server.kill('SIGTTOU');
    await server.waitForLog(/Handling signal: ttou[\s\S]*Handling signal: ttou/);
    await count(1);
  });
});
