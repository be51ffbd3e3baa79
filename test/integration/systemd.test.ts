// systemd: sockets that it opened, and what it is told. A Python stands for it: it has datagram sockets, and it can exec.
import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { get } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { NUNICORN, VENV, VENV_BIN } from '../helpers/paths.ts';
import { isAlive, killIfAlive } from '../helpers/processes.ts';

const skip = NUNICORN_RUNS && process.platform === 'linux' ? false : 'needs Linux';
const LONG_MS = 30_000;
let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'systemd-'));
  writeFileSync(
    join(folder, 'app.py'),
    `import os
def application(environ, start_response):
    start_response("200 OK", [])
    return [repr(sorted(name for name in os.environ if name.startswith("LISTEN_"))).encode()]
`,
  );
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Binds a TCP and a Unix socket, takes messages at notify.sock and writes each with its sender's pid, runs the server. */
const MANAGER = `
import os, socket, struct, sys, threading
folder, mode, *command = sys.argv[1:]
tcp = socket.create_server(("127.0.0.1", 0))
unix = socket.socket(socket.AF_UNIX); unix.bind(os.path.join(folder, "activated.sock")); unix.listen()
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(os.path.join(folder, "notify.sock"))
notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
pid = os.fork()
if pid == 0:
    notify.close()
    os.dup2(tcp.fileno(), 13); os.dup2(unix.fileno(), 14)
    os.dup2(13, 3); os.dup2(14, 4)
    for fd in range(5, 20):
        try: os.close(fd)
        except OSError: pass
    for fd in (3, 4): os.set_inheritable(fd, True)
    if mode == "activate":
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2")
    os.environ.update(NOTIFY_SOCKET=os.path.join(folder, "notify.sock"), WATCHDOG_USEC="400000", WATCHDOG_PID=str(os.getpid()))
    os.execv(command[0], command)
print(pid, tcp.getsockname()[1], flush=True)
tcp.close(); unix.close()
messages = open(os.path.join(folder, "messages"), "w")
def take():
    while True:
        text, control, _, _ = notify.recvmsg(4096, 256)
        sender = struct.unpack("iii", control[0][2])[0]
        messages.write("%d %s\\n" % (sender, text.decode().replace("\\n", " "))); messages.flush()
threading.Thread(target=take, daemon=True).start()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;

interface Managed {
  readonly manager: ChildProcess;
  readonly pid: number;
  readonly port: number;
  messages(): string;
  log(): string;
}

async function start(mode: 'activate' | 'plain', ...args: string[]): Promise<Managed> {
  const server = [process.execPath, NUNICORN, '--chdir', folder, ...args, 'app'];
  const manager = spawn('python3', ['-c', MANAGER, folder, mode, ...server], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: `${VENV_BIN}:${process.env.PATH}`, VIRTUAL_ENV: VENV, PYTHONDONTWRITEBYTECODE: '1' },
  });
  let log = '';
  let out = '';
  manager.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  manager.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  await until(() => out.includes('\n'), 'the manager');
  const [pid = 0, port = 0] = out.trim().split(' ').map(Number);
  return {
    manager,
    pid,
    port,
    messages: () => readFileSync(join(folder, 'messages'), { encoding: 'utf8', flag: 'a+' }),
    log: () => log,
  };
}

async function heard(server: Managed, pattern: RegExp): Promise<RegExpExecArray> {
  await until(
    () => pattern.test(server.messages()),
    () => `${pattern} in\n${server.messages()}\n${server.log()}`,
    LONG_MS,
  );
  const match = pattern.exec(server.messages());
  assert.ok(match);
  return match;
}

async function finish(server: Managed, test: () => Promise<void>): Promise<void> {
  try {
    await test();
  } finally {
    killIfAlive(server.pid, 'SIGTERM');
    await until(() => !isAlive(server.pid), 'the end', LONG_MS);
  }
}

it('sockets of systemd are served, --bind is not, and systemd hears of start, reload and stop from the master itself', {
  skip,
}, async () => {
  const server = await start('activate', '--bind', '127.0.0.1:1');
  await finish(server, async () => {
    await heard(server, new RegExp(`^${server.pid} READY=1 STATUS=Serving with 1 worker x 1 thread$`, 'm'));
    assert.match(
      server.log(),
      new RegExp(`Listening at: http://127.0.0.1:${server.port},unix:${folder}/activated.sock`),
    );
    const tcp = { host: '127.0.0.1', port: server.port };
    for (const address of [tcp, { path: join(folder, 'activated.sock') }]) {
      assert.equal((await get(address, '/')).text(), '[]', 'the app does not see what the sockets came with');
    }
    await heard(server, new RegExp(`^${server.pid} WATCHDOG=1$`, 'm'));
    process.kill(server.pid, 'SIGHUP');
    await heard(server, /RELOADING=1 MONOTONIC_USEC=\d{6,} STATUS=Reloading\n[\s\S]*READY=1 STATUS=Serving/);
    assert.equal((await get(tcp, '/')).status, 200);
    process.kill(server.pid, 'SIGTERM');
    await heard(server, new RegExp(`^${server.pid} STOPPING=1 STATUS=Stopping$`, 'm'));
  });
});

