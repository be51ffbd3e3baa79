import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Machine, parseList, readMachine, usableMemory, usableProcessors } from '../../src/machine.ts';
import { chooseCounts } from '../../src/settings/auto.ts';

const GIB = 1024 * 1024 * 1024;

/** A host with 8 processors and 16 GiB, and these files on top. */
function read(files: Readonly<Record<string, string>>): Machine {
  const all: Readonly<Record<string, string>> = {
    '/proc/self/status': 'Name:\tnode\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7\n',
    '/proc/meminfo': `MemTotal:       ${(16 * GIB) / 1024} kB\nMemFree: 1 kB\n`,
    ...files,
  };
  return readMachine((path) => all[path]);
}

const V2_MOUNT = '30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n';
const V1_MOUNTS =
  '31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n' +
  '32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n' +
  '35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n';

describe('the machine', () => {
  test('without control groups is what the host has', () => {
    assert.deepEqual(read({}), { processors: 8, cpuQuota: null, memory: 16 * GIB, memoryLimit: null });
  });

  test('has the processors of the affinity mask', () => {
    assert.equal(read({ '/proc/self/status': 'Cpus_allowed_list:\t2,4-5\n' }).processors, 3);
  });

  test('has the quota and the limit of a version 2 group', () => {
    const machine = read({
      '/proc/self/cgroup': '0::/\n',
      '/proc/self/mountinfo': V2_MOUNT,
      '/sys/fs/cgroup/cpu.max': '150000 100000\n',
      '/sys/fs/cgroup/memory.max': `${GIB}\n`,
    });
    assert.deepEqual(machine, { processors: 8, cpuQuota: 1.5, memory: 16 * GIB, memoryLimit: GIB });
    assert.equal(usableProcessors(machine), 1.5);
    assert.equal(usableMemory(machine), GIB);
  });

  test('has the least of a group and those above it', () => {
    const machine = read({
      '/proc/self/cgroup': '0::/kubepods/pod1/app\n',
      '/proc/self/mountinfo': V2_MOUNT,
      '/sys/fs/cgroup/kubepods/pod1/app/cpu.max': 'max 100000\n',
      '/sys/fs/cgroup/kubepods/pod1/app/memory.max': 'max\n',
      '/sys/fs/cgroup/kubepods/pod1/cpu.max': '200000 100000\n',
      '/sys/fs/cgroup/kubepods/cpu.max': '400000 100000\n',
      '/sys/fs/cgroup/kubepods/memory.max': `${2 * GIB}\n`,
    });
    assert.deepEqual([machine.cpuQuota, machine.memoryLimit], [2, 2 * GIB]);
  });

  test('has the memory from which on a version 2 group is slowed down', () => {
    const machine = read({
      '/proc/self/cgroup': '0::/system.slice/app.service\n',
      '/proc/self/mountinfo': V2_MOUNT,
      '/sys/fs/cgroup/system.slice/memory.max': `${4 * GIB}\n`,
      '/sys/fs/cgroup/system.slice/app.service/memory.max': `${2 * GIB}\n`,
      '/sys/fs/cgroup/system.slice/app.service/memory.high': `${GIB}\n`,
    });
    assert.equal(machine.memoryLimit, GIB);
  });

  test('has the quota and the limit of version 1 groups', () => {
    const machine = read({
      '/proc/self/cgroup': '9:name=systemd:/\n4:memory:/app\n1:cpu,cpuacct:/app\n0::/\n',
      '/proc/self/mountinfo': V1_MOUNTS,
      '/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us': '50000\n',
      '/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us': '100000\n',
      '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '-1\n',
      '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': '100000\n',
      '/sys/fs/cgroup/memory/app/memory.limit_in_bytes': `${GIB / 2}\n`,
      '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
    });
    assert.deepEqual([machine.cpuQuota, machine.memoryLimit], [0.5, GIB / 2]);
  });

  test('in a container whose mount begins at its own group has the limits of that group', () => {
    const mounts = V1_MOUNTS.replaceAll(' / /sys/fs/cgroup/', ' /docker/ab /sys/fs/cgroup/');
    const files = {
      '/proc/self/mountinfo': mounts,
      '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '300000',
      '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': '100000',
      '/sys/fs/cgroup/memory/memory.limit_in_bytes': `${GIB}`,
    };
    for (const path of ['/docker/ab', '/', '/elsewhere']) {
      const machine = read({ ...files, '/proc/self/cgroup': `4:memory:${path}\n1:cpu,cpuacct:${path}\n` });
      assert.deepEqual([machine.cpuQuota, machine.memoryLimit], [3, GIB], path);
    }
  });

  test('has no limit where the number says none', () => {
    const machine = read({
      '/proc/self/cgroup': '4:memory:/\n',
      '/proc/self/mountinfo': V1_MOUNTS,
      '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
    });
    assert.equal(machine.memoryLimit, null);
  });

  test('this one can be read', () => {
    const machine = readMachine();
    assert.ok(machine.processors >= 1 && machine.memory > 0, JSON.stringify(machine));
  });

  test('understands lists of processors', () => {
    assert.deepEqual(['0', '0-3', '0-1,4,6-7', '', 'x', '1-'].map(parseList), [
      [0],
      [0, 1, 2, 3],
      [0, 1, 4, 6, 7],
      undefined,
      undefined,
      undefined,
    ]);
  });
});

