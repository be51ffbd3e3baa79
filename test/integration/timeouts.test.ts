// A request that does not come back: the client gets 504 at the deadline, its neighbours lose nothing.
import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Admin } from '../helpers/admin.ts';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { PYTHON } from '../helpers/paths.ts';
import { type Server, withServer } from '../helpers/server.ts';

const APP = 'pathology.faults:application';
const skip = !NUNICORN_RUNS;
/** A free-threaded build has no lock that could be held. */
const IS_FREE_THREADED = execFileSync(PYTHON, ['-c', 'import sys; print(sys.abiflags)'], { encoding: 'utf8' }).includes(
  't',
);

async function pid(server: Server): Promise<number> {
  return Number((await server.get('/pid')).text());
}

async function assert504(server: Server, path: string): Promise<void> {
  const response = await server.get(path, '', 20_000);
  assert.equal(response.status, 504, path);
  assert.match(response.text(), /<html>/i);
  assert.equal(response.header('connection')?.toLowerCase(), 'close');
}

/** After whatever happened: the server answers, with as many workers as before. */
async function assertRecovered(server: Server, workers: number): Promise<void> {
  await until(async () => (await server.get('/', '', 20_000)).status === 200, 'a 200 again', 20_000);
  await until(() => server.workers().length === workers, `${workers} workers again`, 20_000);
  await server.noZombies();
}

/** What ran into --timeout there has come back. */
async function assertLeavesInOrder(server: Server, worker: number): Promise<void> {
  await server.waitForLog(/Worker 1 \(pid:\d+\) is replaced: a request ran into --timeout/);
  await server.waitForLog(new RegExp(`Worker exiting \\(pid: ${worker}\\)`));
  await assertRecovered(server, 1);
  assert.doesNotMatch(server.log, /does not leave by itself/);
}

const HANGS = ['/sleep', '/loop', '/regex', '/gil-sleep', '/gil-poll', '/gil-wait', '/swallow', '/socket'];

for (const threads of [1, 4]) {
  describe(`--timeout 1 with ${threads} thread(s)`, { skip }, () => {
    for (const path of HANGS) {
      it(`${path} is a 504 and the server goes on`, async () => {
        const args = ['--timeout', '1', '--graceful-timeout', '2'];
        await withServer({ app: APP, threads, args }, async (server) => {
          await assert504(server, path);
          await assertRecovered(server, 1);
        });
      });
    }
  });
}

it('the log names method, path, age, pid, worker and thread, and shows where the request stood', { skip }, async () => {
  for (const threads of [1, 2]) {
    await withServer({ app: APP, threads, args: ['--timeout', '1'] }, async (server) => {
      const worker = await pid(server);
      await assert504(server, '/sleep');
      await server.waitForLog(
        new RegExp(`WORKER TIMEOUT \\(pid:${worker}\\): GET /sleep, [\\d.]+ s old, in worker 1, thread [12]\n`),
      );
      await server.waitForLog(/a_function_that_sleeps/);
    });
  }
});

it('a worker that is slow to tell where a request stands is not asked from outside', { skip }, async () => {
  await withServer({ app: APP, args: ['--timeout', '1'] }, async (server) => {
    const worker = await pid(server);
    const hanging = assert504(server, '/sleep');
    await server.marked('sleeping');
    process.kill(worker, 'SIGSTOP');
    await hanging;
    await delay(100);
    process.kill(worker, 'SIGCONT');
    await server.waitForLog(/a_function_that_sleeps/);
    const stacks = readdirSync(server.temporary, { recursive: true, encoding: 'utf8' }).filter((path) =>
      path.endsWith('worker-1.stacks'),
    );
    assert.deepEqual(
      stacks.map((path) => readFileSync(join(server.temporary, path), 'utf8')),
      [''],
    );
  });
});

it('with one thread a sleeping request is interrupted, and its worker leaves in order', { skip }, async () => {
  await withServer({ app: APP, args: ['--timeout', '1'] }, async (server) => {
    const worker = await pid(server);
    await assert504(server, '/sleep');
    await server.marked('sleep-left');
    await assertLeavesInOrder(server, worker);
  });
});

