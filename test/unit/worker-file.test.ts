import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, linkSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { readStacks, UNKNOWN_STACKS } from '../../src/bridge/stacks.ts';
import { openWorkerFile } from '../../src/bridge/worker-file.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nunicorn-files-'));
  writeFileSync(join(folder, 'secret'), 'secret');
});
afterEach(() => rmSync(folder, { recursive: true }));

test('what stands in place of a file of a worker is not read', () => {
  const [secret, plain] = [join(folder, 'secret'), join(folder, 'plain')];
  writeFileSync(plain, '');
  symlinkSync(secret, join(folder, 'link'));
  linkSync(secret, join(folder, 'hard-link'));
  execFileSync('mkfifo', [join(folder, 'pipe')]);
  for (const name of ['link', 'hard-link', 'pipe', 'none', '.']) assert.equal(openWorkerFile(join(folder, name)), null);
  const fd = openWorkerFile(plain);
  assert(fd !== null);
  closeSync(fd);
});

test('a link that takes the place of the stacks while they are written leads nowhere', async () => {
  const path = join(folder, 'worker-1.stacks');
  writeFileSync(path, '');
  const exchange = (): void => {
    rmSync(path);
    symlinkSync(join(folder, 'secret'), path);
  };
  process.once('SIGIO', exchange);
  const stacks = await new Promise((resolve) => readStacks(process.pid, path, resolve));
  assert.equal(stacks, UNKNOWN_STACKS);
});