describe('auto', () => {
  const machine = (processors: number, gib: number, cpuQuota: number | null = null): Machine => ({
    processors,
    cpuQuota,
    memory: 64 * GIB,
    memoryLimit: gib * GIB,
  });
  const counts = (workers: number | 'auto', threads: number | 'auto', on: Machine): readonly number[] => {
    const chosen = chooseCounts(workers, threads, on);
    return [chosen.workers, chosen.threads];
  };

  test('is a worker for each processor, with three threads', () => {
    assert.deepEqual(counts('auto', 'auto', machine(4, 8)), [4, 3]);
    assert.deepEqual(counts('auto', 1, machine(4, 8)), [4, 1]);
  });

  test('rounds a quota up: a worker more can use what is left of a processor', () => {
    assert.deepEqual(counts('auto', 1, machine(8, 8, 1.5)), [2, 1]);
    assert.deepEqual(counts('auto', 1, machine(8, 8, 0.25)), [1, 1]);
    assert.deepEqual(counts('auto', 1, machine(2, 8, 6)), [2, 1]);
  });

  test('makes no more workers than there is memory for, and always one', () => {
    assert.deepEqual(counts('auto', 'auto', machine(8, 1)), [4, 3]);
    assert.deepEqual(counts('auto', 1, machine(8, 0.1)), [1, 1]);
  });

  test('makes fewer threads where there are more workers than processors', () => {
    assert.deepEqual(counts(2, 'auto', machine(1, 8)), [2, 2]);
    assert.deepEqual(counts(9, 'auto', machine(1, 8)), [9, 1]);
    assert.deepEqual(counts(1, 'auto', machine(8, 8)), [1, 3]);
    assert.deepEqual(counts(0, 'auto', machine(8, 8)), [0, 3]);
  });

  test('says why in one line, and nothing where nothing was to be chosen', () => {
    assert.equal(
      chooseCounts('auto', 'auto', machine(8, 1, 1.5)).reason,
      'auto: 2 workers with 3 threads each, because there are 8 processors, of whose time the CPU quota allows 1.5, and 1024 MiB of memory by its limit, room for 4 workers of 150 MiB',
    );
    assert.equal(
      chooseCounts('auto', 1, { ...machine(2, 1), memoryLimit: null }).reason,
      'auto: 2 workers, because there are 2 processors and 65536 MiB of memory, room for 348 workers of 150 MiB',
    );
    assert.equal(chooseCounts(2, 2, machine(8, 8)).reason, undefined);
  });
});
