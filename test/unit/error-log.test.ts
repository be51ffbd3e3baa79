import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { NunicornError } from '../../src/errors.ts';
import { createErrorLog, gunicornLine } from '../../src/log/error-log.ts';

const MODULE = new URL('../../src/log/error-log.js', import.meta.url).href;
let folder = '';
let path = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nunicorn-log-'));
  path = join(folder, 'error.log');
});
afterEach(() => rmSync(folder, { recursive: true }));

test('lines have the form of Gunicorn, with every line of a traceback', () => {
  const log = createErrorLog({ path, level: 'debug' });
  log.debug('one');
  log.info('two');
  log.warning('three');
  log.error('Traceback:\n  File "x"\nKeyError');
  log.critical('WORKER TIMEOUT (pid:7)');
  log.close();
  const head = String.raw`\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[${process.pid}\]`;
  assert.match(
    readFileSync(path, 'utf8'),
    new RegExp(
      `^${head} \\[DEBUG\\] one\n${head} \\[INFO\\] two\n${head} \\[WARNING\\] three\n${head} \\[ERROR\\] Traceback:\n  File "x"\nKeyError\n${head} \\[CRITICAL\\] WORKER TIMEOUT \\(pid:7\\)\n$`,
    ),
  );
});

test('the time is local', () => {
  const script = `const { gunicornLine } = await import(${JSON.stringify(MODULE)});
    console.log(gunicornLine('info', 'x', new Date(Date.UTC(2026, 0, 1, 0, 0, 5))))`;
  const at = (zone: string): string =>
    spawnSync(process.execPath, ['--input-type=module', '-e', script], { env: { TZ: zone }, encoding: 'utf8' }).stdout;
  assert.match(at('Asia/Kolkata'), /^\[2026-01-01 05:30:05 \+0530\] \[\d+\] \[INFO\] x\n$/);
  assert.match(at('America/St_Johns'), /^\[2025-12-31 20:30:05 -0330\]/);
  assert.match(at('UTC'), /^\[2026-01-01 00:00:05 \+0000\]/);
});

test('lines below the level are left out', () => {
  const log = createErrorLog({ path, level: 'warning', format: (level, message) => `${level} ${message}` });
  log.debug('a');
  log.info('b');
  log.warning('c');
  log.error('d');
  log.close();
  assert.equal(readFileSync(path, 'utf8'), 'warning c\nerror d\n');
});

test('a file is appended to and reopened after a rotation', () => {
  const open = () => createErrorLog({ path, level: 'info', format: (_level, message) => message });
  const first = open();
  first.info('a');
  first.close();
  const log = open();
  log.info('b');
  renameSync(path, `${path}.1`);
  log.info('c');
  log.reopen();
  log.info('d');
  log.close();
  log.info('after the end');
  assert.equal(readFileSync(`${path}.1`, 'utf8'), 'a\nb\nc\n');
  assert.equal(readFileSync(path, 'utf8'), 'd\n');
});

test('the old file stays in use when a new one cannot be opened', () => {
  const inner = join(folder, 'logs');
  spawnSync('mkdir', [inner]);
  const log = createErrorLog({ path: join(inner, 'e.log'), level: 'info', format: (_level, message) => message });
  renameSync(inner, `${inner}.old`);
  log.reopen();
  log.info('still here');
  log.close();
  assert.match(
    readFileSync(join(`${inner}.old`, 'e.log'), 'utf8'),
    /^the error log .* cannot be opened \(ENOENT: there is no folder .*\).*\nstill here\n$/,
  );
});

test('a file that cannot be opened is an error for the user', () => {
  assert.throws(
    () => createErrorLog({ path: join(folder, 'missing', 'x'), level: 'info' }),
    (error) =>
      error instanceof NunicornError && error.exitCode === 1 && /ENOENT.*--error-logfile needs/.test(error.message),
  );
});

test('a full disk does not throw', () => {
  const log = createErrorLog({ path: '/dev/full', level: 'info' });
  log.info('lost');
  log.info('lost too');
  log.close();
});

test('standard error that nobody reads any more does not end the process', async () => {
  const script = `const { createErrorLog } = await import(${JSON.stringify(MODULE)});
    const log = createErrorLog({ path: '-', level: 'info' });
    process.stdin.once('data', () => { log.info('to nobody'); log.error('to nobody'); process.stdout.write('alive'); process.stdin.destroy(); });
    log.info('ready');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'pipe'] });
  child.stderr.once('data', () => {
    child.stderr.destroy();
    child.stderr.once('close', () => child.stdin.end('go'));
  });
  let output = '';
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  const code = await new Promise((resolve) => child.once('close', resolve));
  assert.equal(output, 'alive');
  assert.equal(code, 0);
});

test('a full pipe gets every whole line it has room for, and the number of those that are missing', () => {
  // Opened for both, a FIFO has a reader, and opening it does not wait for another.
  const fifo = join(folder, 'fifo');
  assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
  const writer = openSync(fifo, constants.O_RDWR);
  const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  const script = `const { createErrorLog } = await import(${JSON.stringify(MODULE)});
    const log = createErrorLog({ path: '-', level: 'info', format: (level, message) => level + ' ' + message });
    for (let i = 0; i < 300; i++) log.info(i + ' ' + 'x'.repeat(1000));
    process.stdin.once('data', () => { log.info('room again'); process.stdin.destroy(); });
    process.stdout.write('full');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', writer] });
  let text = '';
  const drain = (): void => {
    const buffer = Buffer.alloc(1 << 20);
    try {
      for (;;) text += buffer.toString('latin1', 0, readSync(reader, buffer));
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN');
    }
  };
  return new Promise<void>((resolve) => {
    child.stdout?.once('data', () => {
      drain();
      child.stdin?.end('go');
    });
    child.once('close', () => {
      drain();
      closeSync(reader);
      closeSync(writer);
      const lines = text.trimEnd().split('\n');
      const whole = lines.filter((line) => /^info \d+ x{1000}$/.test(line)).length;
      const dropped = Number(/^warning (\d+) lines of this log were dropped/.exec(lines.at(-2) ?? '')?.[1]);
      assert.equal(lines.at(-1), 'info room again');
      assert.equal(whole + dropped, 300);
      assert.ok(dropped > 0);
      assert.equal(whole, lines.length - 2);
      resolve();
    });
  });
});

test('the line is made for this process', () => {
  assert.match(gunicornLine('info', 'm', new Date(0)), new RegExp(`\\[${process.pid}\\] \\[INFO\\] m$`));
});