it('the code that does not boot never becomes ready', { skip }, async () => {
  writeFileSync(join(folder, 'app.py'), 'raise RuntimeError');
  const server = await start('activate');
  await until(() => server.manager.exitCode !== null, 'the end', LONG_MS);
  assert.equal(server.manager.exitCode, 3);
  assert.doesNotMatch(server.messages(), /READY/);
});

it('an upgrade: the old master names the new one as the main process when it goes', { skip }, async () => {
  const server = await start('activate');
  let next = 0;
  await finish(server, async () => {
    await heard(server, /READY=1/);
    process.kill(server.pid, 'SIGUSR2');
    await until(() => server.log().split('Started: all workers are ready').length === 3, 'the new master', LONG_MS);
    next = Number(/new master is pid (\d+)/.exec(server.log())?.[1]);
    assert.doesNotMatch(server.messages(), /MAINPID/);
    await heard(server, new RegExp(`^${next} WATCHDOG=1$`, 'm'));
    process.kill(server.pid, 'SIGWINCH');
    await heard(server, new RegExp(`^${server.pid} STATUS=At rest$`, 'm'));
    process.kill(server.pid, 'SIGTERM');
    await heard(server, new RegExp(`^${server.pid} MAINPID=${next}$`, 'm'));
    assert.doesNotMatch(server.messages(), /STOPPING/);
  });
  await until(() => server.log().includes('Master has been promoted'), 'the promotion', LONG_MS);
  assert.equal((await get({ host: '127.0.0.1', port: server.port }, '/')).status, 200);
  assert.equal((await get({ path: join(folder, 'activated.sock') }, '/')).status, 200);
  process.kill(next, 'SIGTERM');
  await until(() => !isAlive(next), 'the end of the new master', LONG_MS);
});

it('fd://N is a socket that is open already', { skip }, async () => {
  const server = await start('plain', '--bind', 'fd://3');
  await finish(server, async () => {
    await heard(server, /READY=1/);
    assert.equal((await get({ host: '127.0.0.1', port: server.port }, '/')).status, 200);
    process.kill(server.pid, 'SIGHUP');
    await heard(server, /RELOADING=1[\s\S]*READY=1/);
    assert.equal((await get({ host: '127.0.0.1', port: server.port }, '/')).status, 200);
  });
});

it('fd://N that is no socket is one clear line', { skip }, async () => {
  const server = await start('plain', '--bind', 'fd://9');
  await until(() => server.manager.exitCode !== null, 'the end', LONG_MS);
  assert.equal(server.manager.exitCode, 1);
  assert.match(server.log(), /Error: Can't listen at fd:\/\/9: descriptor 9 is no listening socket/);
});
