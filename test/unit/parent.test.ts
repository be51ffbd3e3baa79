import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

const PARENT = new URL('../../src/parent.js', import.meta.url).href;
/** Tells its parent something after that has let go of it, and before it can have heard of that. */
const CHILD = `
import { readSync } from 'node:fs';
import { tellParent } from '${PARENT}';
tellParent('ready');
setTimeout(() => {
  readSync(0, Buffer.alloc(1));
  console.log(process.connected);
  tellParent('late');
  setTimeout(() => console.log('lives'), 100);
}, 50);
`;

test('a parent that is gone and not yet missed can be told something', { timeout: 30_000 }, async () => {
  const child = spawn(process.execPath, ['--input-type=module', '-e', CHILD], {
    stdio: ['pipe', 'pipe', 'inherit', 'ipc'],
  });
  assert.ok(child.stdin !== null && child.stdout !== null);
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  await once(child, 'message');
  // Until then it waits in its read.
  await sleep(300);
  child.disconnect();
  child.stdin.end('x');
  const [[code]] = await Promise.all([once(child, 'exit'), once(child.stdout, 'end')]);
  assert.deepEqual([code, said], [0, 'true\nlives\n']);
});
