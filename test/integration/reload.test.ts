// HUP, TTIN and TTOU: the workers change, the service does not.
import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { freePort } from '../helpers/ports.ts';
import { finishing, Server, withServer } from '../helpers/server.ts';
import { fill, smallDisk } from '../helpers/small-disk.ts';
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

it('HUP, TTIN and TTOU while the server starts have their effect when it has started', { skip }, async () => {
  deploy('one');
  writeFileSync(
    join(folder, 'gunicorn.conf.py'),
    `import os, time
def on_starting(server):
    print("starting", flush=True)
    while not os.path.exists("on"):
        time.sleep(0.01)
`,
  );
  const args = ['-c', join(folder, 'gunicorn.conf.py')];
  const server = await Server.spawn({ app: 'app', chdir: folder, workers: 2, args });
  await finishing(server, async () => {
    await until(
      () => server.stdout.includes('starting'),
      () => `on_starting\n${server.output}`,
    );
    for (const signal of ['SIGTTIN', 'SIGTTIN', 'SIGTTOU', 'SIGHUP'] as const) {
      server.kill(signal);
      await server.waitForLog(new RegExp(`Handling signal: ${signal.slice(3).toLowerCase()}`));
    }
    writeFileSync(join(folder, 'on'), '');
    await server.waitForLog(/Hang up: Master/);
    await server.waitForLog(/all workers are ready/);
    await until(
      () => server.workers().length === 2,
      () => `two workers\n${server.output}`,
    );
    assert.equal(await version(server), 'one');
  });
});

it('HUP while the address is still another one’s: the server starts when it is free', { skip }, async () => {
  deploy('one');
  const port = await freePort();
  const other = createServer().listen(port, '127.0.0.1');
  await once(other, 'listening');
  const server = await Server.spawn({ app: 'app', chdir: folder, bind: [`127.0.0.1:${port}`] });
  await finishing(server, async () => {
    await server.waitForLog(/Retrying in 1 second/);
    server.kill('SIGHUP');
    await server.waitForLog(/Handling signal: hup/);
    other.close();
    await server.waitForLog(/Hang up: Master[\s\S]*all workers are ready/);
    assert.equal(await version(server), 'one');
  });
});

it('a disk that is full ends no worker, and a reload leaves those that there are', { skip }, async (test) => {
  const disk = smallDisk();
  if (disk === undefined) {
    test.skip('needs the right to mount a file system');
    return;
  }
  try {
    deploy('one');
    const args = ['--worker-tmp-dir', disk.path];
    await withServer({ app: 'app', chdir: folder, workers: 2, args }, async (server) => {
      fill(disk);
      const before = await workers(server);
      server.kill('SIGHUP');
      await server.waitForLog(/\[CRITICAL\] .*worker-\d+\.begun could not be written: .*No space left on device/);
      await server.waitForLog(/The replacement of worker \d did not boot: the worker stays/);
      assert.deepEqual(await workers(server), before);
      assert.doesNotMatch(server.log, /SIGBUS|Traceback/);
    });
  } finally {
    disk.release();
  }
});
