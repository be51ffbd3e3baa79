/** What is to be removed by the processes that outlive a master that was killed. */
import { rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { removePipes } from '../bridge/worker-file.ts';
import type { FrontConfig } from './messages.ts';

export function removeRemains(config: FrontConfig | null): void {
  if (config === null) return;
  const { folder, spoolFolder, errorLog } = config;
  const folders = [folder, spoolFolder];
  if (errorLog.process !== null) folders.push(dirname(errorLog.process.socketPath));
  for (const path of folders) rmSync(path, { recursive: true, force: true });
  removePipes(folder);
}
