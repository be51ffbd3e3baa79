/** What a front counts of its requests, and what it reports to the master. Only there when somebody asked for metrics. */
import { now } from '../clock.ts';
import type { Dispatcher, Slot } from '../dispatch/dispatcher.ts';
import type { Access } from '../log/access.ts';
import { FRONT_AT, FrontCounters, OUTCOME, observe } from '../metrics/counters.ts';
import type { FrontReport, ProcessReport, WorkerReport } from '../metrics/report.ts';
import type { Statsd } from '../metrics/statsd.ts';
import type { RequestPhase, RequestStatus, SlotState } from '../metrics/status.ts';
import type { ClientServer } from './client-server.ts';
import { splitTarget } from './environ.ts';
import type { Exchange } from './exchange.ts';

/** A worker of the front; in a worker of a Node app, one of its threads. */
interface Attached {
  readonly address: { readonly serial: number; readonly number: number };
  /** The number of its first slot, from 1. */
  readonly firstThread: number;
  readonly worker: { readonly slots: readonly Slot<Exchange>[] };
  readonly draining: boolean;
  /** How long it has been busy since this was called last; left out: as long as its slots had requests. */
  readonly takeBusyMs?: () => number;
}

/** What a front's requests go through. */
interface Watched {
  readonly dispatcher: Dispatcher<Exchange>;
  readonly clients: ClientServer;
  readonly attached: ReadonlyMap<number, Attached>;
}

export class FrontMetrics {
  private readonly counters = new FrontCounters();
  private readonly front: number;
  private readonly statsd: Statsd | null;
  private watched: Watched | null = null;
  /** The time that slots were busy is counted up to here. */
  private countedAt = now();

  constructor(front: number, statsd: Statsd | null) {
    this.front = front;
    this.statsd = statsd;
  }

  /** What reports tell of, beside what is counted. */
  watch(dispatcher: Dispatcher<Exchange>, clients: ClientServer, attached: ReadonlyMap<number, Attached>): void {
    this.watched = { dispatcher, clients, attached };
  }

  /** The first request of `slot` is about to be taken out of it. */
  answered(slot: Slot<Exchange>, attached: Attached, appUs: number, time: number): void {
    const exchange = slot.requests[0];
    if (exchange === undefined) return;
    this.counters.answered(
      this.counters.worker(attached.address.number),
      Math.max(0, slot.runningSince - exchange.queuedAt),
      appUs / 1000,
      attached.takeBusyMs === undefined ? time - Math.max(slot.runningSince, this.countedAt) : 0,
    );
  }

  read(exchange: Exchange): void {
    if (exchange.body !== null) observe(this.counters.cells, FRONT_AT.body, exchange.queuedAt - exchange.startedAt);
  }

  over(exchange: Exchange): void {
    const durationMs = now() - exchange.startedAt;
    this.counters.requestOver(exchange.status, exchange.outcome, durationMs);
    if (exchange.status > 0) this.statsd?.request(exchange.status, durationMs);
  }

  /** What came was no HTTP, and got this status. */
  notUnderstood(status: number): void {
    this.counters.requestOver(status, OUTCOME.refused, 0);
    this.statsd?.request(status, 0);
  }

  connected(): void {
    this.counters.add(FRONT_AT.connections);
  }

  clientLeft(): void {
    this.counters.add(FRONT_AT.clientDisconnects);
  }

  /** A request that ran beside a stuck one was lost with its worker. */
  killedInnocent(): void {
    this.counters.add(FRONT_AT.killedInnocent);
  }

  /** The event loop has come round to a timer, so much too late. */
  turned(lateMs: number): void {
    observe(this.counters.cells, FRONT_AT.lag, lateMs);
  }

