import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { privateFolder, removePrivateFolder } from '../../src/master/private-folder.ts';

let parent = '';
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'nunicorn-parent-'));
  mkdirSync(join(parent, 'foreign'));
  writeFileSync(join(parent, 'foreign/file'), '');
});
afterEach(() => rmSync(parent, { recursive: true }));

test('a private folder goes with its files and links', () => {
  const folder = privateFolder(parent);
  writeFileSync(join(folder, 'file'), '');
  symlinkSync(join(parent, 'foreign'), join(folder, 'link'));
  removePrivateFolder(folder);
  removePrivateFolder(folder); // once more
  assert.deepEqual(readdirSync(parent), ['foreign']);
  assert.ok(existsSync(join(parent, 'foreign/file')));
});

test('a link in its place leads to no other folder', () => {
  const folder = join(parent, 'link');
  symlinkSync(join(parent, 'foreign'), folder);
  removePrivateFolder(folder);
  assert.deepEqual(readdirSync(join(parent, 'foreign')), ['file']);
});

test('what somebody else has put into folders in it stays: another name may be there a moment later', {
  skip: process.platform !== 'linux',
}, () => {
  const folder = privateFolder(parent);
  mkdirSync(join(folder, 'inner'));
  writeFileSync(join(folder, 'inner/file'), '');
  writeFileSync(join(folder, 'file'), '');
  removePrivateFolder(folder);
  assert.deepEqual(readdirSync(folder, { recursive: true }).sort(), ['inner', 'inner/file']);
});
