// --preload: the application is imported once, by the mold, and the workers are forked from it.
import { strict as assert } from 'node:assert';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { isAlive, type ProcessInfo } from '../helpers/processes.ts';
import { type Server, withServer } from '../helpers/server.ts';

const APP = 'pathology.faults:application';
const OPTIONS = { app: APP, workers: 2, threads: 2, args: ['--preload'] } as const;
const skip = !NUNICORN_RUNS;

function python(server: Server): ProcessInfo[] {
  return server.processes().filter(({ exe }) => exe.startsWith('python'));
}

/** The parent of the workers. */
function moldOf(server: Server): number {
  const parents = new Set(python(server).map(({ ppid }) => ppid));
  const mold = python(server).find(({ pid }) => parents.has(pid));
  assert.ok(mold, JSON.stringify(python(server)));
  return mold.pid;
}

it('serves, and the workers are children of the mold', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const mold = moldOf(server);
    for (let i = 0; i < 10; i++) assert.equal(Number((await server.get('/ppid')).text()), mold);
    await until(() => server.workers().length === 2, 'two workers');
  });
});

it('in the development mode of Python the log has no warning of the server itself', { skip }, async () => {
  const hooks = { 'gunicorn.conf.py': 'def when_ready(server):\n    pass\n' };
  const env = { PYTHONDEVMODE: '1', PYTHONWARNDEFAULTENCODING: '1' };
  for (const own of [{}, { args: ['--access-logfile', '/dev/null'] }, { files: hooks }]) {
    await withServer({ ...OPTIONS, ...own, env }, async (server) => {
      assert.equal((await server.get('/')).text(), 'ok');
      await server.stop();
      assert.deepEqual(server.log.match(/.*Warning.*/g), null);
    });
  }
});

it('a warning names the threads that the import has started, and none of an agent', { skip }, async () => {
  const thread = (name: string): string =>
    `import threading\nthreading.Thread(target=threading.Event().wait, name="${name}", daemon=True).start()\n`;
  const files = {
    'agent/sitecustomize.py': thread('of the agent'),
    'app.py': `${thread('of the app')}from pathology.faults import application\n`,
  };
  const env = { PYTHONPATH: '{home}/agent' };
  await withServer({ ...OPTIONS, app: 'app', files, env }, async (server) => {
    await server.waitForLog(/the import has started threads; .*: of the app$/m);
  });
  await withServer({ ...OPTIONS, files, env }, async (server) => {
    assert.equal((await server.get('/')).text(), 'ok');
    assert.doesNotMatch(server.log, /has started threads/);
  });
});

it('a worker killed -9 is forked again from the same mold', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const mold = moldOf(server);
    const [victim] = await until(() => (server.workers().length === 2 ? server.workers() : undefined), 'two workers');
    assert.ok(victim);
    process.kill(victim, 'SIGKILL');
    await until(() => !server.workers().includes(victim) && server.workers().length === 2, 'the replacement');
    assert.equal((await server.get('/')).text(), 'ok');
    assert.equal(moldOf(server), mold);
    await server.noZombies();
  });
});

it('a request in a worker that dies gets 502', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    assert.equal((await server.get('/os-exit?1')).status, 502);
    assert.equal((await server.get('/')).text(), 'ok');
  });
});

it('the mold killed -9: service goes on and workers come from a new one', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const mold = moldOf(server);
    const held = await server.connect();
    await held.send('GET /hold?kept HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('kept.started');
    process.kill(mold, 'SIGKILL');
    for (let i = 0; i < 20; i++) assert.equal((await server.get('/')).text(), 'ok');
    await until(
      async () => {
        const parents = new Set(python(server).map(({ ppid }) => ppid));
        const young = python(server).find(({ pid }) => parents.has(pid));
        return young !== undefined && young.pid !== mold && !isAlive(mold);
      },
      'a new mold with workers',
      30_000,
    );
    assert.equal((await server.get('/')).text(), 'ok');
    // The workers of the mold that died finish what they run.
    server.mark('kept.open');
    assert.equal((await held.response()).status, 200);
    held.close();
  });
});

it('the mold and its workers killed -9 together: all are started again', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const before = [moldOf(server), ...server.workers()];
    for (const pid of before) process.kill(pid, 'SIGKILL');
    await until(
      () => server.molds().length === 1 && server.workers().length === 2,
      () => `a new mold with two workers\n${server.output}`,
      30_000,
    );
    assert.equal((await server.get('/')).text(), 'ok');
    await server.noZombies();
  });
});

/** An application whose mold, while the file `wrong` is there, does something else than fork. */
function forkingApp(wrong: string, head = ''): Record<string, string> {
  return {
    'forking.py': `import os, time
${head}
real_fork = os.fork
def fork():
    if os.path.exists("wrong"):
        ${wrong}
    return real_fork()
os.fork = fork
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
`,
  };
}

