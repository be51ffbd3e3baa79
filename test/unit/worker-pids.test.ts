import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, test } from 'node:test';
import { WorkerPids } from '../../src/master/worker-pids.ts';

const skip = process.getuid?.() !== 0 && 'only root may signal processes of others';
const OTHER = { uid: 12345, gid: 12345 };
const nobody = (): readonly number[] => [];

const started: ChildProcess[] = [];
afterEach(() => {
  for (const child of started.splice(0)) child.kill('SIGKILL');
});

/** A process that leads a group, of root or of `OTHER`. */
async function start(owner: typeof OTHER | null): Promise<{ child: ChildProcess; pid: number }> {
  const child = spawn('sleep', ['60'], { detached: true, stdio: 'ignore', ...owner });
  started.push(child);
  await once(child, 'spawn');
  assert(child.pid !== undefined);
  return { child, pid: child.pid };
}

async function endOf(child: ChildProcess): Promise<NodeJS.Signals | null> {
  if (child.signalCode === null) await once(child, 'exit');
  return child.signalCode;
}

test('a pid that the app could have made up ends no process of root', { skip }, async () => {
  const pids = new WorkerPids(OTHER, nobody);
  const [roots, own] = [await start(null), await start(OTHER)];
  for (const { pid } of [roots, own]) pids.kill(pid);
  assert.equal(await endOf(own.child), 'SIGKILL');
  pids.killGroup(roots.pid);
  assert.deepEqual([pids.allows(roots.pid), roots.child.signalCode], [false, null]);
  assert.doesNotThrow(() => process.kill(roots.pid, 0));
});

test('what a worker that is gone has left in its group is ended', { skip }, async () => {
  const leader = spawn('sh', ['-c', 'sleep 60 & echo $!'], { detached: true, ...OTHER });
  await once(leader.stdout.setEncoding('utf8'), 'data');
  if (leader.exitCode === null) await once(leader, 'exit');
  new WorkerPids(OTHER, nobody).killGroup(leader.pid ?? 0);
  await once(leader, 'close'); // its standard output was the other's too
});

test('a process that a mold with the rights of root has just forked can be ended', { skip }, async () => {
  const { child, pid } = await start(null);
  new WorkerPids(OTHER, () => [process.pid]).kill(pid);
  assert.equal(await endOf(child), 'SIGKILL');
});

test('no number that means several processes is taken for a pid', () => {
  const kill = process.kill;
  const killed: number[] = [];
  process.kill = (pid) => {
    killed.push(pid);
    return true;
  };
  try {
    for (const pid of [1, 0, -1, -7, 1.5, Number.NaN]) new WorkerPids(null, nobody).kill(pid);
  } finally {
    process.kill = kill;
  }
  assert.deepEqual(killed, []);
});
