// The control socket's protocol and commands, against a master that is only played.
import { strict as assert } from 'node:assert';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { COMMANDS, CommandError, runCommand } from '../../src/control/commands.ts';
import { asJson, formatAnswer } from '../../src/control/format.ts';
import { encodeMessage, MessageDecoder } from '../../src/control/protocol.ts';
import type { ControlTarget, ServerActions } from '../../src/control/target.ts';
import type { Status } from '../../src/metrics/status.ts';
import type { ServerView, WorkerView } from '../../src/metrics/view.ts';
import type { Settings } from '../../src/settings/table.ts';

function worker(number: number, serial: number, more: Partial<WorkerView> = {}): WorkerView {
  return {
    number,
    serial,
    pid: 1000 + serial,
    state: 'ready',
    stuck: false,
    reason: 'boot',
    ageMs: 61_234,
    bootMs: 500,
    reached: [{ step: 'connected', afterMs: 120 }],
    served: 7,
    ...more,
  };
}

class Played implements ControlTarget {
  readonly said: string[] = [];
  seats = 2;
  list: WorkerView[] = [worker(2, 4), worker(1, 3, { state: 'draining' }), worker(1, 5)];
  readonly view: ServerView = {
    version: '0.0.0',
    setup: () => ({
      loaded: {
        app: 'app',
        settings: {
          workers: 2,
          bind: ['127.0.0.1:8000'],
          admin_token: 'secret',
          certfile: null,
        } as unknown as Settings,
      },
      sockets: [
        {
          address: { kind: 'tcp', host: 'localhost', port: 8000 },
          facts: { kind: 'tcp', host: '127.0.0.1', port: 8000, path: '' },
          handle: { fd: 5 },
        },
      ],
      python: { version: '3.11.7' },
    }),
    workers: () => this.list,
    workerCount: () => this.seats,
    reloads: () => 1,
    fronts: () => [],
    moldPids: () => [],
    askWorkers: async () => {},
    prometheusFolder: () => null,
    askFronts: async () => [],
  };
  readonly actions: ServerActions = {
    addWorker: () => {
      this.said.push('add');
    },
    removeWorker: () => {
      this.said.push('remove');
    },
    replaceWorker: (serial) => {
      this.said.push(`replace ${serial}`);
    },
    stacks: async (serial) => `stacks of ${serial}`,
  };
  requests = async (): ReturnType<ControlTarget['requests']> => ({ requests: [], silentFronts: [] });
  status = async (): Promise<Status> =>
    ({
      server: { uptime: 12.3456 },
      totals: { spawns: { boot: 2, reload: 3 }, exits: { reload: 2, timeout: 1, unresponsive: 1 } },
    }) as unknown as Status;
  signal = (signal: string): void => {
    this.said.push(signal);
  };
}

describe('control protocol', () => {
  it('messages survive any cut of the bytes', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ id: fc.nat(), command: fc.string(), args: fc.array(fc.string()) }), { maxLength: 5 }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
        (messages, sizes) => {
          const bytes = Buffer.concat(messages.map(encodeMessage));
          const decoder = new MessageDecoder();
          const got: unknown[] = [];
          for (let at = 0, turn = 0; at < bytes.length; turn++) {
            const size = sizes[turn % sizes.length] ?? 1;
            got.push(...decoder.push(bytes.subarray(at, at + size)));
            at += size;
          }
          assert.deepEqual(got, JSON.parse(JSON.stringify(messages)));
        },
      ),
    );
  });

  it('refuses a message that is too long before it is there, and what is no JSON', () => {
    assert.throws(() => new MessageDecoder().push(Buffer.from([0x7f, 0, 0, 0])), /at most/);
    assert.throws(() => new MessageDecoder().push(Buffer.from([0, 0, 0, 1, 0x7b])), SyntaxError);
  });
});

