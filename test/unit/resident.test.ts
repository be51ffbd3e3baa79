import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { it } from 'node:test';
import { residentMemory } from '../../src/resident.ts';

function descriptorsOf(pid: number): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === `/proc/${pid}/stat`;
    } catch {
      return false; // that of the folder itself
    }
  }).length;
}

it('memory of a process that several ask for at once: one descriptor of it', {
  skip: process.platform !== 'linux',
}, async () => {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
  try {
    assert.ok(child.pid);
    const { pid } = child;
    const found = await Promise.all(Array.from({ length: 5 }, () => residentMemory([pid])));
    for (const one of found) assert.ok((one.get(pid) ?? 0) > 1e6);
    assert.equal(descriptorsOf(pid), 1);
  } finally {
    child.kill();
    await once(child, 'exit');
  }
});