it('a worker for which the system has no process is forked when it has one', { skip }, async () => {
  const files = forkingApp('raise BlockingIOError(11, "Resource temporarily unavailable")');
  await withServer({ ...OPTIONS, app: 'forking', chdir: '{home}', files }, async (server) => {
    const mold = moldOf(server);
    server.mark('wrong');
    process.kill(server.workers()[0] ?? 0, 'SIGKILL');
    await server.waitForLog(/Worker \d could not be forked: .*Resource temporarily unavailable/);
    rmSync(join(server.home, 'wrong'));
    await until(() => server.workers().length === 2, 'two workers');
    assert.equal(moldOf(server), mold);
  });
});

it('an import that opens more than 1024 descriptors', { skip }, async () => {
  const app = `
import os

kept = [os.dup(0) for _ in range(1100)]

def application(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
`;
  await withServer({ ...OPTIONS, app: 'opening', chdir: '{home}', files: { 'opening.py': app } }, async (server) => {
    process.kill(server.workers()[0] ?? 0, 'SIGKILL');
    await until(() => server.workers().length === 2, 'two workers');
  });
});

it('a mold that dies at each fork is started again later each time', { skip }, async () => {
  // Its import takes longer than a process has to live to be healthy.
  const files = forkingApp('os._exit(7)', 'time.sleep(1.2)');
  await withServer({ ...OPTIONS, app: 'forking', chdir: '{home}', files }, async (server) => {
    server.mark('wrong');
    process.kill(server.workers()[0] ?? 0, 'SIGKILL');
    await server.waitForLog(/The mold is started again in 0.5 s/, { ms: 30_000 });
    rmSync(join(server.home, 'wrong'));
    await until(() => server.workers().length === 2, 'two workers', 30_000);
  });
});

it('a mold that hangs when it is to fork is replaced', { skip }, async () => {
  const files = forkingApp('time.sleep(600)');
  const args = ['--preload', '--boot-timeout', '4'];
  await withServer({ ...OPTIONS, app: 'forking', chdir: '{home}', files, args }, async (server) => {
    const mold = moldOf(server);
    server.mark('wrong');
    for (const worker of server.workers()) process.kill(worker, 'SIGKILL');
    await server.waitForLog(
      /The mold \(pid:\d+\) did not fork within 4 s \(--boot-timeout\)\n.*forking\.py", line \d+ in fork/s,
      {
        ms: 30_000,
      },
    );
    rmSync(join(server.home, 'wrong'));
    await until(() => server.workers().length === 2, 'two workers', 30_000);
    assert.notEqual(moldOf(server), mold);
  });
});

it('SIGTERM ends a server whose mold is stopped', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const mold = moldOf(server);
    process.kill(mold, 'SIGSTOP');
    server.kill('SIGTERM');
    await server.waitForLog(/Shutting down: Master/);
    process.kill(mold, 'SIGCONT');
    assert.deepEqual(await server.exit(), { code: 0, signal: null });
  });
});

it("a signal to the workers' parent is the master's, whatever the app has done with it at import", {
  skip,
}, async () => {
  const files = {
    'handling.py': `
import os, signal
from pathology.faults import application
signal.signal(signal.SIGTTIN, lambda *_: os._exit(1))
`,
  };
  await withServer({ ...OPTIONS, app: 'handling:application', files }, async (server) => {
    process.kill(moldOf(server), 'SIGTTIN');
    await server.waitForLog(/Handling signal: ttin/);
    await until(() => server.workers().length === 3, 'the third worker');
  });
});

it('threads that are started at the fork have no signals blocked, and a signal to the worker is not passed on', {
  skip,
}, async () => {
  const files = {
    'forked.py': `
import os, signal, threading
blocked = []
def in_child():
    os.kill(os.getpid(), signal.SIGTTIN)
    thread = threading.Thread(target=lambda: blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    thread.start()
    thread.join()
os.register_at_fork(after_in_child=in_child)
def application(environ, start_response):
    start_response("200 OK", [])
    return [repr(blocked).encode()]
`,
  };
  await withServer({ ...OPTIONS, app: 'forked:application', files }, async (server) => {
    assert.equal((await server.get('/')).text(), '[set()]');
    await server.stop();
    assert.doesNotMatch(server.log, /Handling signal: ttin/);
  });
});

it('SIGTERM finishes what runs', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const held = await server.connect();
    await held.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('a.started');
    server.kill('SIGTERM');
    await server.waitForLog(/Handling signal: term/);
    server.mark('a.open');
    assert.equal((await held.response()).text(), 'held');
    held.close();
    assert.deepEqual(await server.exit(), { code: 0, signal: null });
  });
});

it('a request that hangs is a 504 and its worker is replaced', { skip }, async () => {
  const args = ['--preload', '--timeout', '1', '--graceful-timeout', '2'];
  await withServer({ ...OPTIONS, args }, async (server) => {
    for (const path of ['/loop', '/gil-sleep']) assert.equal((await server.get(path, '', 20_000)).status, 504, path);
    await until(() => server.workers().length === 2, 'two workers');
    assert.equal((await server.get('/')).text(), 'ok');
  });
});