describe('control commands', () => {
  it("show workers has the fields of Gunicorn's answer", async () => {
    const data = (await runCommand(new Played(), 'show workers', [])) as { workers: object[]; count: number };
    assert.equal(data.count, 3);
    assert.deepEqual(data.workers[1], {
      pid: 1005,
      age: 5,
      booted: true,
      aborted: false,
      last_heartbeat: null,
      number: 1,
      state: 'ready',
      reason: 'boot',
      uptime: 61.23,
      requests: 7,
    });
  });

  it('words may come in any case, and arguments apart', async () => {
    const target = new Played();
    assert.deepEqual(await runCommand(target, 'WORKER Add', ['3']), { added: 3, previous: 2, total: 5 });
    assert.deepEqual(await runCommand(target, 'worker add', []), { added: 1, previous: 2, total: 3 });
    assert.deepEqual(target.said, ['add', 'add', 'add', 'add']);
  });

  it('worker remove removes none where there is none', async () => {
    const target = new Played();
    target.seats = 0;
    assert.deepEqual(await runCommand(target, 'worker remove', []), { removed: 0, previous: 0, total: 0 });
  });

  it('worker remove leaves one', async () => {
    const target = new Played();
    assert.deepEqual(await runCommand(target, 'worker remove 9', []), { removed: 1, previous: 2, total: 1 });
    assert.deepEqual(target.said, ['remove']);
  });

  it('a number means the worker that serves, a pid the very process', async () => {
    const target = new Played();
    await runCommand(target, 'drain 1', []);
    await runCommand(target, 'drain 1003', []);
    await runCommand(target, 'worker kill 1004', []);
    assert.deepEqual(target.said, ['replace 5', 'replace 3', 'replace 4']);
    assert.deepEqual(await runCommand(target, 'worker kill 1', []), { success: false, error: 'Worker 1 not found' });
  });

  it('show config gives what is asked for in operation, not every setting', async () => {
    const config = (await runCommand(new Played(), 'show config', [])) as Record<string, unknown>;
    assert.deepEqual([config.bind, config.workers, 'admin_token' in config], [['127.0.0.1:8000'], 2, false]);
  });

  it('show stats counts what was started, and what was ended by force', async () => {
    assert.deepEqual(await runCommand(new Played(), 'show stats', []), {
      uptime: 12.35,
      pid: process.pid,
      workers_current: 3,
      workers_target: 2,
      workers_spawned: 5,
      workers_killed: 2,
      reloads: 1,
      dirty_arbiter_pid: null,
    });
  });

  it('show listeners names the address that was bound', async () => {
    assert.deepEqual(await runCommand(new Played(), 'show listeners', []), {
      listeners: [{ address: 'http://127.0.0.1:8000', fd: 5, type: 'tcp' }],
      count: 1,
    });
  });

  it('reload, reopen and shutdown are told to the master', async () => {
    const target = new Played();
    for (const command of ['reload', 'reopen', 'shutdown', 'shutdown quick']) await runCommand(target, command, []);
    assert.deepEqual(target.said, ['SIGHUP', 'SIGUSR1', 'SIGTERM', 'SIGINT']);
  });

  for (const [command, error] of [
    ['', /Empty command/],
    ['   ', /Empty command/],
    ['show', /Unknown command: show \(show all, show workers/],
    ['show nothing', /Unknown command: show nothing/],
    ['nonsense', /Unknown command: nonsense \(.*help\)/],
    ['worker kill', /Missing PID/],
    ['worker add -1', /'-1' is no number of workers/],
    ['worker add x', /'x' is no number of workers/],
    ['worker add 1000000', /from 1 to 100/],
    ['drain 7', /there is no worker '7'; there are 1 \(pid 1003\)/],
    ['backtrace', /there is no worker ''/],
    ['drain 1 2', /'2' is too much: drain WORKER$/],
    ['worker add 1 2', /'2' is too much: worker add \[N\]$/],
    ['show workers 1', /'1' is too much: show workers$/],
    ['shutdown slowly', /graceful or quick/],
    ['show "workers', /No closing quotation/],
  ] as const) {
    it(`refuses ${JSON.stringify(command)}`, async () => {
      await assert.rejects(runCommand(new Played(), command, []), (thrown: unknown) => {
        assert.ok(thrown instanceof CommandError);
        assert.match(thrown.message, error);
        return true;
      });
    });
  }

  it('every answer can be shown', async () => {
    const target = new Played();
    for (const { words } of COMMANDS) {
      if (words === 'show status') continue;
      const command =
        words === 'backtrace' || words === 'drain' ? `${words} 2` : words === 'worker kill' ? `${words} 1004` : words;
      const text = formatAnswer(command, await runCommand(target, command, []));
      assert.ok(text.length > 0, command);
      if (words !== 'show config') assert.doesNotMatch(text, /undefined|NaN|\[object/, command);
    }
  });

  it('the table of workers is aligned', async () => {
    const text = formatAnswer('show workers', await runCommand(new Played(), 'show workers', []));
    assert.deepEqual(text.split('\n'), [
      'WORKER   PID  STATE     UPTIME  REQUESTS  STARTED FOR',
      '     1  1003  draining  1m 1s          7  boot',
      '     1  1005  ready     1m 1s          7  boot',
      '     2  1004  ready     1m 1s          7  boot',
    ]);
  });

  it('what the app has named commands no terminal', () => {
    const stacks = 'Thread \x1b]0;title\x07\x9b31m (most recent call last):\n\tä\r\n';
    assert.equal(
      formatAnswer('backtrace 1', { stacks }),
      'Thread \\x1b]0;title\\x07\\x9b31m (most recent call last):\n\tä',
    );
    const json = asJson({ stacks });
    assert.ok(!json.includes('\x1b') && !json.includes('\x9b'));
    assert.deepEqual(JSON.parse(json), { stacks });
  });
});
