// The load generator of `nunicorn size` against servers of known latency, and beside wrk.
import { strict as assert } from 'node:assert';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { it } from 'node:test';
import { Generator } from '../../src/size/generator.ts';
import type { LoadOptions, LoadResult } from '../../src/size/load/load.ts';
import { measuring } from '../helpers/measuring.ts';
import { ROOT } from '../helpers/paths.ts';

const BARE_SERVER = join(ROOT, 'dist', 'src', 'size', 'load', 'bare-server.js');
const WRK_MISSING = spawnSync('wrk', ['-v']).error !== undefined && 'wrk is not installed';
/** Added by a busy machine. */
const SLACK_MS = 150;

async function withBareServer(test: (port: number) => Promise<void>): Promise<void> {
  const child = spawn(process.execPath, [BARE_SERVER], { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    const [port] = await once(child.stdout, 'data');
    await measuring(() => test(Number(String(port))));
  } finally {
    child.stdin.end();
    await once(child, 'close');
  }
}

async function load(port: number, path: string, more: Partial<LoadOptions>): Promise<LoadResult> {
  const generator = new Generator((command) => command);
  try {
    return await generator.run({
      host: '127.0.0.1',
      port,
      requests: [{ text: `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`, weight: 1, status: 200 }],
      arrivals: { kind: 'poisson', perSecond: 100 },
      durationMs: 1500,
      warmUpMs: 200,
      connections: 64,
      keepAlive: true,
      timeoutMs: 10_000,
      spin: false,
      seed: 1,
      ...more,
    });
  } finally {
    generator.stop();
  }
}

function failed({ failures }: LoadResult): number {
  return Object.values(failures).reduce((sum, count) => sum + count, 0);
}

it('finds the latency of a server that waits 40 ms, and L = X * R', async () => {
  await withBareServer(async (port) => {
    const result = await load(port, '/40', {});
    assert.equal(failed(result), 0, JSON.stringify(result));
    assert.equal(result.answered, result.intended);
    // Poisson: 150 within five standard deviations.
    assert(result.intended > 89 && result.intended < 211, String(result.intended));
    const { p50Ms, meanMs } = result.latency;
    assert(p50Ms >= 39.4 && p50Ms < 40 + SLACK_MS, JSON.stringify(result.latency));
    const little = ((result.intended / result.seconds) * meanMs) / 1000;
    // Those under way at the two ends of the window are counted by one side only.
    assert(Math.abs(little / result.meanInFlight - 1) < 0.15, `${little} beside ${result.meanInFlight}`);
  });
});

it('counts latency from the intended start: a stall shows in all requests that should have begun meanwhile', async () => {
  let stalled = false;
  const server = createServer((_, response) => {
    if (!stalled) {
      stalled = true;
      setTimeout(() => {
        // The whole server stands still, as with a lock that is held.
        const end = performance.now() + 600;
        while (performance.now() < end);
      }, 500);
    }
    response.end('ok');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    const { port } = server.address() as AddressInfo;
    const result = await load(port, '/', {
      arrivals: { kind: 'constant', perSecond: 100 },
      warmUpMs: 0,
      durationMs: 2000,
    });
    assert.equal(failed(result), 0);
    assert.equal(result.answered, result.intended);
    // 60 of 200 requests fall into the stall and wait 300 ms on average: a tenth of all waits longer than 400 ms.
    assert(result.latency.p90Ms > 300, JSON.stringify(result.latency));
    assert(result.latency.maxMs >= 590, JSON.stringify(result.latency));
  } finally {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  }
});

it('counts other answers, closed ports and timeouts as failures, never as answers', async () => {
  await withBareServer(async (port) => {
    const requests = [{ text: 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', weight: 1, status: 204 }];
    const wrong = await load(port, '/', { requests, durationMs: 300 });
    assert.equal(wrong.answered, 0);
    assert.equal(wrong.failures.status, wrong.intended);
    const slow = await load(port, '/60000', { timeoutMs: 300, durationMs: 300, connections: 8 });
    assert.equal(slow.answered, 0);
    assert(slow.failures.timeout > 0);
    assert.equal(failed(slow), slow.intended, JSON.stringify(slow));
    // They may take longer than the generator waits for the last ones.
    const last = await load(port, '/60000', { timeoutMs: 250_000, lastAnswersMs: 200, durationMs: 300 });
    assert.equal(last.failures.timeout, last.intended, JSON.stringify(last));
  });
  const closed = await load(1, '/', { durationMs: 200 });
  assert.equal(closed.failures.connect, closed.intended);
});

it('keeps the set number of requests under way in a closed load', async () => {
  await withBareServer(async (port) => {
    const result = await load(port, '/20', { arrivals: { kind: 'closed', inFlight: 6 } });
    assert(Math.abs(result.meanInFlight - 6) < 0.3, String(result.meanInFlight));
    assert(result.completed > 0 && result.completed <= (6 * 1500) / 19.4, String(result.completed));
  });
});

it('measures what wrk measures', { skip: WRK_MISSING }, async () => {
  await withBareServer(async (port) => {
    const own = await load(port, '/20', { arrivals: { kind: 'closed', inFlight: 8 }, durationMs: 2000 });
    const output = execFileSync('wrk', ['-t', '1', '-c', '8', '-d', '2s', '--latency', `http://127.0.0.1:${port}/20`], {
      encoding: 'utf8',
    });
    const wrk = Number(/50%\s+([\d.]+)ms/.exec(output)?.[1]);
    const perSecond = Number(/Requests\/sec:\s+([\d.]+)/.exec(output)?.[1]);
    // A server that waits 20 ms for 8 clients: both must find it, a busy machine adds to both.
    assert(wrk >= 19.4 && own.latency.p50Ms >= 19.4, `${wrk} and ${own.latency.p50Ms} ms`);
    assert(
      Math.abs(Math.log(own.completed / own.seconds / perSecond)) < Math.log(1.5),
      `${own.completed / own.seconds}/s and wrk ${perSecond}/s`,
    );
  });
});