it('a Python loop is interrupted, and its worker leaves in order', { skip }, async () => {
  for (const threads of [1, 4]) {
    await withServer({ app: APP, threads, args: ['--timeout', '1'] }, async (server) => {
      const worker = await pid(server);
      await assert504(server, '/loop');
      await assertLeavesInOrder(server, worker);
    });
  }
});

it('no request gets the answer that one which was interrupted has left in a connection', { skip }, async () => {
  const files = {
    'asking.py': `import socket, threading, time
here, there = socket.socketpair()
def answer():
    for question in there.makefile("rb"):
        time.sleep(2 if question == b"slow\\n" else 0)
        there.sendall(question)
threading.Thread(target=answer, daemon=True).start()
answers = here.makefile("rb")
def application(environ, start_response):
    here.sendall(environ["QUERY_STRING"].encode() + b"\\n")
    start_response("200 OK", [])
    return [answers.readline().rstrip()]
`,
  };
  await withServer({ app: 'asking', chdir: '{home}', files, args: ['--timeout', '1'] }, async (server) => {
    assert.equal((await server.get('/?one')).text(), 'one');
    await assert504(server, '/?slow');
    assert.equal((await server.get('/?two', '', 20_000)).text(), 'two');
  });
});

it('an event loop of the app ends at the deadline, whatever it runs', { skip }, async () => {
  for (const threads of [1, 4]) {
    await withServer({ app: APP, threads, args: ['--timeout', '1'] }, async (server) => {
      const worker = await pid(server);
      await assert504(server, '/callback');
      await assertLeavesInOrder(server, worker);
      assert.doesNotMatch(server.log, /Exception in callback/);
    });
  }
});

it('a worker whose thread comes back after all leaves in order', { skip }, async () => {
  await withServer({ app: APP, threads: 2, args: ['--timeout', '1', '--graceful-timeout', '20'] }, async (server) => {
    const worker = await pid(server);
    const late = assert504(server, '/fifo?late');
    await server.marked('late.made');
    // Keeps the worker until the other one is back.
    const neighbour = server.get('/ticks?35', '', 20_000);
    await late;
    await server.waitForLog(/Worker 1 \(pid:\d+\) is replaced: a request ran into --timeout/);
    // Without a reader it fails instead of waiting for one.
    closeSync(openSync(join(server.home, 'late'), constants.O_WRONLY | constants.O_NONBLOCK));
    assert.equal((await neighbour).complete, true);
    await server.waitForLog(new RegExp(`Worker exiting \\(pid: ${worker}\\)`));
    await assertRecovered(server, 1);
    assert.doesNotMatch(server.log, /does not leave by itself/);
  });
});

it('a worker whose thread never comes back runs the exit handlers of the app', { skip }, async () => {
  // What watches the app sends there what the other requests of the worker have left.
  const files = {
    'watched.py': `import atexit, contextlib, os, time
atexit.register(open, os.environ["HOME"] + "/exited", "w")
def application(environ, start_response):
    while environ["PATH_INFO"] == "/hang":
        with contextlib.suppress(BaseException):
            time.sleep(60)
    start_response("200 OK", [])
    return [b"ok"]
`,
  };
  for (const threads of [1, 2]) {
    await withServer({ app: 'watched', chdir: '{home}', files, threads, args: ['--timeout', '1'] }, async (server) => {
      await assert504(server, '/hang');
      await server.marked('exited');
      await server.waitForLog(/does not leave by itself and is ended:\n[\s\S]*time\.sleep\(60\)/);
      await assertRecovered(server, 1);
    });
  }
});

it('the other threads of a worker with a thread that does not come back serve until the next worker is ready', {
  skip,
}, async () => {
  const files = {
    'booting.py': `import contextlib, os, time
home = os.environ["HOME"]
while os.path.exists(home + "/hung") and not os.path.exists(home + "/boot"):
    time.sleep(0.05)
def application(environ, start_response):
    while environ["PATH_INFO"] == "/hang":
        open(home + "/hung", "w").close()
        with contextlib.suppress(BaseException):
            time.sleep(60)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
`,
  };
  const options = { app: 'booting', chdir: '{home}', files, threads: 3, args: ['--timeout', '2'] };
  await withServer(options, async (server) => {
    const worker = Number((await server.get('/')).text());
    await assert504(server, '/hang');
    await server.waitForLog(/is replaced: a request ran into --timeout/);
    for (let i = 0; i < 20; i++) assert.equal(Number((await server.get('/')).text()), worker);
    // With its last thread it ends.
    await Promise.all([assert504(server, '/hang'), assert504(server, '/hang')]);
    await until(() => !server.workers().includes(worker), 'the worker without a thread to end');
    const waiting = server.get('/');
    server.mark('boot');
    assert.notEqual(Number((await waiting).text()), worker);
    await assertRecovered(server, 1);
  });
});

