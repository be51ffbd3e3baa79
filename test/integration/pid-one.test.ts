// As PID 1 of a container: orphans are reaped, signals obeyed, exit codes handed on.
import { strict as assert } from 'node:assert';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { get } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { NUNICORN, VENV, VENV_BIN } from '../helpers/paths.ts';
import { freePort } from '../helpers/ports.ts';

const UNSHARE = ['--pid', '--fork', '--mount-proc', '--kill-child'];
const canUnshare = NUNICORN_RUNS && spawnSync('unshare', [...UNSHARE, 'true']).status === 0;
const skip = canUnshare ? false : 'unshare makes no namespace of processes here';
const LONG_MS = 30_000;
let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pid-one-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

it('PID 1 reaps orphans, passes signals on and ends with the exit code of the server', { skip }, async () => {
  // Each request leaves an orphan behind, and answers how many zombies there are.
  writeFileSync(
    join(folder, 'app.py'),
    `import os, re
def zombies():
    states = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try: states.append(open("/proc/%s/stat" % pid).read().rpartition(")")[2].split()[0])
        except OSError: pass
    return states.count("Z")
def application(environ, start_response):
    if environ["PATH_INFO"] == "/orphan":
        if os.fork() == 0:
            os.setsid()
            os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "0.2")
            os._exit(0)
        os.wait()
    start_response("200 OK", [])
    return [b"%d %d" % (zombies(), os.getpid())]
`,
  );
  const port = await freePort();
  const address = { host: '127.0.0.1', port };
  const args = ['--chdir', folder, '--bind', `127.0.0.1:${port}`, 'app'];
  const container = spawn('unshare', [...UNSHARE, process.execPath, NUNICORN, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: `${VENV_BIN}:${process.env.PATH}`, VIRTUAL_ENV: VENV, PYTHONDONTWRITEBYTECODE: '1' },
  });
  let log = '';
  container.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  try {
    await until(
      () => log.includes('Started: all workers are ready'),
      () => `the start\n${log}`,
      LONG_MS,
    );
    for (let count = 0; count < 5; count++) await get(address, '/orphan');
    await until(async () => (await get(address, '/')).text().startsWith('0 '), 'no zombie to be left', LONG_MS);
    const one = Number(readFileSync(`/proc/${container.pid}/task/${container.pid}/children`, 'utf8'));
    process.kill(one, 'SIGUSR2');
    await until(
      () => /USR2 signal ignored. The end of PID 1/.test(log),
      () => `the refusal\n${log}`,
      LONG_MS,
    );
    process.kill(one, 'SIGHUP');
    await until(
      () => log.includes('Reloaded: all workers are ready'),
      () => `the reload\n${log}`,
      LONG_MS,
    );
    process.kill(one, 'SIGTERM');
    await until(
      () => container.exitCode !== null,
      () => `the end\n${log}`,
      LONG_MS,
    );
    assert.equal(container.exitCode, 0);
  } finally {
    container.kill('SIGKILL');
  }
});

it('an app that does not boot ends the container with its exit code', { skip }, () => {
  writeFileSync(join(folder, 'app.py'), 'raise RuntimeError');
  const args = [...UNSHARE, process.execPath, NUNICORN, '--chdir', folder, '--bind', '127.0.0.1:0', 'app'];
  const env = { PATH: `${VENV_BIN}:${process.env.PATH}`, VIRTUAL_ENV: VENV, PYTHONDONTWRITEBYTECODE: '1' };
  assert.throws(
    () => execFileSync('unshare', args, { stdio: 'ignore', env, timeout: LONG_MS }),
    (error: { status: number }) => error.status === 3,
  );
});

it('an agent that wraps the command is not in the Python that reaps orphans', { skip }, () => {
  writeFileSync(join(folder, 'app.py'), 'def application(environ, start_response): pass');
  const told = join(folder, 'told');
  const agent = `open("${told}", "a").write(open("/proc/self/cmdline").read().replace("\\0", " ") + "\\n")`;
  writeFileSync(join(folder, 'sitecustomize.py'), agent);
  const args = [...UNSHARE, process.execPath, NUNICORN, '--chdir', folder, '--check-config', 'app'];
  const env = { PATH: `${VENV_BIN}:${process.env.PATH}`, VIRTUAL_ENV: VENV, PYTHONPATH: folder };
  execFileSync('unshare', args, { stdio: 'ignore', env, timeout: LONG_MS });
  const commands = readFileSync(told, 'utf8');
  assert.match(commands, /nunicorn_worker\.check/);
  assert.doesNotMatch(commands, /init\.py/);
});
