import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readMemoryUse } from '../../src/machine.ts';
import { CgroupWatch, WorkerMemory } from '../../src/policy/memory.ts';

const MB = 1024 * 1024;
const LIMITS = { soft: 100 * MB, hard: 200 * MB };

test('three samples in a row over the soft limit', () => {
  const memory = new WorkerMemory();
  const steps = [101, 101, 99, 101, 101, 101].map((size) => memory.sample(size * MB, 0, LIMITS));
  assert.deepEqual(steps, ['fine', 'fine', 'fine', 'fine', 'fine', 'recycle']);
});

test('one sample over the hard limit', () => {
  assert.equal(new WorkerMemory().sample(201 * MB, 0, LIMITS), 'kill');
});

test('no limit, no step', () => {
  const memory = new WorkerMemory();
  for (let time = 0; time < 10; time++) assert.equal(memory.sample(1e12, 0, { soft: 0, hard: 0 }), 'fine');
});

test('the growth is told per 1,000 requests', () => {
  const memory = new WorkerMemory();
  memory.sample(50 * MB, 100, LIMITS);
  memory.sample(90 * MB, 10_100, LIMITS);
  assert.equal(memory.describe(), '90 MB, 4.0 MB more per 1,000 requests over its last 10000 (10100 answered)');
});

test('after one look nothing is told of the growth', () => {
  const memory = new WorkerMemory();
  memory.sample(325 * MB, 217, LIMITS);
  assert.equal(memory.describe(), '325 MB (217 answered)');
});

test('the workers of a cgroup are looked at from half of its limit on', () => {
  const watch = new CgroupWatch();
  assert.deepEqual([watch.isFilling(500, 1000), watch.isFilling(501, 1000)], [false, true]);
});

test('above 90 % of the cgroup the fattest worker goes, and then nobody for half a minute', () => {
  const watch = new CgroupWatch();
  const memories = new Map<number, WorkerMemory>();
  for (const [serial, size] of [10, 30, 20].entries()) {
    const memory = new WorkerMemory();
    memory.sample(size, 0, LIMITS);
    memories.set(serial, memory);
  }
  assert.equal(watch.isDue(900, 1000, 0), false);
  assert.equal(watch.isDue(901, 1000, 0), true);
  assert.equal(watch.choose(memories, 0), 1);
  assert.equal(watch.isDue(999, 1000, 29_999), false);
  assert.equal(watch.isDue(999, 1000, 30_000), true);
});

const files =
  (all: Readonly<Record<string, string>>) =>
  (path: string): string | undefined =>
    all[path];

test('cgroup version 2: use without the file cache, of the tightest group', () => {
  const read = files({
    '/proc/self/mountinfo': '30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n',
    '/proc/self/cgroup': '0::/a/b\n',
    '/sys/fs/cgroup/a/b/memory.max': 'max\n',
    '/sys/fs/cgroup/a/b/memory.current': '700\n',
    '/sys/fs/cgroup/a/memory.max': '1000\n',
    '/sys/fs/cgroup/a/memory.current': '900\n',
    '/sys/fs/cgroup/a/memory.stat': 'anon 1\ninactive_file 150\n',
  });
  assert.deepEqual(readMemoryUse(read), { used: 750, limit: 1000 });
});

test('cgroup version 2: memory.high is a limit too, where it is the lower one', () => {
  const group = (max: string, high: string): ReturnType<typeof readMemoryUse> =>
    readMemoryUse(
      files({
        '/proc/self/mountinfo': '30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n',
        '/proc/self/cgroup': '0::/system.slice/app.service\n',
        '/sys/fs/cgroup/system.slice/memory.max': 'max\n',
        '/sys/fs/cgroup/system.slice/memory.high': 'max\n',
        '/sys/fs/cgroup/system.slice/memory.current': '5000\n',
        '/sys/fs/cgroup/system.slice/app.service/memory.max': `${max}\n`,
        '/sys/fs/cgroup/system.slice/app.service/memory.high': `${high}\n`,
        '/sys/fs/cgroup/system.slice/app.service/memory.current': '700\n',
      }),
    );
  assert.deepEqual(group('1000', '800'), { used: 700, limit: 800 });
  assert.deepEqual(group('1000', 'max'), { used: 700, limit: 1000 });
  assert.deepEqual(group('max', '800'), { used: 700, limit: 800 });
  assert.equal(group('max', 'max'), null);
});

test('cgroup version 1: use without the file cache, also that of the groups below', () => {
  const read = files({
    '/proc/self/mountinfo': '30 20 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n',
    '/proc/self/cgroup': '5:memory:/c\n',
    '/sys/fs/cgroup/memory/c/memory.limit_in_bytes': '1000\n',
    '/sys/fs/cgroup/memory/c/memory.usage_in_bytes': '900\n',
    '/sys/fs/cgroup/memory/c/memory.stat': 'inactive_file 1\ntotal_inactive_file 100\n',
    '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
    '/sys/fs/cgroup/memory/memory.usage_in_bytes': '5000\n',
  });
  assert.deepEqual(readMemoryUse(read), { used: 800, limit: 1000 });
});

test('without a limit there is nothing to tell', () => {
  assert.equal(readMemoryUse(files({})), null);
});