it('a worker whose thread comes back while it is aborted ends once', { skip }, async () => {
  const files = {
    'gunicorn.conf.py': `import os, time
def worker_abort(worker):
    open(os.environ["HOME"] + "/aborting", "w")
    time.sleep(0.5)
    worker.log.info("aborted")
def worker_exit(server, worker):
    worker.log.info("exits %d", worker.pid)
`,
    'late.py': `import contextlib, os, time
def application(environ, start_response):
    while environ["PATH_INFO"] == "/hang" and not os.path.exists(os.environ["HOME"] + "/aborting"):
        with contextlib.suppress(BaseException):
            time.sleep(0.05)
    start_response("200 OK", [])
    return [b"ok"]
`,
  };
  await withServer({ app: 'late', chdir: '{home}', files, args: ['--timeout', '1'] }, async (server) => {
    const [worker = 0] = server.workers();
    await assert504(server, '/hang');
    await server.waitForLog(new RegExp(`aborted[^]*exits ${worker}`));
    await assertRecovered(server, 1);
    assert.equal(server.log.match(new RegExp(`exits ${worker}`, 'g'))?.length, 1);
  });
});

it('neighbours of a request that hangs finish', { skip }, async () => {
  for (const path of ['/sleep', '/loop', '/swallow']) {
    const args = ['--timeout', '3', '--graceful-timeout', '10'];
    await withServer({ app: APP, threads: 2, args }, async (server) => {
      const hanging = assert504(server, path);
      await server.marked({ '/sleep': 'sleeping', '/loop': 'looping', '/swallow': 'swallowing' }[path] ?? '');
      // Begins later and so has time of its own left when the other one's is over.
      const neighbour = server.get('/ticks?40', '', 20_000);
      await hanging;
      const response = await neighbour;
      assert.deepEqual([response.status, response.text(), response.complete], [200, 'tick\n'.repeat(40), true], path);
      await assertRecovered(server, 1);
    });
  }
});

it('a neighbour that is lost with its worker is counted, whether or not what ran into --timeout came back', {
  skip,
}, async () => {
  for (const path of ['/sleep', '/loop']) {
    const admin = await Admin.choose();
    const args = ['--timeout', '2', '--graceful-timeout', '1', ...admin.args];
    await withServer({ app: APP, threads: 2, args }, async (server) => {
      const neighbour = server.get('/more-time?60&60', '', 20_000);
      await assert504(server, path);
      assert.equal((await neighbour).status, 502);
      assert.equal((await admin.scrape()).get('nunicorn_killed_innocent_requests_total'), 1, path);
      await assertRecovered(server, 1);
    });
  }
});

it('an app that can run only once is served again after a request that ran into --timeout', { skip }, async () => {
  const files = {
    'once.py': `import os, socket
alone = socket.socket(socket.AF_UNIX)
alone.bind("\\0" + os.environ["HOME"])
from pathology.faults import application
`,
  };
  for (const path of ['/sleep', '/loop', '/swallow']) {
    for (const threads of [1, 2]) {
      const args = ['--timeout', '1', '--graceful-timeout', '2', '--pythonpath', '{home}'];
      await withServer({ app: 'once:application', threads, files, args }, async (server) => {
        await Promise.all(Array.from({ length: threads }, () => assert504(server, path)));
        await assertRecovered(server, 1);
      });
    }
  }
});

it('an app may ask for more time than --timeout, and has no more than it asked for', { skip }, async () => {
  for (const threads of [1, 2]) {
    await withServer({ app: APP, threads, args: ['--timeout', '1'] }, async (server) => {
      const worker = await pid(server);
      const response = await server.get('/more-time?60&3', '', 30_000);
      assert.deepEqual([response.status, response.text()], [200, 'ok']);
      assert.equal(await pid(server), worker);
      await assert504(server, '/more-time?2&60');
      await assertRecovered(server, 1);
    });
  }
});

