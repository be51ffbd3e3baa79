// USR2: a new master of the code that is there now takes over the listening sockets. Then WINCH and TERM end the old one, or HUP
// and the end of the new one go back.
import { strict as assert } from 'node:assert';
import { cpSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { get } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { ROOT } from '../helpers/paths.ts';
import { freePort, isListening } from '../helpers/ports.ts';
import { isAlive } from '../helpers/processes.ts';
import { type Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const skip = !NUNICORN_RUNS;
const LONG_MS = 30_000;
let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'upgrade-'));
  deploy('one');
});
afterEach(() => rmSync(folder, { recursive: true }));

function deploy(version: string, head = ''): void {
  writeFileSync(
    join(folder, 'app.py'),
    `${head}
def application(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [b"${version}"]
`,
  );
}

const pidFile = (): string => join(folder, 'pid');

/** Runs the test while clients ask on and on, and proves that each got its answer. */
async function underLoad(server: Server, test: (load: Load) => Promise<void>): Promise<void> {
  const load = new Load({
    address: server.address,
    clients: 8,
    method: 'POST',
    body: Buffer.alloc(16_384, 'x'),
    keepAlive: true,
  });
  try {
    await load.more(100);
    await test(load);
    await load.more(100);
  } finally {
    await load.stop();
  }
  assert.deepEqual([...load.outcomes.keys()], ['200'], `${load.describe()}\n${server.output}`);
}

/** Sends USR2 and gives the pid of the new master when its workers serve. */
async function upgrade(server: Server, old: number): Promise<number> {
  const from = server.log.length;
  process.kill(old, 'SIGUSR2');
  const since = (): string => server.log.slice(from);
  // The old master's own "Started" may come only now.
  const started = /new master is pid (\d+)\n[\s\S]*\[\1\] \[INFO\] Started: all workers are ready/;
  await until(
    () => started.test(since()),
    () => `the new master\n${server.output}`,
    LONG_MS,
  );
  return Number(started.exec(since())?.[1]);
}

async function end(server: Server, pid: number, ...signals: NodeJS.Signals[]): Promise<void> {
  for (const signal of signals) process.kill(pid, signal);
  await until(
    () => !isAlive(pid),
    () => `the end of ${pid}\n${server.output}`,
    LONG_MS,
  );
}

it('three upgrades under load: no request fails, the pid file follows, sockets and files stay', { skip }, async () => {
  const path = join(folder, 'app.sock');
  const bind = [`127.0.0.1:${await freePort()}`, `unix:${path}`];
  const args = ['--pid', pidFile()];
  await withServer({ app: 'app', chdir: folder, workers: 2, threads: 2, bind, args }, async (server) => {
    let master = server.pid;
    await underLoad(server, async (load) => {
      for (const version of ['two', 'three', 'four']) {
        deploy(version);
        const next = await upgrade(server, master);
        assert.equal(readFileSync(pidFile(), 'utf8'), `${master}\n`);
        assert.equal(readFileSync(`${pidFile()}.2`, 'utf8'), `${next}\n`);
        assert.ok(server.processes().some(({ pid, title }) => pid === next && title.endsWith('master [app.2]')));
        await end(server, master, 'SIGWINCH', 'SIGTERM');
        await until(
          () => existsSync(pidFile()) && readFileSync(pidFile(), 'utf8') === `${next}\n`,
          'the pid file of the new master',
        );
        await until(() => !existsSync(`${pidFile()}.2`), 'its other name to go');
        await until(
          () => server.processes().some(({ pid, title }) => pid === next && title.endsWith('master [app]')),
          'its title',
        );
        for (const address of [server.address, { path }]) assert.equal((await get(address, '/')).text(), version);
        await load.more(100);
        master = next;
      }
    });
    await end(server, master, 'SIGTERM');
    assert.ok(!existsSync(path) && !existsSync(pidFile()));
  });
});

