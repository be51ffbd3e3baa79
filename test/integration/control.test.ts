// The control socket as operators use it: nunicorn ctl, nunicorn top, Gunicorn's own gunicornc.
import { strict as assert } from 'node:assert';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { NUNICORN, VENV_BIN } from '../helpers/paths.ts';
import { isAlive } from '../helpers/processes.ts';
import { finishing, Server, type ServerOptions, withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;
const OPTIONS: ServerOptions = {
  app: 'pathology.faults:application',
  workers: 2,
  threads: 2,
  args: ['--control-socket', '{home}/run/app.ctl'],
};

interface Run {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function run(command: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Run> {
  return new Promise((resolve) => {
    execFile(command, args, { timeout: 30_000, env: { ...process.env, ...env } }, (error, out, err) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1, out, err });
    });
  });
}

function socketOf(server: Server): string {
  return join(server.home, 'run', 'app.ctl');
}

async function ctl(server: Server, ...words: string[]): Promise<string> {
  const { code, out, err } = await run(process.execPath, [NUNICORN, 'ctl', '-s', socketOf(server), ...words]);
  assert.equal(code, 0, err);
  return out;
}

async function json(server: Server, ...words: string[]): Promise<Record<string, never>> {
  return JSON.parse(await ctl(server, '--json', ...words)) as Record<string, never>;
}

it('it belongs to its owner and goes with the server; there is none unless asked for', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    assert.equal(statSync(socketOf(server)).mode & 0o777, 0o600);
    assert.equal(statSync(join(server.home, 'run')).mode & 0o777, 0o700);
    server.kill('SIGTERM');
    await server.exit();
    assert.equal(existsSync(socketOf(server)), false);
  });
  await withServer({ ...OPTIONS, args: [...(OPTIONS.args ?? []), '--no-control-socket'] }, async (server) => {
    assert.equal(existsSync(socketOf(server)), false);
  });
});

it('--control-socket-mode decides who may use it', { skip }, async () => {
  await withServer({ ...OPTIONS, args: [...(OPTIONS.args ?? []), '--control-socket-mode', '0660'] }, async (server) => {
    assert.equal(statSync(socketOf(server)).mode & 0o777, 0o660);
  });
});

it("gunicornc, Gunicorn's own program, understands every answer", { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const gunicornc = async (command: string): Promise<string> => {
      const { code, out, err } = await run(join(VENV_BIN, 'gunicornc'), ['-s', socketOf(server), '-c', command]);
      assert.equal(code, 0, err);
      return out;
    };
    await server.waitForLog(/Started: all workers are ready/);
    const workers = await gunicornc('show workers');
    for (const pid of server.workers()) assert.match(workers, new RegExp(`^${pid} +\\d+ +yes`, 'm'));
    assert.match(workers, /Total: 2 workers/);
    assert.match(await gunicornc('show all'), /WEB WORKERS \(2\)/);
    assert.match(await gunicornc('show stats'), /Workers spawned: {2}2\n/);
    assert.match(await gunicornc('show config'), /^workers: 2$/m);
    assert.match(await gunicornc('show listeners'), new RegExp(`http://127\\.0\\.0\\.1:${server.port} +tcp`));
    assert.match(await gunicornc('show dirty'), /not running/);
    assert.match(await gunicornc('help'), /worker add \[N\]/);
    assert.match(await gunicornc('worker add 1'), /"total": 3/);
    await until(() => server.workers().length === 3, 'a third worker');
    await until(async () => /"removed": 1/.test(await gunicornc('worker remove 1')), 'its removal');
    await until(() => server.workers().length === 2, 'two workers');
  });
});