it('--timeout 0 is no limit', { skip }, async () => {
  await withServer({ app: APP, threads: 2, args: ['--timeout', '0'] }, async (server) => {
    const held = await server.connect();
    await held.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('a.started');
    // Meanwhile several looks at the deadlines and at the worker have been taken.
    assert.equal((await server.get('/ticks?25', '', 30_000)).text(), 'tick\n'.repeat(25));
    server.mark('a.open');
    const response = await held.response();
    assert.deepEqual([response.status, response.text()], [200, 'held']);
    held.close();
    assert.doesNotMatch(server.log, /TIMEOUT/);
  });
});

it('a stream may last longer than --timeout as long as pieces come', { skip }, async () => {
  await withServer({ app: APP, args: ['--timeout', '1'] }, async (server) => {
    const response = await server.get('/ticks?25');
    assert.deepEqual([response.status, response.text(), response.complete], [200, 'tick\n'.repeat(25), true]);
  });
});

it('a worker that is to leave and whose last request hangs does not wait for --graceful-timeout', {
  skip,
}, async () => {
  const args = ['--timeout', '3', '--graceful-timeout', '100'];
  await withServer({ app: APP, threads: 2, args }, async (server) => {
    const worker = await pid(server);
    const hanging = assert504(server, '/sleep');
    await server.marked('sleeping');
    server.kill('SIGHUP');
    await server.waitForLog(/Reloaded: all workers are ready/);
    await hanging;
    await server.waitForLog(new RegExp(`Worker exiting \\(pid: ${worker}\\)`));
    await assertRecovered(server, 1);
  });
});

it('a stream that stalls is cut after --timeout', { skip }, async () => {
  await withServer({ app: APP, args: ['--timeout', '1', '--graceful-timeout', '2'] }, async (server) => {
    const response = await server.get('/stall');
    assert.deepEqual([response.status, response.text(), response.complete], [200, 'first\n', false]);
    await assertRecovered(server, 1);
  });
});

it('the time a client takes to read does not count', { skip }, async () => {
  await withServer({ app: 'wsgi_matrix:application', workers: 2, args: ['--timeout', '1'] }, async (server) => {
    const connection = await server.connect();
    connection.discard();
    connection.socket.pause();
    await connection.send('GET /stream/bytes?50000000 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n');
    // A request on the other worker that gets its 504 tells that the time has passed; twice, to be sure.
    for (let time = 0; time < 2; time++) assert.equal((await server.get(`/wait/${time}`)).status, 504);
    connection.socket.resume();
    await connection.end();
    assert.ok(connection.received > 50_000_000, `${connection.received} bytes`);
    connection.close();
  });
});

it('an interpreter that does not answer is found while no request runs, and replaced', {
  skip: skip || (IS_FREE_THREADED && 'this Python has no GIL'),
}, async () => {
  const args = ['--timeout', '1', '--graceful-timeout', '1'];
  await withServer({ app: APP, threads: 2, args }, async (server) => {
    const worker = await pid(server);
    assert.equal((await server.get('/gil-later')).status, 200);
    await server.waitForLog(
      new RegExp(
        `WORKER TIMEOUT \\(pid:${worker}\\): worker 1 has not.*\\n([^[].*\\n)*.*a_function_that_holds_the_gil`,
      ),
    );
    await until(() => !server.workers().includes(worker), 'the worker to be replaced', 20_000);
    await assertRecovered(server, 1);
  });
});

it('a worker that holds the GIL is replaced while the other one serves', { skip }, async () => {
  const args = ['--timeout', '1', '--graceful-timeout', '2'];
  await withServer({ app: APP, workers: 2, threads: 2, args }, async (server) => {
    const hanging = assert504(server, '/gil-sleep');
    await server.marked('gil');
    let served = 0;
    while (served < 50) {
      const { status } = await server.get('/', '', 20_000);
      assert.ok(status === 200 || status === 502 || status === 504, String(status));
      if (status === 200) served++;
    }
    await hanging;
    await assertRecovered(server, 2);
  });
});
