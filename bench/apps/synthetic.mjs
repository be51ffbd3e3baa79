// Requests of known cost, in ms from the environment: LOCKED_MS of work in the event loop, WAIT_MS of waiting beside it.
import { setTimeout as sleep } from 'node:timers/promises';

const LOCKED_US = Number(process.env.LOCKED_MS ?? 0) * 1000;
const WAIT_MS = Number(process.env.WAIT_MS ?? 0);

export default async (_request, response) => {
  work(LOCKED_US / 2);
  if (WAIT_MS > 0) await sleep(WAIT_MS);
  work(LOCKED_US / 2);
  response.setHeader('Content-Type', 'text/plain').end('ok\n');
};

/** Spins on the CPU time of this process, whose other threads have nothing to do: what others do does not shorten it. */
function work(us) {
  const before = process.cpuUsage();
  for (let used = 0; used < us; ) {
    const { user, system } = process.cpuUsage(before);
    used = user + system;
  }
}
