// Processes that die: each role is killed under load, and what an application does to its own process.
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { Admin } from '../helpers/admin.ts';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { isAlive, killIfAlive } from '../helpers/processes.ts';
import { type Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const APP = 'pathology.faults:application';
const skip = !NUNICORN_RUNS;
/** What the design promises for everything that follows the death of the master. */
const MASTER_DEATH_MS = 2_000;

function firstOf(pids: readonly number[]): number {
  const [pid] = pids;
  assert.ok(pid !== undefined, 'no such process');
  return pid;
}

async function workersBack(server: Server, wanted: number): Promise<void> {
  await until(
    () => server.workers().length === wanted,
    () => `${wanted} workers; have ${server.workers()}`,
  );
}

it('a worker killed -9: its request gets 502, the others nothing of it, it is replaced', { skip }, async () => {
  await withServer({ app: APP, workers: 2, threads: 2 }, async (server) => {
    const names = ['a', 'b', 'c', 'd'];
    const held = new Map(
      await Promise.all(
        names.map(async (name) => {
          const connection = await server.connect();
          await connection.send(`GET /hold?${name} HTTP/1.1\r\nHost: test\r\n\r\n`);
          await server.marked(`${name}.started`);
          return [name, connection] as const;
        }),
      ),
    );
    const waiting = await server.connect();
    await waiting.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
    const victim = firstOf(server.workers());
    process.kill(victim, 'SIGKILL');
    // Two of the four ran there. Their clients hear of it at once, the one that waits runs on the replacement.
    const statuses: number[] = [];
    const answers = [...held.values()].map(async (connection) => {
      statuses.push((await connection.response()).status);
    });
    await until(
      () => statuses.length === 2,
      () => `two answers; have ${statuses}`,
    );
    assert.deepEqual(statuses, [502, 502]);
    assert.equal((await waiting.response()).text(), 'ok');
    for (const name of names) server.mark(`${name}.open`);
    await Promise.all(answers);
    assert.deepEqual(statuses, [502, 502, 200, 200]);
    await workersBack(server, 2);
    await server.waitForLog(new RegExp(`\\(pid:\\s?${victim}\\).*SIGKILL`));
    await server.noZombies();
    for (const connection of held.values()) connection.close();
    waiting.close();
  });
});

it('a worker killed -9 while a front comes to it: nothing of its pipes stays in memory', { skip }, async () => {
  const files = {
    'killed.py': `import os, signal
unlink = os.unlink
def unlink_late(path):
    if str(path).endswith(".requests") and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    unlink(path)
os.unlink = unlink_late
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
`,
  };
  await withServer({ app: 'killed', chdir: '{home}', files }, async (server) => {
    assert.ok(existsSync(join(server.home, 'killed')));
    const folders = readdirSync(server.temporary);
    assert.ok(folders.length > 0);
    const isOurs = (name: string): boolean => folders.some((folder) => name.startsWith(`${folder}-`));
    assert.deepEqual(readdirSync('/dev/shm').filter(isOurs), []);
  });
});

it('workers killed -9 under load: only 200 and 502, no connection lost', { skip }, async () => {
  await withServer({ app: APP, workers: 2, threads: 2 }, async (server) => {
    const load = new Load({ address: server.address, clients: 8, keepAlive: true });
    await load.more(100);
    const kills = 5;
    for (let time = 0; time < kills; time++) {
      process.kill(firstOf(server.workers()), 'SIGKILL');
      await workersBack(server, 2);
      await load.more(200);
    }
    const outcomes = await load.stop();
    for (const outcome of outcomes.keys()) assert.match(outcome, /^(200|502)$/, load.describe());
    // At most what ran there: two threads, and what had been sent ahead and was not taken back is no reason either.
    assert.ok(load.count('502') <= kills * 8, load.describe());
    await server.noZombies();
  });
});

it('a front killed -9: it is back and serves, and no worker was restarted', { skip }, async () => {
  await withServer({ app: APP, workers: 2, threads: 2 }, async (server) => {
    const before = server.workers();
    for (let time = 0; time < 3; time++) {
      const front = firstOf(server.fronts());
      process.kill(front, 'SIGKILL');
      await until(() => !isAlive(front), 'the front to end');
      // The listener is the master's: nobody is refused while the new front comes up.
      for (let i = 0; i < 10; i++) assert.equal((await server.get('/')).text(), 'ok');
      assert.equal(server.fronts().length, 1);
    }
    assert.deepEqual(server.workers(), before);
    assert.equal([...server.log.matchAll(/Booting worker/g)].length, 2);
    await server.noZombies();
  });
});

it('a front killed -9 while a request runs: that client is cut off, the next one served', { skip }, async () => {
  await withServer({ app: APP }, async (server) => {
    const worker = firstOf(server.workers());
    const held = await server.connect();
    await held.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('a.started');
    process.kill(firstOf(server.fronts()), 'SIGKILL');
    await held.end();
    held.close();
    server.mark('a.open');
    await server.marked('a.finished');
    assert.equal(Number((await server.get('/pid')).text()), worker);
  });
});

it('a front killed -9 after a request ran into --timeout: the thread that was interrupted gets nothing more', {
  skip,
}, async () => {
  const files = {
    'late.py': `import os, threading, time
if os.path.exists("booted"):
    while not os.path.exists("boot"):
        time.sleep(0.01)
open("booted", "w").close()
def application(environ, start_response):
    while environ["PATH_INFO"] == "/loop":
        time.sleep(0.01)
    start_response("200 OK", [])
    return [b"%d, %s" % (os.getpid(), threading.current_thread().name.encode())]
`,
  };
  await withServer({ app: 'late', chdir: '{home}', threads: 2, files, args: ['--timeout', '1'] }, async (server) => {
    const worker = firstOf(server.workers());
    assert.equal((await server.get('/loop', '', 20_000)).status, 504);
    await server.waitForLog(/is replaced: a request ran into --timeout/);
    const interrupted = /in worker 1, (thread) (\d)$/m.exec(server.log)?.slice(1).join('-');
    process.kill(firstOf(server.fronts()), 'SIGKILL');
    await server.waitForLog(new RegExp(`Worker \\(pid:${worker}\\) was left by a front`));
    for (let i = 0; i < 10; i++)
      assert.notEqual((await server.get('/', '', 20_000)).text(), `${worker}, nunicorn-${interrupted}`);
    writeFileSync(join(server.home, 'boot'), '');
    await until(() => !server.workers().includes(worker), 'the worker to be replaced');
  });
});

it('the master killed -9: everything is gone within 2 s', { skip }, async () => {
  for (const args of [[], ['--preload']]) {
    await withServer({ app: APP, workers: 2, threads: 2, args }, async (server) => {
      const held = await server.connect();
      await held.send('GET /sleep HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.marked('sleeping');
      const { pid } = server;
      const others = server.processes().filter((info) => info.pid !== pid);
      assert.ok(others.length >= 3);
      server.kill('SIGKILL');
      await until(
        () => others.every((info) => !isAlive(info.pid)),
        () => `left: ${JSON.stringify(others.filter((info) => isAlive(info.pid)))}`,
        MASTER_DEATH_MS,
      );
      await held.end();
      held.close();
      await server.nothingLeft(MASTER_DEATH_MS);
    });
  }
});

it('the master killed -9 while a worker holds the GIL: gone within 2 s all the same', { skip }, async () => {
  await withServer({ app: APP, threads: 2 }, async (server) => {
    const held = await server.connect();
    await held.send('GET /gil-sleep HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('gil');
    server.kill('SIGKILL');
    await server.exit();
    await server.nothingLeft(MASTER_DEATH_MS);
    held.close();
  });
});

for (const [path, what] of [
  ['/os-exit?1', 'os._exit(1)'],
  ['/os-exit?0', 'os._exit(0)'],
  ['/os-exit?3', 'os._exit(3), the code of a failed boot'],
  ['/os-exit?4', 'os._exit(4), the code of a missing application'],
  ['/segfault', 'a segmentation fault'],
  ['/kill?SIGKILL', 'SIGKILL to itself'],
  ['/kill?SIGABRT', 'SIGABRT to itself'],
] as const) {
  it(`${what} in a request: 502, and the worker is replaced`, { skip }, async () => {
    for (const threads of [1, 2]) {
      await withServer({ app: APP, threads }, async (server) => {
        const worker = Number((await server.get('/pid')).text());
        const response = await server.get(path);
        assert.equal(response.status, 502);
        assert.match(response.text(), /<html>/i);
        assert.notEqual(Number((await server.get('/pid')).text()), worker);
        await workersBack(server, 1);
        assert.equal(server.hasExited, false);
      });
    }
  });
}

it('an application that closes all descriptors: 502, and the worker is replaced', { skip }, async () => {
  for (const workers of [1, 2]) {
    await withServer({ app: APP, threads: 2, workers }, async (server) => {
      const before = server.workers();
      assert.equal((await server.get('/close-all')).status, 502);
      await until(
        () => server.workers().filter((pid) => before.includes(pid)).length === workers - 1,
        'the end of the worker that nobody can speak to',
      );
      await workersBack(server, workers);
      for (let i = 0; i < 5; i++) assert.equal((await server.get('/')).text(), 'ok');
    });
  }
});

it('a worker that dies in the middle of a stream: the stream is cut, not ended', { skip }, async () => {
  await withServer({ app: APP }, async (server) => {
    const connection = await server.connect();
    await connection.send('GET /stream HTTP/1.1\r\nHost: test\r\n\r\n');
    await connection.readThrough('for ever\n');
    process.kill(firstOf(server.workers()), 'SIGKILL');
    await connection.end();
    assert.doesNotMatch(connection.pending, /\r\n0\r\n\r\n$/);
    connection.close();
    assert.equal((await server.get('/')).text(), 'ok');
  });
});

it('an application that closes stdout and stderr is served on', { skip }, async () => {
  await withServer({ app: APP }, async (server) => {
    assert.equal((await server.get('/close-std')).status, 200);
    for (let i = 0; i < 5; i++) assert.equal((await server.get('/')).text(), 'ok');
    assert.equal((await server.get('/print?x')).status, 500);
    assert.equal((await server.get('/')).text(), 'ok');
  });
});

it('an application may fork in a request', { skip }, async () => {
  for (const threads of [1, 2]) {
    await withServer({ app: APP, threads }, async (server) => {
      for (let i = 0; i < 5; i++) assert.equal((await server.get('/fork')).text(), 'child exited with 0');
      assert.equal((await server.get('/')).text(), 'ok');
    });
  }
});

it('an application may use multiprocessing in a request, however it starts its processes', { skip }, async () => {
  await withServer({ app: APP, threads: 2 }, async (server) => {
    for (const method of ['fork', 'spawn', 'forkserver'])
      assert.equal((await server.get(`/multiprocessing?${method}`)).text(), 'child exited with 0', method);
  });
});

it('an application may end by a signal what it has forked, which is no signal to its worker', { skip }, async () => {
  for (const args of [[], ['--preload']]) {
    await withServer({ app: 'forks_processes:application', threads: 2, args }, async (server) => {
      const worker = (await server.get('/pid')).text();
      for (let i = 0; i < 10; i++) assert.equal((await server.get('/request')).text(), 'ended by signal 15');
      // With --preload it is a child of the mold, which a worker cannot wait for.
      if (args.length === 0) assert.equal((await server.get('/import')).text(), 'ended by signal 15');
      assert.equal((await server.get('/pid')).text(), worker);
      assert.doesNotMatch(server.log, /SIGTERM/);
    });
  }
});

it('a process that the application has forked at its import does not hold up the end', { skip }, async () => {
  await withServer({ app: 'forks_processes:application', args: ['--graceful-timeout', '20'] }, async (server) => {
    await server.ready();
    server.kill('SIGTERM');
    assert.equal((await server.exit()).code, 0);
    assert.doesNotMatch(server.log, /does not leave/);
  });
});

it('a forked child that stays does not hide the death of its worker', { skip }, async () => {
  await withServer({ app: APP }, async (server) => {
    const child = Number((await server.get('/fork-stays?30')).text());
    const worker = firstOf(server.workers());
    process.kill(worker, 'SIGKILL');
    await workersBack(server, 1);
    assert.equal((await server.get('/')).text(), 'ok');
    assert.notEqual(firstOf(server.workers()), worker);
    killIfAlive(child, 'SIGKILL');
  });
});

it('a response header of 200 KB harms nobody', { skip }, async () => {
  await withServer({ app: APP }, async (server) => {
    const { status } = await server.get('/huge-header');
    assert.ok(status === 200 || status === 500, String(status));
    assert.equal((await server.get('/')).text(), 'ok');
  });
});

it('no process holds more descriptors after a load than before', { skip }, async () => {
  await withServer({ app: 'wsgi_matrix:application', workers: 2, threads: 2 }, async (server) => {
    const warm = async (): Promise<void> => {
      for (const path of ['/', '/generator', '/file', '/big?300000', '/stream/bytes?300000', '/error/before']) {
        const load = new Load({ address: server.address, clients: 8, path });
        await load.more(40);
        const outcomes = await load.stop();
        assert.deepEqual([...outcomes.keys()], [path === '/error/before' ? '500' : '200']);
      }
    };
    await warm();
    await server.get('/');
    // Connections that are on their way out would count; the first look waits for none of them to be left.
    const before = await until(async () => {
      const counts = await server.descriptorsAtRest();
      return counts.size >= 4 ? counts : undefined;
    }, 'all processes');
    await warm();
    await server.descriptorsBackTo(before);
  });
});

it('SIGSTOP and SIGCONT of a worker: its request is finished', { skip }, async () => {
  await withServer({ app: APP }, async (server) => {
    const worker = firstOf(server.workers());
    const held = await server.connect();
    await held.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('a.started');
    process.kill(worker, 'SIGSTOP');
    await until(() => server.processes().some(({ pid, state }) => pid === worker && state === 'T'), 'the stop');
    server.mark('a.open');
    process.kill(worker, 'SIGCONT');
    assert.equal((await held.response()).text(), 'held');
    held.close();
    assert.deepEqual(server.workers(), [worker]);
  });
});

it('a worker that dies before the front has heard of it', { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, workers: 1, threads: 1, args: [...admin.args] }, async (server) => {
    const front = firstOf(server.fronts());
    const first = firstOf(server.workers());
    process.kill(front, 'SIGSTOP');
    try {
      process.kill(first, 'SIGKILL');
      const second = await until(
        async () =>
          (await admin.status()).workers.find(({ pid, state }) => pid !== first && state === 'ready' && pid !== null)
            ?.pid,
        'the next worker',
      );
      process.kill(second, 'SIGKILL');
      await server.waitForLog(new RegExp(`Worker \\(pid:${second}\\) was sent SIGKILL`));
    } finally {
      process.kill(front, 'SIGCONT');
    }
    assert.equal((await server.get('/')).text(), 'ok');
    assert.doesNotMatch(server.log, /Front 1 .* ended \(code/);
  });
});
