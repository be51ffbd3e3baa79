// --daemon: the command returns when the server serves; the server goes on without a terminal.
import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { get } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { NUNICORN, PYTHON, VENV, VENV_BIN } from '../helpers/paths.ts';
import { freePort, isListening } from '../helpers/ports.ts';
import { isAlive } from '../helpers/processes.ts';
import { finishing, Server } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;
const LONG_MS = 30_000;
const HELLO = `def application(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]
`;
let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'daemon-'));
  writeFileSync(join(folder, 'app.py'), HELLO);
});
afterEach(() => rmSync(folder, { recursive: true }));

async function command(...args: string[]): Promise<{ readonly code: number | null; readonly stderr: string }> {
  const child = spawn(process.execPath, [NUNICORN, '--chdir', folder, '--daemon', ...args, 'app'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: `${VENV_BIN}:${process.env.PATH}`, VIRTUAL_ENV: VENV, PYTHONDONTWRITEBYTECODE: '1' },
  });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  // Until the stream ends: nothing of the server holds it open.
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, stderr };
}

it('--daemon returns 0 when the workers serve; pid file, log, rest and stop work', { skip }, async () => {
  const port = await freePort();
  const [pidFile, log] = [join(folder, 'pid'), join(folder, 'log')];
  const address = { host: '127.0.0.1', port };
  const args = ['--bind', `127.0.0.1:${port}`, '--pid', pidFile, '--error-logfile', log];
  const umask = process.umask(0o077);
  assert.deepEqual(await command(...args), { code: 0, stderr: '' });
  process.umask(umask);
  assert.equal((await get(address, '/')).text(), 'hello');
  const pid = Number(readFileSync(pidFile, 'utf8'));
  try {
    assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^Umask:\t0022$/m);
    for (const fd of [0, 1, 2]) assert.equal(readlinkSync(`/proc/${pid}/fd/${fd}`), '/dev/null');
    const second = await command(...args);
    assert.equal(second.code, 1, second.stderr);
    assert.match(second.stderr, new RegExp(`Error: Already running on PID ${pid}`));
    process.kill(pid, 'SIGWINCH');
    const children = `/proc/${pid}/task/${pid}/children`;
    await until(() => readFileSync(children, 'utf8') === '', 'all but the master to go', LONG_MS);
    process.kill(pid, 'SIGUSR1');
    await until(() => readFileSync(log, 'utf8').includes('Handling signal: usr1'), 'the master to hear', LONG_MS);
    process.kill(pid, 'SIGHUP');
    assert.equal((await get(address, '/', '', LONG_MS)).text(), 'hello');
  } finally {
    process.kill(pid, 'SIGTERM');
    await until(
      () => !isAlive(pid),
      () => `the end\n${readFileSync(log, 'utf8')}`,
      LONG_MS,
    );
  }
});

it('--daemon with an app that does not boot returns its exit code', { skip }, async () => {
  writeFileSync(join(folder, 'app.py'), 'raise RuntimeError("no")');
  const log = join(folder, 'log');
  const { code, stderr } = await command('--bind', `127.0.0.1:${await freePort()}`, '--error-logfile', log);
  assert.equal(code, 3, stderr);
  assert.ok(stderr.includes(`Error: the server did not start (exit code 3): look into ${log} to see why`), stderr);
  assert.match(readFileSync(log, 'utf8'), /RuntimeError: no/);
  const unlogged = await command('--bind', `127.0.0.1:${await freePort()}`);
  assert.match(unlogged.stderr, /: start it without --daemon, or with --error-logfile FILE, to see why/);
});

it('USR1 while the server starts, and to a front, opens no debugger', { skip }, async () => {
  const server = await Server.spawn({ app: 'app', chdir: folder });
  await finishing(server, async () => {
    await server.waitForLog(/Starting nunicorn/, { ms: LONG_MS });
    server.kill('SIGUSR1');
    await server.ready();
    for (const pid of server.fronts()) process.kill(pid, 'SIGUSR1');
    assert.equal((await server.get('/')).text(), 'hello');
    assert.doesNotMatch(server.log, /Debugger listening/);
  });
});

it('USR1 before Node has run a line opens no debugger for long', { skip }, async () => {
  const [port, debuggerPort] = [await freePort(), await freePort()];
  // The signal waits from before the start of Node until Node lets it through.
  const early =
    'import os, signal, sys\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n' +
    'os.kill(os.getpid(), signal.SIGUSR1)\nos.execv(sys.argv[1], sys.argv[1:])';
  const args = [process.execPath, NUNICORN, '--bind', `127.0.0.1:${port}`, '--chdir', folder, 'app'];
  const child = spawn(PYTHON, ['-c', early, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: {
      PATH: `${VENV_BIN}:${process.env.PATH}`,
      PYTHONDONTWRITEBYTECODE: '1',
      NODE_OPTIONS: `--inspect-port=${debuggerPort}`,
    },
  });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  try {
    await until(
      () => log.includes('all workers are ready'),
      () => `the start\n${log}`,
      LONG_MS,
    );
    assert.match(log, new RegExp(`Debugger listening on ws://127.0.0.1:${debuggerPort}/`));
    assert.equal(await isListening({ host: '127.0.0.1', port: debuggerPort }), false);
    assert.equal((await get({ host: '127.0.0.1', port }, '/')).text(), 'hello');
    child.kill('SIGTERM');
    assert.equal(await ended, 0);
  } finally {
    child.kill('SIGKILL');
  }
});
