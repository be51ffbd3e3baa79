import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs, {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { NunicornError } from '../../src/errors.ts';
import { PidFile } from '../../src/master/pid-file.ts';

let folder = '';
let path = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nunicorn-pid-'));
  path = join(folder, 'server.pid');
});
afterEach(() => rmSync(folder, { recursive: true }));

const OWN = `${process.pid}\n`;

function refusal(): string {
  try {
    new PidFile(path);
  } catch (error) {
    assert.ok(error instanceof NunicornError, String(error));
    assert.equal(error.exitCode, 1);
    return error.message;
  }
  return assert.fail('it was written');
}

/** The id of a process that has just ended. */
function deadPid(): number {
  return spawnSync('true').pid;
}

test('it holds the process id and a newline, is readable by all and leaves nothing beside it', () => {
  const umask = process.umask(0o077);
  try {
    new PidFile(path);
  } finally {
    process.umask(umask);
  }
  assert.equal(readFileSync(path, 'utf8'), OWN);
  assert.equal(statSync(path).mode & 0o777, 0o644);
  assert.deepEqual(readdirSync(folder), ['server.pid']);
});

test('no link that lies in wait beside it is followed', () => {
  const victim = join(folder, 'victim');
  writeFileSync(victim, 'precious');
  symlinkSync(victim, `${path}.${process.pid}`);
  new PidFile(path);
  assert.equal(readFileSync(victim, 'utf8'), 'precious');
  assert.ok(lstatSync(path).isFile());
});

test('a living process in the file is respected', () => {
  writeFileSync(path, `${process.ppid}\n`);
  assert.equal(refusal(), `Already running on PID ${process.ppid} (or pid file '${path}' is stale)`);
  assert.equal(readFileSync(path, 'utf8'), `${process.ppid}\n`);
});

test("another user's living process counts as living", {
  skip: process.getuid?.() === 0 && 'root may signal all',
}, () => {
  writeFileSync(path, '1\n');
  assert.match(refusal(), /^Already running on PID 1 /);
});

test('a file that names a dead process, or the own one, is overwritten', () => {
  for (const content of [`${deadPid()}\n`, OWN]) {
    writeFileSync(path, content);
    new PidFile(path);
    assert.equal(readFileSync(path, 'utf8'), OWN);
  }
});

test('garbage is overwritten', () => {
  for (const content of ['', '\n', 'no number', '0\n', '-1\n', `${'9'.repeat(30)}\n`, '\0\0']) {
    writeFileSync(path, content);
    new PidFile(path);
    assert.equal(readFileSync(path, 'utf8'), OWN, JSON.stringify(content));
  }
});

test('a file in no folder cannot be written', () => {
  path = join(folder, 'missing', 'server.pid');
  assert.match(refusal(), /^the pid file '.*' cannot be written \(ENOENT: there is no folder .*[^/]\)$/);
});

test('a folder in its place cannot be overwritten', () => {
  mkdirSync(path);
  assert.match(refusal(), /cannot be written \(EISDIR: it is a folder\)$/);
});

test('a folder in its place leaves no draft behind', () => {
  mkdirSync(path);
  refusal();
  assert.deepEqual(readdirSync(folder), ['server.pid']);
});

test('a folder that cannot be written to', { skip: process.getuid?.() === 0 && 'root may write everywhere' }, () => {
  chmodSync(folder, 0o500);
  try {
    assert.match(refusal(), /cannot be written \(EACCES: this user may not make files in .*\)$/);
  } finally {
    chmodSync(folder, 0o700);
  }
});

test('its mode is set through its descriptor: its path may be a link a moment later', (context) => {
  context.mock.method(fs, 'chmodSync', () => assert.fail('by its path'));
  syncBuiltinESMExports();
  try {
    new PidFile(path);
  } finally {
    context.mock.restoreAll();
    syncBuiltinESMExports();
  }
  assert.equal(readFileSync(path, 'utf8'), OWN);
});

test('it is removed at the end', () => {
  new PidFile(path).remove();
  assert.ok(!existsSync(path));
});

test('it stays if another process has written itself into it', () => {
  const file = new PidFile(path);
  writeFileSync(path, `${process.ppid}\n`);
  file.remove();
  assert.equal(readFileSync(path, 'utf8'), `${process.ppid}\n`);
});

test('removing what is gone is no error, nor is removing twice', () => {
  const file = new PidFile(path);
  rmSync(path);
  file.remove();
  file.remove();
});

test('a process that has ended and was not taken note of does not hold it', {
  skip: process.platform !== 'linux',
}, async () => {
  const parent = spawn('python3', ['-c', ZOMBIE], { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    const [pid] = await once(parent.stdout, 'data');
    writeFileSync(path, pid as Buffer);
    new PidFile(path);
    assert.equal(readFileSync(path, 'utf8'), OWN);
  } finally {
    parent.kill();
  }
});

const ZOMBIE = `import os, sys
pid = os.fork() or os._exit(0)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print(pid, flush=True)
sys.stdin.read()
`;

test('a folder of that name is named as such', () => {
  mkdirSync(path);
  assert.match(refusal(), /the pid file '.*server.pid' cannot be written \(EISDIR: it is a folder\)$/);
});
