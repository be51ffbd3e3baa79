/** USR2: what the old master has counted goes to the new one over the channel between them, when it lets go of its admin address. */
import type { ChildProcess } from 'node:child_process';
import type { Counted } from './master-metrics.ts';

interface Message {
  readonly op: 'metrics';
  readonly counted: Counted;
}

/** Of the old master. Resolves when it has left this process, or nobody takes it. */
export function sendCounted(newMaster: ChildProcess, counted: Counted): Promise<void> {
  return new Promise((resolve) => {
    if (!newMaster.connected) resolve();
    else newMaster.send({ op: 'metrics', counted } satisfies Message, () => resolve());
  });
}

/** Of the new master: `taken` is called for each part, `free` once, when the old master has let go of its address. */
export function awaitCounted(taken: (counted: Counted) => void, free: () => void): void {
  let isFree = false;
  const letGo = (): void => {
    if (!isFree) free();
    isFree = true;
  };
  process.on('message', (message: Message) => {
    if (message.op !== 'metrics') return;
    taken(message.counted);
    letGo();
  });
  // Killed: it has let go without a word.
  process.once('disconnect', letGo);
  process.channel?.unref();
  if (!process.connected) letGo();
}
