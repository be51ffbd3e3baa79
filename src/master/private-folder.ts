import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { NunicornError } from '../errors.ts';

/** Makes a folder of mode 0700 in `parent`. Throws NunicornError if that cannot be. */
export function privateFolder(parent: string): string {
  try {
    return mkdtempSync(join(parent, 'nunicorn-'));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new NunicornError(
      `no folder can be made in ${parent} (${code}): --worker-tmp-dir (or TMPDIR), and --spool-dir if it is given, ` +
        'have to name folders that can be written',
    );
  }
}