it('a running and a waiting request are shown with their place', { skip }, async () => {
  await withServer({ ...OPTIONS, workers: 1, threads: 1 }, async (server) => {
    const running = await server.connect();
    await running.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('a.started');
    const waiting = await server.connect();
    await waiting.send('GET /waits?secret=1 HTTP/1.1\r\nHost: test\r\n\r\n');
    let requests: readonly Record<string, unknown>[] = [];
    await until(async () => {
      ({ requests } = (await json(server, 'show', 'requests')) as unknown as { requests: typeof requests });
      return requests.some(({ phase }) => phase === 'queued');
    }, 'both requests');
    assert.deepEqual(
      requests.map(({ method, path, phase, worker, thread }) => ({ method, path, phase, worker, thread })),
      [
        { method: 'GET', path: '/hold', phase: 'running', worker: 1, thread: 1 },
        { method: 'GET', path: '/waits', phase: 'queued', worker: null, thread: null },
      ],
    );
    server.mark('a.open');
    await running.response();
    running.close();
    await waiting.response();
    waiting.close();
  });
});

it('backtrace shows where the threads are, also while C code holds the GIL', { skip }, async () => {
  const args = [...(OPTIONS.args ?? []), '--timeout', '10', '--graceful-timeout', '1'];
  await withServer({ ...OPTIONS, workers: 1, args }, async (server) => {
    const held = await server.connect();
    await held.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('a.started');
    // Asked: to look at running threads from outside may end the process.
    const told = await ctl(server, 'backtrace', '1');
    assert.match(told, /^Thread nunicorn-thread-\d \(most recent call last\):$/m);
    assert.match(told, /faults\.py", line \d+, in application/);
    assert.doesNotMatch(told, /nunicorn_worker|MainThread/, 'what is the server and not the app');
    assert.equal(told.match(/^Thread nunicorn-thread-\d waits for a request$/gm)?.length, 1);
    server.mark('a.open');
    await held.response();
    held.close();
    const stuck = await server.connect();
    await stuck.send('GET /gil-sleep HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('gil');
    for (let look = 0; look < 2; look++) {
      const seen = await ctl(server, 'backtrace', '1');
      assert.equal(seen.match(/faults\.py", line \d+ in application/g)?.length, 1, 'of this look, and of no other');
    }
    assert.equal((await stuck.response('GET', 30_000)).status, 504);
    stuck.close();
  });
});

it('a worker that finishes what it runs is asked too where its threads are', { skip }, async () => {
  await withServer({ ...OPTIONS, workers: 1 }, async (server) => {
    const [pid] = server.workers();
    const held = await server.connect();
    await held.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('a.started');
    server.kill('SIGHUP');
    await server.waitForLog(/Reloaded: all workers are ready/);
    const told = await ctl(server, 'backtrace', String(pid));
    assert.match(told, /^Thread nunicorn-thread-\d \(most recent call last\):$/m);
    server.mark('a.open');
    assert.equal((await held.response()).status, 200);
    held.close();
  });
});

it("backtrace shows where the threads of a Node app's worker are", { skip }, async () => {
  const options = { ...OPTIONS, app: './node/listener.cjs', workers: 1 };
  const args = [...(OPTIONS.args ?? []), '--timeout', '8', '--graceful-timeout', '1'];
  await withServer({ ...options, args: [...args, '-k', 'gthread'] }, async (server) => {
    const looping = server.get('/loop', '', 30_000);
    await server.marked('looping');
    const stacks = await ctl(server, 'backtrace', '1');
    assert.match(stacks, /^Thread \d:\n {4}at \/loop \(.*listener\.cjs:\d+:\d+\)$/m);
    assert.match(stacks, /^Thread \d:\n\(in no JavaScript: its event loop waits for something\)$/m);
    assert.equal((await looping).status, 504);
  });
  await withServer({ ...options, threads: 1, args: [...args, '-k', 'async'] }, async (server) => {
    assert.match(await ctl(server, 'backtrace', '1'), /its event loop turns/);
    const looping = server.get('/loop', '', 30_000).catch(() => {});
    await server.marked('looping');
    assert.match(await ctl(server, 'backtrace', '1'), /its event loop does not turn/);
    await looping;
  });
});

it('drain lets a worker finish what it runs and replaces it', { skip }, async () => {
  await withServer({ ...OPTIONS, workers: 1 }, async (server) => {
    const [before] = server.workers();
    assert(before !== undefined);
    const held = await server.connect();
    await held.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('a.started');
    await ctl(server, 'drain', '1');
    await until(() => server.workers().some((pid) => pid !== before), 'the next worker');
    assert.equal((await server.get('/')).text(), 'ok');
    assert.ok(isAlive(before));
    server.mark('a.open');
    assert.equal((await held.response()).status, 200);
    held.close();
    await until(() => !isAlive(before), 'the end of the drained worker');
    assert.match(server.log, /is replaced: it was told to leave by a signal, a hook or nunicorn ctl/);
  });
});

it('reload, reopen and shutdown do what the signals do', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    await ctl(server, 'reopen');
    await server.waitForLog(/Handling signal: usr1/);
    const before = server.workers();
    await ctl(server, 'reload');
    await server.waitForLog(/Hang up: Master/);
    await until(
      () => server.workers().length === 2 && server.workers().every((pid) => !before.includes(pid)),
      'new workers',
    );
    assert.equal(((await json(server, 'show', 'stats')) as unknown as { reloads: number }).reloads, 1);
    await ctl(server, 'shutdown');
    assert.deepEqual(await server.exit(), { code: 0, signal: null });
  });
});

it('a refusal is an exit code of 1 with --json too', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const args = [NUNICORN, 'ctl', '-s', socketOf(server), '--json', 'worker', 'kill', '1'];
    const { code, out } = await run(process.execPath, args);
    assert.equal(code, 1);
    assert.deepEqual(JSON.parse(out), { success: false, error: 'Worker 1 not found' });
  });
});

