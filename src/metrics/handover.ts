/**
 * USR2: what one master has counted goes to the other over the channel between them. The old one tells the new one when it lets go
 * of its admin address, and again what was added when it ends; the new one tells the old one if it ends first.
 */
import type { ChildProcess } from 'node:child_process';
import type { Counted } from './master-metrics.ts';

interface Message {
  readonly op: 'metrics';
  readonly counted: Counted;
}

/** Of the new master this is its child, of the old one the process itself. */
export type Channel = ChildProcess | NodeJS.Process;

/** Resolves when it has left this process, or nobody takes it. */
export function sendCounted(other: Channel, counted: Counted): Promise<void> {
  return new Promise((resolve) => {
    if (!other.connected || other.send === undefined) resolve();
    else other.send({ op: 'metrics', counted } satisfies Message, undefined, undefined, () => resolve());
  });
}

export function hearCounted(other: Channel, taken: (counted: Counted) => void): void {
  other.on('message', (message: Message) => {
    if (message.op === 'metrics') taken(message.counted);
  });
}

/** Of the new master: `taken` is called for each part, `free` once, when the old master has let go of its address. */
export function awaitCounted(taken: (counted: Counted) => void, free: () => void): void {
  let isFree = false;
  const letGo = (): void => {
    if (!isFree) free();
    isFree = true;
  };
  hearCounted(process, (counted) => {
    taken(counted);
    letGo();
  });
  // Killed: it has let go without a word.
  process.once('disconnect', letGo);
  process.channel?.unref();
  if (!process.connected) letGo();
}
