/**
 * What a worker counts under async, and what it reports to the master, as a front does. Its one slot is the event loop: busy as
 * long as that has something to do, whatever number of requests wait for something meanwhile. Only there when somebody asked
 * for metrics.
 */
import { performance } from 'node:perf_hooks';
import type { Access } from '../log/access.ts';
import { FRONT_AT, FrontCounters, OUTCOME, observe, WORKER_AT } from '../metrics/counters.ts';
import type { FrontReport } from '../metrics/report.ts';
import type { Statsd } from '../metrics/statsd.ts';
import type { RequestStatus, SlotState } from '../metrics/status.ts';

/** What the server is about now. */
export interface AsyncState {
  readonly connections: number;
  readonly stopping: boolean;
  readonly requests: readonly Omit<RequestStatus, 'front' | 'worker' | 'thread'>[];
}

export class AsyncMetrics {
  private readonly counters = new FrontCounters();
  private readonly worker: Float64Array;
  private readonly serial: number;
  private readonly number: number;
  private readonly statsd: Statsd | null;
  /** How long the event loop had been busy when it began to serve. */
  private readonly busyBefore = performance.eventLoopUtilization().active;

  constructor(serial: number, number: number, statsd: Statsd | null) {
    this.serial = serial;
    this.number = number;
    this.statsd = statsd;
    this.worker = this.counters.worker(number);
  }

  connected(): void {
    this.counters.add(FRONT_AT.connections);
  }

  /** `status` 0: nothing was sent. */
  over(status: number, outcome: number, durationMs: number): void {
    const { counters, worker } = this;
    counters.requestOver(status, outcome, durationMs);
    if (outcome === OUTCOME.client_left) counters.add(FRONT_AT.clientDisconnects);
    if (outcome !== OUTCOME.refused) {
      observe(counters.cells, FRONT_AT.app, durationMs);
      (worker[WORKER_AT.requests] as number)++;
      (worker[WORKER_AT.appMs] as number) += durationMs;
    }
    if (status > 0) this.statsd?.request(status, durationMs);
  }

  /** What came was no HTTP, and got this status. */
  notUnderstood(status: number): void {
    this.over(status, OUTCOME.refused, 0);
  }

  /** The event loop has come round to a timer, so much too late. */
  turned(lateMs: number): void {
    observe(this.counters.cells, FRONT_AT.lag, lateMs);
  }

  /** `asked`: the number of the master's question, if it asked. */
  report(state: AsyncState, access: Access | null, asked: number | null, withRequests: boolean): FrontReport {
    const { counters, worker, number, serial } = this;
    const { cells } = counters;
    const { connections, stopping, requests } = state;
    worker[WORKER_AT.busyMs] = performance.eventLoopUtilization().active - this.busyBefore;
    if (access !== null) cells[FRONT_AT.accessLinesDropped] = access.dropped;
    const { user, system } = process.cpuUsage();
    cells[FRONT_AT.cpuMs] = (user + system) / 1000;
    const slot: SlotState = stopping ? 'draining' : requests.length > 0 ? 'busy' : 'idle';
    return {
      ...(asked === null ? {} : { asked }),
      cells: Array.from(cells),
      workers: [
        {
          number,
          cells: Array.from(worker),
          processes: [{ serial, slots: [slot], busy: requests.length > 0 ? 1 : 0 }],
        },
      ],
      queueDepth: 0,
      connections,
      ...(withRequests
        ? { requests: requests.map((one) => ({ ...one, front: number, worker: number, thread: 1 })) }
        : {}),
    };
  }
}
