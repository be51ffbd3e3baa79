import { strict as assert } from 'node:assert';
import { ChildProcess } from 'node:child_process';
import { mock, test } from 'node:test';
import { Mold, type MoldHandler } from '../../src/master/mold.ts';
import { nothing, SILENT_LOG } from '../helpers/silent-log.ts';

test('a mold that is ready while its stacks are written for a boot that takes too long stays', () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    const child = Object.assign(new ChildProcess(), { pid: 7 });
    const killed: unknown[] = [];
    child.kill = (signal) => killed.push(signal) > 0;
    let written: (stacks: string) => void = () => assert.fail('nobody asked for its stacks');
    const handler: MoldHandler = {
      spawn: () => ({ serial: -1, child }),
      ready: nothing,
      forked: nothing,
      notForked: nothing,
      exited: nothing,
      bootTimeoutMs: () => 500,
      stacks: (_, done) => {
        written = done;
      },
      processEnded: nothing,
      ended: nothing,
      unbootable: nothing,
      hookFailed: nothing,
    };
    const mold = new Mold(handler, SILENT_LOG);
    mold.start();
    const later = performance.now() + 600;
    const clock = mock.method(performance, 'now', () => later);
    mock.timers.tick(600);
    clock.mock.restore();
    mold.said({ op: 'ready' });
    written('');
    assert.deepEqual(killed, []);
  } finally {
    mock.timers.reset();
  }
});
