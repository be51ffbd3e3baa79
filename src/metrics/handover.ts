/** USR2: what the old master has counted goes to the new one over the channel between them, when it lets go of its admin address. */
import type { ChildProcess } from 'node:child_process';
import type { TotalsSnapshot } from './totals.ts';

interface Message {
  readonly op: 'metrics';
  readonly totals: TotalsSnapshot;
}

/** Of the old master. Resolves when it has left this process, or nobody takes it. */
export function sendTotals(newMaster: ChildProcess, totals: TotalsSnapshot): Promise<void> {
  return new Promise((resolve) => {
    if (!newMaster.connected) resolve();
    else newMaster.send({ op: 'metrics', totals } satisfies Message, () => resolve());
  });
}

/** Of the new master: `taken` is called for each part, `free` once, when the old master has let go of its address. */
export function awaitTotals(taken: (totals: TotalsSnapshot) => void, free: () => void): void {
  let isFree = false;
  const letGo = (): void => {
    if (!isFree) free();
    isFree = true;
  };
  process.on('message', (message: Message) => {
    if (message.op !== 'metrics') return;
    taken(message.totals);
    letGo();
  });
  // Killed: it has let go without a word.
  process.once('disconnect', letGo);
  process.channel?.unref();
  if (!process.connected) letGo();
}
