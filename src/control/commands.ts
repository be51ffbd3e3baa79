/**
 * The commands of the control socket: Gunicorn's, with its words and the fields of its answers, and nunicorn's own. Each
 * stands in the table once; the help is made from it.
 */

import { describeSocket } from '../master/listening-sockets.ts';
import type { WorkerView } from '../metrics/view.ts';
import type { Reason } from '../policy/reasons.ts';
import { shellWords } from '../settings/shell-words.ts';
import type { ControlTarget } from './target.ts';

/** A command that cannot be carried out: what is wrong, and what would be right. */
export class CommandError extends Error {}

interface Command {
  readonly words: string;
  /** The one argument that it takes, as shown in the help. */
  readonly args?: string;
  readonly help: string;
  readonly run: (target: ControlTarget, args: readonly string[]) => unknown;
}

/** Settings that `show config` gives, as Gunicorn's: those that are asked for in operation. */
const CONFIG_NAMES = [
  'bind',
  'workers',
  'worker_class',
  'threads',
  'fronts',
  'timeout',
  'graceful_timeout',
  'keepalive',
  'max_requests',
  'max_requests_jitter',
  'max_lifetime',
  'memory_limit',
  'max_queue',
  'queue_timeout',
  'preload_app',
  'daemon',
  'pidfile',
  'proc_name',
  'reload',
  'control_socket',
] as const;

/** Workers that one command adds or removes: a slip must not fill the machine. */
const MOST_AT_ONCE = 100;

/** Reasons for which a worker is ended by force. */
const KILLED: readonly Reason[] = ['boot_timeout', 'memory_hard', 'timeout', 'unresponsive'];

export const COMMANDS: readonly Command[] = [
  {
    words: 'show all',
    help: 'The pid of the master, and the workers and their state',
    run: (target) => {
      const workers = workersOf(target).map(shownWorker);
      return {
        arbiter: { pid: process.pid, type: 'arbiter', role: 'master' },
        web_workers: workers.map((worker) => ({ ...worker, type: 'web' })),
        web_worker_count: workers.length,
        dirty_arbiter: null,
        dirty_workers: [],
        dirty_worker_count: 0,
      };
    },
  },
  {
    words: 'show workers',
    help: 'The workers and their state',
    run: (target) => {
      const workers = workersOf(target).map(shownWorker);
      return { workers, count: workers.length };
    },
  },
  {
    words: 'show boot',
    help: 'How long each worker took to boot, and why it was started',
    run: (target) => ({
      workers: workersOf(target).map(({ number, pid, state, reason, ageMs, bootMs, reached }) => ({
        number,
        pid,
        state,
        reason,
        boot_seconds: seconds(bootMs ?? ageMs),
        steps: reached.map(({ step, afterMs }) => ({ step, after_seconds: seconds(afterMs) })),
      })),
    }),
  },
  {
    words: 'show requests',
    help: 'Each request that runs or waits: method, path, age, worker, thread',
    run: (target) => target.requests(),
  },
  {
    words: 'show status',
    help: 'Everything that is counted, as JSON: what nunicorn top shows',
    run: (target) => target.status(),
  },
  {
    words: 'show config',
    help: 'The settings in effect',
    run: (target) => {
      const { settings } = target.view.setup().loaded;
      return Object.fromEntries(CONFIG_NAMES.map((name) => [name, settings[name]]));
    },
  },
  {
    words: 'show stats',
    help: 'Uptime, workers started and killed, reloads',
    run: async (target) => {
      const { server, totals } = await target.status();
      return {
        uptime: Math.round(server.uptime * 100) / 100,
        pid: process.pid,
        workers_current: target.view.workers().length,
        workers_target: target.view.workerCount(),
        workers_spawned: Object.values(totals.spawns).reduce((sum, count) => sum + count, 0),
        workers_killed: KILLED.reduce((sum, reason) => sum + (totals.exits[reason] ?? 0), 0),
        reloads: target.view.reloads(),
        dirty_arbiter_pid: null,
      };
    },
  },
  {
    words: 'show listeners',
    help: 'The addresses that are listened at',
    run: (target) => {
      const { loaded, sockets } = target.view.setup();
      const listeners = sockets.map((socket) => ({
        address: describeSocket(socket, loaded.settings),
        fd: socket.handle.fd,
        type: socket.facts.kind === 'unix' ? 'unix' : socket.facts.host.includes(':') ? 'tcp6' : 'tcp',
      }));
      return { listeners, count: listeners.length };
    },
  },
  {
    words: 'show dirty',
    help: "Gunicorn's dirty arbiter: there is none here",
    run: () => ({ enabled: false, pid: null, workers: [], apps: [] }),
  },
  {
    words: 'backtrace',
    args: 'WORKER',
    help: 'The stacks of all threads of a worker (its number or pid): of Python also while C code holds the GIL',
    run: async (target, args) => {
      const worker = findWorker(target, args);
      return { worker: worker.number, pid: worker.pid, stacks: await target.actions.stacks(worker.serial) };
    },
  },
  {
    words: 'drain',
    args: 'WORKER',
    help: 'Let a worker (its number or pid) finish what it runs, and replace it',
    run: (target, args) => {
      const worker = findWorker(target, args);
      target.actions.replaceWorker(worker.serial);
      return { success: true, draining: worker.pid };
    },
  },
  {
    words: 'worker add',
    args: '[N]',
    help: 'N workers more (1)',
    run: (target, args) => {
      const previous = target.view.workerCount();
      const wanted = countOf(args);
      for (let i = 0; i < wanted; i++) target.actions.addWorker();
      return { added: wanted, previous, total: previous + wanted };
    },
  },
  {
    words: 'worker remove',
    args: '[N]',
    help: 'N workers less (1); the last one stays',
    run: (target, args) => {
      const previous = target.view.workerCount();
      const removed = Math.min(countOf(args), Math.max(0, previous - 1)); // at rest there is none
      for (let i = 0; i < removed; i++) target.actions.removeWorker();
      return { removed, previous, total: previous - removed };
    },
  },
  {
    words: 'worker kill',
    args: 'PID',
    help: 'The same as drain, with the words of Gunicorn',
    run: (target, args) => {
      const [pid = ''] = args;
      if (pid === '') throw new CommandError('Invalid argument: Missing PID for worker kill');
      const worker = workersOf(target).find((one) => String(one.pid) === pid);
      if (worker === undefined) return { success: false, error: `Worker ${pid} not found` };
      target.actions.replaceWorker(worker.serial);
      return { success: true, killed: worker.pid };
    },
  },
  {
    words: 'reload',
    help: 'The same as the signal HUP',
    run: (target) => {
      target.signal('SIGHUP');
      return { status: 'reloading' };
    },
  },
  {
    words: 'reopen',
    help: 'Open the log files anew, as the signal USR1',
    run: (target) => {
      target.signal('SIGUSR1');
      return { status: 'reopening' };
    },
  },
  {
    words: 'shutdown',
    args: '[graceful|quick]',
    help: 'The same as the signal TERM, or INT',
    run: (target, [mode = 'graceful']) => {
      if (mode !== 'graceful' && mode !== 'quick')
        throw new CommandError(`Invalid argument: '${mode}' is no way to shut down; it is graceful or quick`);
      target.signal(mode === 'graceful' ? 'SIGTERM' : 'SIGINT');
      return { status: 'shutting_down', mode };
    },
  },
  {
    words: 'help',
    help: 'This list',
    run: () => ({
      commands: Object.fromEntries(COMMANDS.map(({ words, args, help }) => [args ? `${words} ${args}` : words, help])),
    }),
  },
];

