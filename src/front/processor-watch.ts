/**
 * Watches the processors while there is more to run than they can, and has the dispatcher keep slots in reserve when they have no
 * time left. From /proc: proc_stat(5), proc_pid_stat(5). Where that cannot be read nothing is known, and nothing is limited.
 */
import { readFileSync } from 'node:fs';
import { ConcurrencyLimit, type ProcessorUse, type UsableProcessors } from '../dispatch/concurrency-limit.ts';
import type { Dispatched, Dispatcher } from '../dispatch/dispatcher.ts';

/** The unit of both files, USER_HZ, on every system that Node runs on. */
const TICK_MS = 10;
/** Between two looks, at least: ticks are coarse. */
const WINDOW_MS = 90;

/** All but `at` since some moment on, in milliseconds. */
interface Times {
  readonly at: number;
  /** Summed over the processors, as the next one. */
  readonly idleMs: number;
  readonly stolenMs: number;
  /** Of each process that was there. */
  readonly ownMs: ReadonlyMap<number, number>;
  readonly reservedMs: number;
}

export class ProcessorWatch {
  private readonly lines: readonly RegExp[];
  private readonly concurrency: ConcurrencyLimit;
  private last: Times | null = null;

  constructor(processors: UsableProcessors) {
    // Behind the name: user, nice, system, idle, iowait, irq, softirq, steal.
    this.lines = processors.numbers.map(
      (number) => new RegExp(`^cpu${number} \\d+ \\d+ \\d+ (\\d+) (\\d+) \\d+ \\d+ (\\d+)`, 'm'),
    );
    this.concurrency = new ConcurrencyLimit(processors);
  }

  /** To be called ten times a second. `pids`: of the processes that run what is dispatched, beside this one. */
  check<R extends Dispatched>(dispatcher: Dispatcher<R>, pids: Iterable<number>, now: number): void {
    const { concurrency, last } = this;
    if (this.lines.length === 0) return;
    if (concurrency.limit === Number.POSITIVE_INFINITY && !runsMoreThan(dispatcher, concurrency.fewest)) {
      this.last = null;
      concurrency.lift();
      return;
    }
    if (last !== null && now - last.at < WINDOW_MS) return;
    this.last = this.read(pids, now, dispatcher.reservedMs(now).any);
    if (this.last === null) concurrency.lift();
    else if (last !== null) concurrency.observe(between(last, this.last));
    dispatcher.limitYoung(concurrency.limit, now);
  }

  private read(pids: Iterable<number>, at: number, reservedMs: number): Times | null {
    const stat = readText('/proc/stat');
    let idleMs = 0;
    let stolenMs = 0;
    for (const line of this.lines) {
      const found = line.exec(stat);
      if (found === null) return null;
      idleMs += (Number(found[1]) + Number(found[2])) * TICK_MS;
      stolenMs += Number(found[3]) * TICK_MS;
    }
    const { user, system } = process.cpuUsage();
    const ownMs = new Map([[process.pid, (user + system) / 1000]]);
    for (const pid of pids) {
      // The command stands in brackets and may hold anything. The first field behind it is the 3rd; utime and stime are 14 and 15.
      const text = readText(`/proc/${pid}/stat`);
      const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
      if (fields.length > 12) ownMs.set(pid, (Number(fields[11]) + Number(fields[12])) * TICK_MS);
    }
    return { at, idleMs, stolenMs, ownMs, reservedMs };
  }
}

/** Where no more run than the lowest limit lets, a limit would change nothing: reading /proc/stat takes milliseconds on large machines. */
function runsMoreThan<R extends Dispatched>(dispatcher: Dispatcher<R>, count: number): boolean {
  const running = dispatcher.running();
  for (let number = 0; number < count; number++) if (running.next().done === true) return false;
  return running.next().done !== true;
}

function between(last: Times, present: Times): ProcessorUse {
  let ownMs = 0;
  for (const [pid, ms] of present.ownMs) ownMs += ms - (last.ownMs.get(pid) ?? ms);
  return {
    elapsedMs: present.at - last.at,
    idleMs: present.idleMs - last.idleMs,
    stolenMs: present.stolenMs - last.stolenMs,
    ownMs,
    reservedMs: present.reservedMs - last.reservedMs,
  };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
