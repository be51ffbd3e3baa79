import assert from 'node:assert/strict';
import { lchownSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { giveFolder, giveLog, giveRotatedLog } from '../../src/master/owner.ts';

const skip = process.getuid?.() !== 0 && 'only root gives files away';
const OTHER = { uid: 12345, gid: 12345 };

let parent = '';
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'nunicorn-owner-'));
});
afterEach(() => rmSync(parent, { recursive: true }));

/** A folder and a file of root's, and a link of `uid`'s to each. */
function links(uid: number): Record<'folder' | 'folderLink' | 'file' | 'fileLink', string> {
  const [folder, file] = [join(parent, 'folder'), join(parent, 'file')];
  const [folderLink, fileLink] = [join(parent, 'folder-link'), join(parent, 'file-link')];
  mkdirSync(folder);
  writeFileSync(file, '');
  symlinkSync(folder, folderLink);
  symlinkSync(file, fileLink);
  for (const link of [folderLink, fileLink]) lchownSync(link, uid, uid);
  return { folder, folderLink, file, fileLink };
}

test('a link of the writer gives it nothing of root', { skip }, () => {
  const { folder, folderLink, file, fileLink } = links(OTHER.uid);
  assert.throws(() => giveLog(fileLink, OTHER), /it is a link that is not of the user who starts the server/);
  assert.throws(() => giveFolder(folderLink, OTHER));
  giveRotatedLog(fileLink, OTHER);
  assert.deepEqual([statSync(folder).uid, statSync(file).uid], [0, 0]);
});

test('a link of root is followed at the start', { skip }, () => {
  const { folder, folderLink, file, fileLink } = links(0);
  giveLog(fileLink, OTHER);
  giveFolder(folderLink, OTHER);
  assert.deepEqual([statSync(folder).uid, statSync(file).gid], [OTHER.uid, OTHER.gid]);
});
