import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface SmallDisk {
  readonly path: string;
  release(): void;
}

/** A file system of its own, of 2 MiB. Undefined where this user may not mount one. */
export function smallDisk(): SmallDisk | undefined {
  const path = mkdtempSync(join(tmpdir(), 'nt-disk-'));
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', path]).status === 0;
  const release = (): void => {
    if (mounted) spawnSync('umount', ['-l', path]);
    rmSync(path, { recursive: true, force: true });
  };
  if (mounted) return { path, release };
  release();
  return undefined;
}

/** Leaves no block of it free. */
export function fill({ path }: SmallDisk): void {
  const { bavail, bsize } = statfsSync(path);
  writeFileSync(join(path, 'filling'), Buffer.alloc(bavail * bsize));
}