it('a command may be one argument', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    assert.match(await ctl(server, 'show workers'), /^WORKER +PID/);
    assert.match(await ctl(server, 'backtrace 1'), /Thread/);
  });
});

it('top --once shows workers, rates and listeners', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    for (let i = 0; i < 20; i++) await server.get('/');
    const { code, out, err } = await run(process.execPath, [NUNICORN, 'top', '-s', socketOf(server), '--once']);
    assert.equal(code, 0, err);
    assert.match(out, /^nunicorn \d+\.\d+\.\d+ {2}pathology\.faults:application {2}pid \d+ {2}running/);
    for (const pid of server.workers()) assert.match(out, new RegExp(`^ +\\d +${pid} +ready `, 'm'));
    assert.match(out, /requests \d+\.\d\/s/);
    assert.match(out, /^threads: .* \? lost$/m);
  });
});

/** Runs a command in a terminal of 0 x 0, as a serial console is, until its output holds a text; then it presses q. */
const UNSIZED = `
import os, pty, sys
wanted, command = sys.argv[1].encode(), sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
output = b""
while wanted not in output:
    output += os.read(terminal, 65536)
os.write(terminal, b"q")
try:
    while os.read(terminal, 65536):
        pass
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;

it('top in a terminal that does not know its size, and on a dumb one', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const top = [process.execPath, NUNICORN, 'top', '-s', socketOf(server)];
    for (const TERM of ['xterm', 'dumb']) {
      const { code, err } = await run('python3', ['-c', UNSIZED, 'requests ', ...top], { TERM });
      assert.equal(code, 0, err);
    }
  });
});

it('says what is wrong: no socket, no server, an unknown command, no -s', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const wrong = async (code: number, message: RegExp, args: readonly string[]): Promise<void> => {
      const result = await run(process.execPath, [NUNICORN, 'ctl', ...args], { NUNICORN_CONTROL_SOCKET: '' });
      assert.equal(result.code, code, result.err);
      assert.match(result.err, message);
    };
    await wrong(1, /no such socket: was the server started with --control-socket/, ['-s', '/nowhere/x', 'help']);
    await wrong(1, /Unknown command: show nothing/, ['-s', socketOf(server), 'show', 'nothing']);
    await wrong(1, /^\s*Error: Worker 1 not found$/m, ['-s', socketOf(server), 'worker', 'kill', '1']);
    await wrong(1, /'2' is too much: drain WORKER/, ['-s', socketOf(server), 'drain', '1', '2']);
    await wrong(1, /this is a folder and no socket/, ['-s', server.home, 'help']);
    await wrong(2, /which server\? Give -s SOCKET/, ['show', 'workers']);
    await wrong(2, /Unknown option '--bogus'/, ['--bogus']);
  });
});

it('what listens there may be no control socket: ctl and top say so in one line', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'control-'));
  const path = join(folder, 'other.sock');
  let reply: Buffer;
  const other = createServer((socket) => socket.end(reply)).listen(path);
  try {
    for (reply of [
      Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
      Buffer.from([0, 0, 0, 2, 0x7b, 0x7b]),
      Buffer.from([0, 0, 0, 4, ...Buffer.from('null')]),
    ]) {
      for (const words of [
        ['ctl', '-s', path, 'show', 'workers'],
        ['top', '-s', path, '--once'],
      ]) {
        const { code, err } = await run(process.execPath, [NUNICORN, ...words]);
        assert.deepEqual(
          [code, err.trim()],
          [1, `Error: ${path}: what listens there is no control socket: was it given to --control-socket?`],
        );
      }
    }
  } finally {
    other.close();
    rmSync(folder, { recursive: true });
  }
});

it('a client that speaks something else, or too much, is let go; the server goes on', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    for (const bytes of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.from([0, 0, 0, 2, 0x7b, 0x7b])]) {
      await new Promise<void>((resolve) => {
        const socket = connect(socketOf(server), () => socket.write(bytes));
        socket.on('error', () => {});
        socket.on('close', () => resolve());
      });
    }
    assert.match(await ctl(server, 'show', 'stats'), /Workers current: {2}2/);
  });
});

it('messages whose parts are no text are answered with an error; the server goes on', { skip }, async () => {
  await withServer(OPTIONS, async (server) => {
    const odd = { toString: 1 };
    for (const message of [{ id: 1, command: odd }, { id: 2, command: 'show stats', args: [odd] }, [], 7, null]) {
      const payload = Buffer.from(JSON.stringify(message));
      const head = Buffer.alloc(4);
      head.writeUInt32BE(payload.length);
      const answer = await new Promise<string>((resolve, reject) => {
        const socket = connect(socketOf(server), () => socket.write(Buffer.concat([head, payload])));
        socket.once('data', (piece) => {
          resolve(piece.toString('utf8', 4));
          socket.destroy();
        });
        socket.once('error', reject);
        socket.once('close', () => reject(new Error('no answer')));
      });
      assert.match(answer, /"status":"error"/);
    }
    assert.match(await ctl(server, 'show', 'stats'), /Workers current: {2}2/);
  });
});

it('the file of another kind, or of a server that lives, is left alone', { skip }, async () => {
  const options = { ...OPTIONS, args: ['--control-socket', '{home}/app.ctl'], files: { 'app.ctl': 'precious' } };
  await finishing(await Server.spawn(options), async (server) => {
    assert.equal((await server.exit()).code, 1);
    assert.match(server.log, /app\.ctl: there is a file of this name, and it is no socket/);
    assert.equal(readFileSync(join(server.home, 'app.ctl'), 'utf8'), 'precious');
    await server.nothingLeft();
  });
  await withServer(OPTIONS, async (first) => {
    const second = await Server.spawn({ ...OPTIONS, args: ['--control-socket', socketOf(first)] });
    await finishing(second, async () => {
      assert.equal((await second.exit()).code, 1);
      assert.match(second.log, /another server listens there/);
    });
    assert.match(await ctl(first, 'show', 'stats'), /Workers current: {2}2/);
  });
});