/**
 * Carries out `command`, a line as typed, with further arguments.
 *
 * @returns what the answer's `data` is
 * @throws CommandError
 */
export async function runCommand(target: ControlTarget, command: string, more: readonly string[]): Promise<unknown> {
  const typed = shellWords(command);
  if (typed === undefined) throw new CommandError('Invalid argument: No closing quotation');
  const words = [...typed, ...more];
  if (words.length === 0) throw new CommandError('Empty command');
  const lower = words.map((word) => word.toLowerCase());
  const found = COMMANDS.find(({ words: own }) => own.split(' ').every((word, at) => lower[at] === word));
  if (found !== undefined) {
    const args = words.slice(found.words.split(' ').length);
    const usage = found.args === undefined ? found.words : `${found.words} ${found.args}`;
    const excess = args[found.args === undefined ? 0 : 1];
    if (excess !== undefined) throw new CommandError(`Invalid argument: '${excess}' is too much: ${usage}`);
    return await found.run(target, args);
  }
  const first = COMMANDS.filter(({ words: own }) => own.split(' ')[0] === lower[0]);
  const choices = (first.length > 0 ? first : COMMANDS).map(({ words: own }) => own);
  throw new CommandError(`Invalid argument: Unknown command: ${words.join(' ')} (${choices.join(', ')})`);
}

/** A worker with the fields of Gunicorn's answer, and nunicorn's own. */
function shownWorker(worker: WorkerView): Record<string, unknown> {
  return {
    pid: worker.pid,
    age: worker.serial,
    booted: worker.bootMs !== null,
    aborted: worker.stuck,
    // Fronts watch each request; there is no heartbeat of a worker.
    last_heartbeat: null,
    number: worker.number,
    state: worker.state,
    reason: worker.reason,
    uptime: seconds(worker.ageMs),
    requests: worker.served,
  };
}

function findWorker(target: ControlTarget, [name = '']: readonly string[]): WorkerView {
  const workers = workersOf(target);
  // The number is that of the seat: while a worker is replaced, the one that serves is meant.
  const found =
    workers.find(({ number, state }) => String(number) === name && state === 'ready') ??
    workers.find(({ number, pid }) => String(number) === name || String(pid) === name);
  if (found !== undefined) return found;
  const known = workers.map(({ number, pid }) => `${number} (pid ${pid})`).join(', ');
  throw new CommandError(`Invalid argument: there is no worker '${name}'; there are ${known}`);
}

function countOf([text = '1']: readonly string[]): number {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1 || number > MOST_AT_ONCE)
    throw new CommandError(`Invalid argument: '${text}' is no number of workers from 1 to ${MOST_AT_ONCE}`);
  return number;
}

function workersOf(target: ControlTarget): readonly WorkerView[] {
  return [...target.view.workers()].sort((a, b) => a.number - b.number || a.serial - b.serial);
}

function seconds(milliseconds: number): number {
  return Math.round(milliseconds / 10) / 100;
}