it('WINCH puts the old master to rest, HUP and the end of the new one go back, and no request fails', {
  skip,
}, async () => {
  const path = join(folder, 'app.sock');
  const control = join(folder, 'app.ctl');
  const args = ['--pid', pidFile(), '--control-socket', control];
  await withServer({ app: 'app', chdir: folder, workers: 2, bind: [`unix:${path}`], args }, async (server) => {
    await underLoad(server, async (load) => {
      const workers = server.workers();
      deploy('worse');
      const next = await upgrade(server, server.pid);
      process.kill(server.pid, 'SIGWINCH');
      await until(() => !workers.some(isAlive), 'the old workers to go', LONG_MS);
      assert.equal((await server.get('/')).text(), 'worse');
      await load.more(50);

      deploy('one');
      const from = server.log.length;
      server.kill('SIGHUP');
      await server.waitForLog(/Reloaded: all workers are ready/, { from, ms: LONG_MS });
      assert.ok(await isListening({ path: control }), 'the new master is asked while it is there');
      await end(server, next, 'SIGTERM');
      await until(() => isListening({ path: control }), 'the old master to be asked again', LONG_MS);
      assert.ok(existsSync(path), 'the socket file is still there');
      assert.equal((await server.get('/')).text(), 'one');
    });
    assert.equal(readFileSync(pidFile(), 'utf8'), `${server.pid}\n`);
  });
});

it('an upgrade to code that does not boot: the old master goes on and says so', { skip }, async () => {
  await withServer({ app: 'app', chdir: folder, workers: 2 }, async (server) => {
    deploy('bad', 'raise RuntimeError("a bad deployment")');
    server.kill('SIGUSR2');
    await server.waitForLog(/The new master \(pid:\d+\) has ended \(code 3\); this one goes on/, { ms: LONG_MS });
    assert.match(server.log, /RuntimeError: a bad deployment/);
    assert.equal((await server.get('/')).text(), 'one');
    deploy('good');
    const next = await upgrade(server, server.pid);
    process.kill(server.pid, 'SIGUSR2');
    await server.waitForLog(/USR2 signal ignored. Child exists./);
    process.kill(next, 'SIGUSR2');
    await server.waitForLog(/USR2 signal ignored. Parent exists./);
    await end(server, server.pid, 'SIGTERM');
    assert.equal((await server.get('/')).text(), 'good');
    await end(server, next, 'SIGTERM');
  });
});

it('the new master dies while the old one rests: that serves again', { skip }, async () => {
  await withServer({ app: 'app', chdir: folder, workers: 2 }, async (server) => {
    const workers = server.workers();
    const next = await upgrade(server, server.pid);
    server.kill('SIGWINCH');
    await until(() => !workers.some(isAlive), 'the old workers to go', LONG_MS);
    process.kill(next, 'SIGKILL');
    await server.waitForLog(/this one goes on/);
    assert.equal((await server.get('/', '', LONG_MS)).text(), 'one');
  });
});

/** A copy of this package of another version. */
function install(version: string): string {
  const path = join(folder, version);
  const parts = ['bin', join('dist', 'src'), join('src', 'bridge', 'python')];
  for (const part of parts) cpSync(join(ROOT, part), join(path, part), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(path, 'node_modules'));
  const about = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as object;
  writeFileSync(join(path, 'package.json'), JSON.stringify({ ...about, version }));
  return path;
}

it('an upgrade of nunicorn itself: a new version takes over under load, and no request fails', { skip }, async () => {
  const current = join(folder, 'current');
  symlinkSync(install('1.0.0-old'), current);
  // Before the load: while it copies, this process is deaf, and idle connections are closed.
  symlinkSync(install('2.0.0-new'), `${current}.next`);
  // Node and the path of this package come first: the copy takes its place.
  const by = ['sh', '-c', `node=$1; shift 2; exec "$node" ${current}/bin/nunicorn.js "$@"`, 'sh'];
  await withServer({ app: 'app', chdir: folder, workers: 2, threads: 2, by }, async (server) => {
    assert.match(server.log, /Starting nunicorn 1\.0\.0-old\n/);
    let next = 0;
    await underLoad(server, async () => {
      renameSync(`${current}.next`, current);
      next = await upgrade(server, server.pid);
      assert.match(server.log, /Starting nunicorn 2\.0\.0-new\n/);
      await end(server, server.pid, 'SIGTERM');
    });
    await end(server, next, 'SIGTERM');
  });
});

it('a new master has the settings that are there now', { skip }, async () => {
  const file = join(folder, 'conf.py');
  writeFileSync(file, 'threads = 2\n');
  await withServer({ app: 'app', chdir: folder, args: ['-c', file] }, async (server) => {
    writeFileSync(file, 'threads = 3\n');
    const next = await upgrade(server, server.pid);
    assert.match(server.log, /1 worker x 3 threads/);
    await end(server, server.pid, 'SIGTERM');
    assert.equal((await server.get('/')).text(), 'one');
    await end(server, next, 'SIGTERM');
  });
});
