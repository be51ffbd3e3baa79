// The same for Node, in each of its threads.
import { openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { threadId } from 'node:worker_threads';

const setting = (name) => Number(process.env[name] ?? 0);
await sleep(setting('BOOT_SECONDS') * 1000);
const leakBytes = setting('LEAK_BYTES');
const leakHeapBytes = setting('LEAK_HEAP_BYTES');
const pauseMs = setting('PAUSE_SECONDS') * 1000;
const leaked = [];
let ran = null;

export default (request, response) => {
  let bytes = 0;
  request.on('data', (piece) => {
    bytes += piece.length;
  });
  request.on('end', async () => {
    const [path, query] = request.url.split('?');
    if (query) {
      ran ??= openSync(join(process.env.HOME, `ran.${process.pid}.${threadId}`), 'a');
      writeSync(ran, `${query}\n`);
    }
    if (path === '/crash') throw new Error('nobody catches this');
    if (leakBytes > 0) leaked.push(Buffer.alloc(leakBytes, 'x'));
    // Numbers that are no small integers take 8 bytes each, in the heap.
    if (leakHeapBytes > 0) leaked.push(Array.from({ length: leakHeapBytes / 8 }, (_, at) => at + 0.5));
    await sleep(pauseMs);
    response.end(String(bytes));
  });
};
