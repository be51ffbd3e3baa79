/**
 * A fault for the dispatcher of a running process: loaded before the server's own code by `NODE_OPTIONS=--import`. When the file
 * `forget` is in HOME, the dispatcher forgets, once, which of its slots are idle, as a defect of its own would have it.
 */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Dispatcher } from '../../src/dispatch/dispatcher.ts';

const mark = join(process.env.HOME ?? '', 'forget');
const { answered } = Dispatcher.prototype;

Dispatcher.prototype.answered = function (slot, appUs, now) {
  answered.call(this, slot, appUs, now);
  if (!existsSync(mark)) return;
  rmSync(mark);
  for (const worker of this.workers) {
    worker.idle.length = 0;
    worker.hot = null;
  }
  Reflect.set(this, 'lastUsed', null);
};