  /** `asked`: the number of the master's question, if it asked. */
  report(access: Access | null, asked: number | null, withRequests: boolean): FrontReport {
    const { counters, watched } = this;
    this.countBusy(now());
    if (access !== null) counters.cells[FRONT_AT.accessLinesDropped] = access.dropped;
    const { user, system } = process.cpuUsage();
    counters.cells[FRONT_AT.cpuMs] = (user + system) / 1000;
    counters.cells[FRONT_AT.reservedMs] = watched?.dispatcher.reservedMs(now()).summed ?? 0;
    return {
      ...(asked === null ? {} : { asked }),
      cells: Array.from(counters.cells),
      workers: this.workers(),
      queueDepth: watched?.dispatcher.queueLength ?? 0,
      connections: watched?.clients.connections.size ?? 0,
      ...(withRequests && watched !== null ? { requests: this.requests(watched) } : {}),
    };
  }

  /** Counts the time of what runs now. So a long request is not counted all at once at its end. */
  private countBusy(time: number): void {
    for (const { address, worker, takeBusyMs } of this.watched?.attached.values() ?? []) {
      let busyMs = takeBusyMs?.() ?? 0;
      for (const slot of takeBusyMs === undefined ? worker.slots : [])
        if (slot.requests.length > 0) busyMs += Math.max(0, time - Math.max(slot.runningSince, this.countedAt));
      this.counters.busy(this.counters.worker(address.number), busyMs);
    }
    this.countedAt = time;
  }

  private workers(): WorkerReport[] {
    const attached = Array.from(this.watched?.attached.values() ?? []);
    return Array.from(this.counters.workers, ([number, cells]) => ({
      number,
      cells: Array.from(cells),
      processes: processesOf(
        attached.filter(({ address }) => address.number === number),
        this.watched?.dispatcher.isReserving ?? false,
      ),
    }));
  }

  private requests({ dispatcher, clients }: Watched): RequestStatus[] {
    const time = now();
    const list: RequestStatus[] = [];
    for (const { current } of clients.connections) {
      if (current !== null) list.push(this.request(current, time));
    }
    // Their clients are gone, or have a 504; their threads are not back.
    for (const request of dispatcher.sent()) {
      if (request.phase === 'over') list.push(this.request(request, time));
    }
    return list;
  }

  private request(exchange: Exchange, time: number): RequestStatus {
    const slot: Slot<Exchange> | null = exchange.slot;
    const attached = slot === null ? undefined : this.watched?.attached.get(slot.worker.serial);
    const begun = slot !== null && slot.requests[0] === exchange;
    return {
      front: this.front,
      id: exchange.id,
      method: exchange.request.method ?? '',
      path: splitTarget(exchange.request.url ?? '').path,
      client: exchange.connection.remoteAddress,
      age: (time - exchange.startedAt) / 1000,
      phase: phaseOf(exchange, begun),
      worker: attached?.address.number ?? null,
      thread: slot === null ? null : exchange.thread,
      running: begun && slot !== null ? (time - slot.runningSince) / 1000 : null,
    };
  }
}

function processesOf(attached: readonly Attached[], isReserving: boolean): ProcessReport[] {
  const processes = new Map<number, { slots: SlotState[]; busy: number }>();
  for (const { address, worker, draining } of attached.toSorted((one, other) => one.firstThread - other.firstThread)) {
    const { slots, busy } = processes.get(address.serial) ?? { slots: [], busy: 0 };
    processes.set(address.serial, {
      slots: [...slots, ...worker.slots.map((slot) => stateOf(slot, draining, isReserving))],
      busy: busy + worker.slots.filter(({ requests }) => requests.length > 0).length,
    });
  }
  return Array.from(processes, ([serial, process]) => ({ serial, ...process }));
}

function phaseOf(exchange: Exchange, begun: boolean): RequestPhase {
  if (exchange.timedOutAt > 0) return 'timed-out';
  if (exchange.phase === 'reading') return 'reading';
  if (exchange.phase === 'answering') return 'answering';
  if (exchange.slot === null) return 'queued';
  return begun ? 'running' : 'ahead';
}

function stateOf(slot: Slot<Exchange>, draining: boolean, isReserving: boolean): SlotState {
  const first = slot.requests[0];
  if (slot.lost) return 'lost';
  if (first !== undefined && first.timedOutAt > 0) return 'stuck';
  if (draining || slot.retired) return 'draining';
  if (first !== undefined) return 'busy';
  return isReserving ? 'reserved' : 'idle';
}
