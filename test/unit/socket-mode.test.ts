import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ControlSocket } from '../../src/control/control-socket.ts';
import type { ControlTarget } from '../../src/control/target.ts';
import type { ErrorLog } from '../../src/log/error-log.ts';
import { AdminServer, type AdminSource } from '../../src/metrics/admin-server.ts';
import { SILENT_LOG } from '../helpers/silent-log.ts';

interface Listener {
  listen(log: ErrorLog): Promise<void>;
  close(): void;
}

/** Only who asks needs what they show. */
const LISTENERS: readonly (readonly [name: string, mode: number, (path: string) => Listener])[] = [
  ['the admin server', 0o600, (path) => new AdminServer(`unix:${path}`, null, { metrics: {} } as AdminSource)],
  ['the control socket', 0o660, (path) => new ControlSocket(path, 0o660, {} as ControlTarget, SILENT_LOG)],
];

for (const [name, mode, make] of LISTENERS) {
  test(`${name}: its socket has its mode from the beginning, whatever the umask is`, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'nunicorn-mode-'));
    const path = join(folder, 'socket');
    const listener = make(path);
    const umask = process.umask(0o027);
    try {
      const listening = listener.listen(SILENT_LOG);
      // Turn by turn of the microtasks: nothing that comes later has been done when the file is seen first.
      for (let turn = 0; turn < 100 && !existsSync(path); turn++) await null;
      assert.equal(statSync(path).mode & 0o777, mode);
      await listening;
      assert.equal(statSync(path).mode & 0o777, mode);
      assert.equal(process.umask(), 0o027);
    } finally {
      process.umask(umask);
      listener.close();
      rmSync(folder, { recursive: true });
    }
  });
}
