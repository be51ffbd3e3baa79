import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { NunicornError } from '../../src/errors.ts';
import { createAccessLog } from '../../src/log/access-log.ts';

const MODULE = new URL('../../src/log/access-log.js', import.meta.url).href;
const LIMIT_MS = 20_000;
let folder = '';
let path = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nunicorn-access-'));
  path = join(folder, 'access.log');
});
afterEach(() => rmSync(folder, { recursive: true }));

test('all lines are in the file, in order, once the log is closed', async () => {
  const log = await createAccessLog(path);
  const lines = Array.from({ length: 5000 }, (_, i) => `line ${i}`);
  for (const line of lines) log.write(line);
  await log.close();
  assert.equal(readFileSync(path, 'utf8'), `${lines.join('\n')}\n`);
  assert.equal(log.dropped, 0);
});

test('after a rotation the old file has what was logged before, the new one what came after', async () => {
  const log = await createAccessLog(path);
  log.write('before');
  renameSync(path, `${path}.1`);
  log.reopen();
  log.write('after');
  await log.close();
  assert.equal(readFileSync(`${path}.1`, 'utf8'), 'before\n');
  assert.equal(readFileSync(path, 'utf8'), 'after\n');
});

test('a file that cannot be opened is an error for the user', async () => {
  await assert.rejects(
    createAccessLog(join(folder, 'missing', 'x')),
    (error) =>
      error instanceof NunicornError && error.exitCode === 1 && /ENOENT.*--access-logfile needs/.test(error.message),
  );
});

test('lines that come after the end are counted, not thrown', async () => {
  const log = await createAccessLog(path);
  await log.close();
  log.write('late');
  await log.close();
  assert.equal(log.dropped, 1);
});

function run(script: string, stdout: 'pipe' | number): ReturnType<typeof spawn> {
  const program = `const { createAccessLog } = await import(${JSON.stringify(MODULE)});\n${script}`;
  return spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', stdout, 'pipe'],
    timeout: LIMIT_MS,
  });
}

function result(child: ReturnType<typeof spawn>): Promise<{ code: number | null; stderr: string }> {
  let stderr = '';
  child.stderr?.on('data', (chunk) => {
    stderr += chunk;
  });
  return new Promise((resolve) => child.once('exit', (code) => resolve({ code, stderr })));
}

test('- is standard output, and what is left is written at the end of the process', () => {
  const program = `const { createAccessLog } = await import(${JSON.stringify(MODULE)});
    const log = await createAccessLog('-'); log.write('a'); log.reopen(); log.write('b'); process.exit(0)`;
  const { stdout, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
    timeout: LIMIT_MS,
  });
  assert.equal(stdout, 'a\nb\n');
  assert.equal(status, 0);
});

test('a full disk drops lines, counts them and lets the process end', async () => {
  const { code, stderr } = await result(
    run(
      `const log = await createAccessLog('/dev/full');
       const line = 'x'.repeat(1023);
       for (let i = 0; i < 5000; i++) log.write(line);
       await log.close();
       log.write(line);
       console.error(log.dropped);`,
      'pipe',
    ),
  );
  assert.equal(code, 0, stderr);
  // 4 MiB of lines of 1 KiB may wait.
  assert.equal(stderr, `${5000 - 4096 + 1}\n`);
});

test('a process that ends without closing the log is not held up by a full disk', async () => {
  const { code, stderr } = await result(
    run(
      `const log = await createAccessLog('/dev/full');
       log.write('x'.repeat(5000));
       // Once there is nothing left to do, the first write has failed.
       process.once('beforeExit', () => process.exit(0));`,
      'pipe',
    ),
  );
  assert.equal(code, 0, stderr);
});

test('a reader that went away does not end the process', async () => {
  const child = run(
    `const log = await createAccessLog('-');
     const line = 'x'.repeat(5000);
     log.write(line);
     const timer = setInterval(() => { log.write(line); if (log.dropped > 3) { clearInterval(timer); console.error('alive'); } }, 1);`,
    'pipe',
  );
  child.stdout?.once('data', () => child.stdout?.destroy());
  const { code, stderr } = await result(child);
  assert.equal(code, 0, stderr);
  assert.equal(stderr, 'alive\n');
});

test('a pipe that nobody reads holds up neither a closed log nor the end of the process', async () => {
  // Opened for both, a FIFO has a reader, and opening it does not wait for another.
  const fifo = join(folder, 'fifo');
  assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
  const pipe = openSync(fifo, constants.O_RDWR);
  const child = run(
    `const log = await createAccessLog('-');
     const line = 'x'.repeat(1023);
     for (let i = 0; i < 5000; i++) log.write(line);
     await log.close();
     console.error(log.dropped > 0 ? 'closed' : 'nothing was dropped');`,
    pipe,
  );
  const { code, stderr } = await result(child);
  closeSync(pipe);
  assert.equal(stderr, 'closed\n');
  assert.equal(code, 0);
});
