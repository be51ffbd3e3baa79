/** How many connections wait in the kernel to be accepted. Linux: /proc/net/tcp shows it for sockets that listen. */
import { readFile } from 'node:fs/promises';
import type { ListenerFacts } from '../front/messages.ts';

const LISTEN = '0A';

/** The sum over the TCP addresses. Null: it cannot be known here. Unix sockets do not tell, as in Gunicorn. */
export async function readBacklog(listeners: readonly ListenerFacts[]): Promise<number | null> {
  const ports = new Set(listeners.filter(({ kind }) => kind === 'tcp').map(({ port }) => port));
  let found: number | null = null;
  for (const file of ['/proc/net/tcp', '/proc/net/tcp6']) {
    const text = await readFile(file, 'latin1').catch(() => '');
    const waiting = backlogOf(text, ports);
    if (waiting !== null) found = (found ?? 0) + waiting;
  }
  return found;
}

/** `table`: lines of `sl local_address rem_address st tx_queue:rx_queue ...`, numbers in hexadecimal. */
export function backlogOf(table: string, ports: ReadonlySet<number>): number | null {
  let sum: number | null = null;
  for (const line of table.split('\n')) {
    const [, local, , state, queues] = line.trim().split(/\s+/);
    if (state !== LISTEN || local === undefined || queues === undefined) continue;
    if (!ports.has(Number.parseInt(local.split(':')[1] ?? '', 16))) continue;
    sum = (sum ?? 0) + Number.parseInt(queues.split(':')[1] ?? '0', 16);
  }
  return sum;
}
