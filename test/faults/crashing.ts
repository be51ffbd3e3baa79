/** Errors of a Node app that nobody catches, and heaps that grow too large. Python has no such thing. */
import { setTimeout as delay } from 'node:timers/promises';
import { type Kind, NODE_GTHREAD, PYTHON } from './kinds.ts';
import { Clients, describe, judge, type Scenario, times, waitFor, withFaults } from './scenario.ts';

const TWO = { workers: 2, threads: 2 };
const CRASH_EVERY_MS = 500;

export const crashing = (kind: Kind): readonly Scenario[] =>
  kind === PYTHON ? [] : [thrown(kind), ...(kind === NODE_GTHREAD ? [heapOfThread(kind)] : [])];

function thrown(kind: Kind): Scenario {
  return {
    name: 'an error that nobody catches every 0.5 s',
    run: (scale) =>
      withFaults(kind, { ...TWO, env: { PAUSE_SECONDS: '0.01' } }, async (server) => {
        const clients = new Clients(server);
        const crashes: Promise<string>[] = [];
        while (crashes.length < 30 * scale) {
          const crash = server.get('/crash', '', 30_000);
          crashes.push(crash.then(({ status }) => String(status)).catch(() => 'cut'));
          await delay(CRASH_EVERY_MS);
        }
        const answers = await Promise.all(crashes);
        const outcomes = await clients.stop();
        const wrong = judge(outcomes, clients, ['200']);
        for (const answer of answers) if (answer !== '502') wrong.push(`what threw got ${answer}`);
        return { figures: `${answers.length} errors, each got 502; ${describe(outcomes)}`, wrong };
      }),
  };
}

function heapOfThread(kind: Kind): Scenario {
  return {
    name: 'a leak of 1 MB a request, --thread-memory-limit',
    run: (scale) => {
      const env = { LEAK_HEAP_BYTES: String(1024 * 1024), PAUSE_SECONDS: '0.02' };
      return withFaults(kind, { ...TWO, args: ['--thread-memory-limit', '64'], env }, async (server) => {
        const clients = new Clients(server, 3, 1);
        const ended = /needed more memory than it may have/;
        await waitFor(server, 'thread without memory', ended, 10 * scale, 120_000);
        const outcomes = await clients.stop();
        const wrong = judge(outcomes, clients, ['200', '502']);
        const [lost, deaths] = [outcomes.get('502') ?? 0, times(server, ended)];
        // One request at a time: each death costs the one that ran.
        if (lost > deaths) wrong.push(`${lost} requests lost in ${deaths} threads`);
        return { figures: `${deaths} threads; ${describe(outcomes)}`, wrong };
      });
    },
  };
}
