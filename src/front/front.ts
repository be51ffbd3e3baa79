/**
 * A front: takes requests from clients, has them run by the workers it was given, and sends the answers back. Deadlines, full
 * queues and dead workers are answered here, so that a client always gets an answer.
 */
import { dirname } from 'node:path';
import type { AnswerHandler } from '../bridge/frames.ts';
import { readStacks } from '../bridge/stacks.ts';
import { linkDescriptors, type NotOpened, openBegun, WorkerLink } from '../bridge/worker-link.ts';
import { after, now } from '../clock.ts';
import { type Dispatcher, type DispatchWorker, isHeld, type Slot } from '../dispatch/dispatcher.ts';
import type { Access } from '../log/access.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { OUTCOME } from '../metrics/counters.ts';
import { deadlineStep, GIVEN_UP } from '../policy/deadline.ts';
import { SWEEP_MS } from '../sweeper.ts';
import type { ClientServer, ClientServerParts, HttpServer } from './client-server.ts';
import type { Exchange } from './exchange.ts';
import type { FrontMetrics } from './front-metrics.ts';
import { Intake, type Runner } from './intake.ts';
import type { FrontConfig, ListenerFacts, ToMaster, WorkerAddress } from './messages.ts';
import { cut, finishWithPage, sendHead, sendWhole } from './respond.ts';

/** How often the master hears that the event loop turns: with each sweep of an idle front, and a timer may be early. */
const ALIVE_MS = 950;
/** A worker that has lived for so long without its files is not about to end. */
const UNREACHABLE_MS = 1000;
/**
 * How long a worker has to tell where a thread stands. One that is only slow, its processors being full, should: to be asked from
 * outside may be its end. But before one whose thread is given up is killed, which is INTERRUPT_MS and ABORT_MS later.
 */
const STACK_MS = 800;
/** What a dead worker had sent is in the socket's buffer; something else may hold the socket's other end open. */
const DEAD_WORKER_MS = 500;

interface Attached {
  readonly address: WorkerAddress;
  readonly firstThread: 1;
  readonly worker: DispatchWorker<Exchange>;
  readonly link: WorkerLink;
  served: number;
  draining: boolean;
  drainedSaid: boolean;
}

export class Front {
  private config: FrontConfig;
  private readonly log: ErrorLog;
  private readonly tell: (message: ToMaster) => void;
  private readonly intake: Intake;
  private readonly dispatcher: Dispatcher<Exchange>;
  private readonly clients: ClientServer;
  private readonly attached = new Map<number, Attached>();
  private readonly metrics: FrontMetrics | null;
  /** Workers that cannot be connected to, by serial, and since when that is known. */
  private readonly unreachable = new Map<number, Unreachable>();
  private aliveSaidAt = 0;
  /** Requests that were interrupted and whose stack is awaited. */
  private readonly stuckStacks = new Map<number, (stack: string) => void>();

  /** `metrics`: null if nobody wants them. */
  constructor(
    config: FrontConfig,
    log: ErrorLog,
    access: Access | null,
    parts: ClientServerParts,
    tell: (message: ToMaster) => void,
    metrics: FrontMetrics | null,
  ) {
    this.config = config;
    this.log = log;
    this.tell = tell;
    this.metrics = metrics;
    const runner: Runner = {
      oneAtATime: true,
      send: (slot, exchange) => this.send(slot, exchange),
      takeBack: (slot) => this.takeBack(slot),
      cancel: (exchange) => this.cancel(exchange),
      fail: (exchange, status, message, outcome, extraHeaders) =>
        this.fail(exchange, status, message, outcome, extraHeaders),
      sweep: (time) => this.sweep(time),
      stopped: () => this.stopped(),
      pids: () => this.pids(),
    };
    this.intake = new Intake(config, runner, {}, log, access, parts, metrics);
    this.dispatcher = this.intake.dispatcher;
    this.clients = this.intake.clients;
    metrics?.watch(this.dispatcher, this.clients, this.attached);
  }

  /** New settings: for requests from now on, and once the new listening sockets are there, for connections. */
  reconfigure(config: FrontConfig, access: Access | null, parts: ClientServerParts): void {
    this.config = config;
    this.intake.reconfigure(config, access, parts);
  }

  /** All listening sockets of the present settings are there: those of earlier ones are let go. */
  listening(): void {
    this.clients.retire();
  }

  createServer(listener: ListenerFacts): HttpServer {
    return this.clients.createServer(listener);
  }

  addWorker(address: WorkerAddress): void {
    const { serial, threads } = address;
    const begun = openBegun(address.begunPath);
    if (typeof begun === 'string') {
      this.unreachable.set(serial, { address, since: now(), why: begun });
      return;
    }
    const link = new WorkerLink(address.socketPath, begun, threads, this.config.token, {
      answersOf: (number) => this.answersOf(serial, number),
      piecesHandled: this.intake.flush,
      slotLost: (number, defect) => this.slotLost(serial, number, defect),
      stack: (_, id, stack) => this.stuckStacks.get(id)?.(stack),
      takenBack: (number, ids) => this.takenBack(serial, number, ids),
    });
    const worker = this.dispatcher.addWorker(serial, threads);
    // A thread may still be busy for a front that is no more: it says when it is not.
    for (const slot of worker.slots) this.dispatcher.loseSlot(slot, () => false, now());
    this.attached.set(serial, {
      address,
      firstThread: 1,
      worker,
      link,
      served: address.served,
      draining: false,
      drainedSaid: false,
    });
    this.reserveDescriptors();
  }

  /** The worker gets no more requests; the master hears `drained` when it runs none. */
  drainWorker(serial: number): void {
    this.unreachable.delete(serial);
    const attached = this.attached.get(serial);
    if (attached === undefined) {
      this.tell({ op: 'drained', serial });
      return;
    }
    attached.draining = true;
    this.reserveDescriptors();
    this.dispatcher.drain(attached.worker);
    for (const slot of attached.worker.slots) if (slot.requests.length > 1 && !isHeld(slot)) this.takeBack(slot);
    this.checkDrained(attached);
  }

  /** The worker's process has ended: what it had begun fails, what it had not begun runs elsewhere. */
  workerExit(serial: number): void {
    this.unreachable.delete(serial);
    const attached = this.attached.get(serial);
    if (attached === undefined) return;
    this.dispatcher.drain(attached.worker);
    attached.link.drainDead(DEAD_WORKER_MS, () => {
      this.attached.delete(serial);
      this.reserveDescriptors();
      const begun = attached.link.begun();
      const failed = this.dispatcher.removeWorker(attached.worker, (exchange) => hasBegun(exchange, begun), now());
      attached.link.close();
      this.intake.forget(attached.link);
      for (const exchange of failed)
        this.failed(exchange, attached, `was lost with its worker (pid:${attached.address.pid})`);
      this.intake.flush();
    });
  }

  stop(graceful: boolean): void {
    this.intake.stop(graceful);
  }

  /** `asked`: the number of the master's question, if it is an answer. */
  report(asked: number | null, withRequests: boolean): void {
    const report = this.intake.report(asked, withRequests);
    if (report !== null) this.tell({ op: 'report', report });
  }

  // ---- requests

  private cancel(exchange: Exchange): void {
    const { slot } = exchange;
    if (slot === null) return;
    this.attached.get(slot.worker.serial)?.link.cancel(slot.number, exchange.id);
    this.readOn(exchange);
  }

  private send(slot: Slot<Exchange>, exchange: Exchange): WorkerLink | null {
    const attached = this.attached.get(slot.worker.serial);
    if (attached === undefined) return null;
    exchange.workerPid = attached.address.pid;
    exchange.worker = attached.address.number;
    exchange.thread = slot.number + 1;
    attached.link.send(slot.number, exchange);
    return attached.link;
  }

  // ---- answers

  private answersOf(serial: number, number: number): AnswerHandler {
    let slot: Slot<Exchange> | undefined;
    /** The exchange that `id` answers: the first of its slot. */
    const current = (id: number): Exchange => {
      slot ??= this.attached.get(serial)?.worker.slots[number];
      // What stands before it was taken back, and the word of that has not come yet.
      if (slot?.takingBack) this.dispatcher.bringForward(slot, id);
      const exchange = slot?.requests[0];
      if (exchange === undefined || exchange.id !== id)
        throw new Error(`worker ${serial} answered what it was not asked`);
      return exchange;
    };
    const answered = (appUs: number, time: number): void => {
      if (slot !== undefined) this.answered(slot, appUs, time);
    };
    return {
      answer: (id, status, head, buffer, bodyStart, bodyEnd, appUs) => {
        const exchange = current(id);
        const time = now();
        if (appUs === null) exchange.pieceAt = time;
        else answered(appUs, time);
        if (exchange.phase !== 'dispatched') return;
        const close = this.clients.closes(exchange.connection);
        sendWhole(exchange, status, head, buffer, bodyStart, bodyEnd, close);
        this.clients.over(exchange, time);
      },
      head: (id, status, head, dataFollows) => {
        const exchange = current(id);
        exchange.pieceAt = now();
        if (exchange.phase !== 'dispatched') return;
        exchange.phase = 'answering';
        sendHead(exchange, status, head, this.clients.closes(exchange.connection));
        if (!dataFollows) exchange.response.flushHeaders(); // else they leave in one write
      },
      data: (id, buffer, start, end) => {
        const exchange = current(id);
        if (exchange.phase === 'answering' && end > start)
          this.sendPiece(exchange, Buffer.from(buffer.subarray(start, end)));
      },
      end: (id, isCut, appUs) => {
        const exchange = current(id);
        answered(appUs, now());
        this.readOn(exchange);
        if (exchange.phase !== 'answering') {
          this.fail(exchange, 500, '', OUTCOME.app_error);
          return;
        }
        if (isCut) {
          exchange.outcome = OUTCOME.cut;
          cut(exchange);
        } else exchange.response.end();
        this.clients.over(exchange);
      },
      error: (id, appUs) => {
        const exchange = current(id);
        answered(appUs, now());
        this.fail(exchange, 500, '', OUTCOME.app_error);
      },
      environ: (id, head) => {
        current(id).environ = pairs(head);
      },
      ready: () => this.slotReady(serial, number),
      extend: (id, ms) => {
        slot ??= this.attached.get(serial)?.worker.slots[number];
        const exchange = slot?.requests.find((one) => one.id === id);
        if (exchange === undefined) return; // a thread of the app's own asks, and the request has ended meanwhile
        // As if its time had begun so late that this much is left.
        exchange.pieceAt = now() + ms - this.config.timeoutMs;
      },
      last: (id) => {
        const exchange = current(id);
        this.readOn(exchange);
        if (exchange.phase !== 'answering') return;
        exchange.response.end();
        this.clients.over(exchange);
      },
      hints: (id, head) => {
        const exchange = current(id);
        if (exchange.phase === 'dispatched') sendHints(exchange, head);
      },
    };
  }

  private answered(slot: Slot<Exchange>, appUs: number, time: number): void {
    const attached = this.attached.get(slot.worker.serial);
    if (attached !== undefined) this.metrics?.answered(slot, attached, appUs, time);
    const wasStuck = isStuck(slot);
    this.dispatcher.answered(slot, appUs, time);
    if (attached === undefined) return;
    const { serial, requestLimit } = attached.address;
    if (wasStuck && !attached.worker.slots.some(isStuck)) this.tell({ op: 'recovered', serial });
    attached.served++;
    if (attached.served === requestLimit) this.tell({ op: 'request-limit', serial });
    if (attached.draining) this.checkDrained(attached);
  }

  private sendPiece(exchange: Exchange, piece: Buffer): void {
    exchange.pieceAt = now();
    exchange.bytesSent += piece.length;
    const isRoom = this.clients.writePiece(exchange, piece, nothing);
    const slot = exchange.slot;
    if (isRoom || exchange.heldBack !== null || slot === null) return;
    exchange.heldBack = slot;
    this.attached.get(slot.worker.serial)?.link.pause(slot.number);
    exchange.response.once('drain', () => {
      exchange.pieceAt = now();
      this.readOn(exchange);
    });
  }

  /**
   * Goes on reading what a thread sends. Also at the end of an answer, which may come in the same piece as what held it back: no
   * drain follows then, and the thread's next answer would never be read.
   */
  private readOn(exchange: Exchange): void {
    const slot = exchange.heldBack;
    if (slot === null) return;
    exchange.heldBack = null;
    this.attached.get(slot.worker.serial)?.link.resume(slot.number);
  }

  // ---- what goes wrong

  /** Answers a request that got no answer, or cuts the answer that had begun. */
  private fail(
    exchange: Exchange,
    status: number,
    message: string,
    outcome: number,
    extraHeaders?: readonly string[],
  ): void {
    if (exchange.phase === 'over') return;
    exchange.outcome = outcome;
    this.readOn(exchange);
    finishWithPage(exchange, status, message, undefined, extraHeaders);
    this.clients.over(exchange);
  }

  private failed(exchange: Exchange, { worker }: Attached, what: string): void {
    if (exchange.phase === 'over') return;
    if (worker.slots.some(({ retired }) => retired)) this.metrics?.killedInnocent();
    const { method, url } = exchange.request;
    this.log.error(`Request ${method} ${url} ${what}`);
    this.fail(exchange, 502, 'The worker that ran this request has died', OUTCOME.worker_lost);
  }

  private slotLost(serial: number, number: number, defect: Error | null): void {
    const attached = this.attached.get(serial);
    const slot = attached?.worker.slots[number];
    if (attached === undefined || slot === undefined) return;
    if (defect !== null) {
      const place = `thread ${number + 1} of worker ${attached.address.number} (pid:${attached.address.pid})`;
      this.log.error(`What ${place} sent could not be taken, it is connected anew: ${defect.stack}`);
    }
    const begun = attached.link.begun();
    const failed = this.dispatcher.loseSlot(slot, (exchange) => hasBegun(exchange, begun), now());
    // A worker that dies is mostly noticed here, before the master says so: which of the two it is, is not known yet.
    const what = `was lost: its worker (pid:${attached.address.pid}) died, or its thread lost the connection to this front`;
    for (const exchange of failed) this.failed(exchange, attached, what);
    this.intake.flush();
    if (attached.draining) this.checkDrained(attached);
  }

  private slotReady(serial: number, number: number): void {
    const slot = this.attached.get(serial)?.worker.slots[number];
    if (slot !== undefined && isHeld(slot)) this.dispatcher.restoreSlot(slot, now());
  }

  private takeBack(slot: Slot<Exchange>): void {
    const link = this.attached.get(slot.worker.serial)?.link;
    if (link === undefined) return;
    link.flush();
    this.dispatcher.takeBack(slot);
    link.takeBack(slot.number);
  }

  private takenBack(serial: number, number: number, ids: ReadonlySet<number>): void {
    const attached = this.attached.get(serial);
    const slot = attached?.worker.slots[number];
    if (attached === undefined || slot === undefined) return;
    this.dispatcher.takenBack(slot, ids, now());
    this.intake.flush();
    if (attached.draining) this.checkDrained(attached);
  }

  private reserveDescriptors(): void {
    let forWorkers = 0;
    for (const { worker, draining } of this.attached.values())
      if (!draining) forWorkers += linkDescriptors(worker.slots.length);
    this.clients.reserveDescriptors(forWorkers);
  }

  private *pids(): Generator<number> {
    for (const { address } of this.attached.values()) yield address.pid;
  }

  private sweep(time: number): void {
    for (const [serial, { address, since, why }] of this.unreachable) {
      if (time - since < UNREACHABLE_MS) continue;
      this.unreachable.delete(serial);
      const what = `Worker ${address.number} (pid:${address.pid}) gets no requests`;
      // Killed as soon as it was ready, it would have ended by now.
      if (why === 'gone') {
        this.log.critical(
          `${what}: ${dirname(address.begunPath)} has been removed. ` +
            'Restart the server, with --worker-tmp-dir in a folder that nothing clears',
        );
      } else {
        this.log.error(`${what} yet: no descriptor is left with which to reach it (ulimit -n)`);
        this.addWorker(address);
      }
    }
    if (time - this.aliveSaidAt >= ALIVE_MS) {
      this.aliveSaidAt = time;
      this.tell({ op: 'alive', served: Array.from(this.attached, ([serial, { served }]) => [serial, served]) });
      this.report(null, false);
    }
    for (const { slot, request } of this.dispatcher.running()) {
      this.checkDeadline(slot, request, time);
      this.askForHeldAnswer(slot, request, time);
    }
  }

  private stopped(): void {
    this.report(null, false); // nothing that was counted is lost
    this.tell({ op: 'stopped' });
  }

  /** A worker that expects to be done in a moment may hold an answer that is ready; it sends it when it is asked. */
  private askForHeldAnswer(slot: Slot<Exchange>, exchange: Exchange, time: number): void {
    if (exchange.phase !== 'dispatched' || exchange.askedFor || isHeld(slot) || time - slot.runningSince < SWEEP_MS)
      return;
    exchange.askedFor = true;
    this.takeBack(slot);
  }

  private checkDeadline(slot: Slot<Exchange>, exchange: Exchange, time: number): void {
    // Until the head of the answer the whole time counts, then the gap between two pieces, but not a client's slowness.
    const since = Math.max(slot.runningSince, exchange.pieceAt);
    const step = deadlineStep(exchange.timedOutAt, since, exchange.heldBack !== null, this.config.timeoutMs, time);
    const attached = this.attached.get(slot.worker.serial);
    if (step === 'give-up') {
      // Code that swallows the exception, or that it does not reach: only the end of the process helps.
      exchange.timedOutAt = GIVEN_UP;
      // An interpreter that could tell where the thread stands runs others as well.
      this.tell({ op: 'stuck', serial: slot.worker.serial, servesOn: !this.stuckStacks.has(exchange.id) });
      if (attached?.draining) this.checkDrained(attached);
    }
    if (step !== 'time-out') return;
    exchange.timedOutAt = time;
    // A connection that the app was reading from has the rest of an answer in it, for whoever asks there next.
    if (this.dispatcher.retire(slot)) this.takeBack(slot);
    if (attached === undefined) return;
    const { method, url } = exchange.request;
    const age = ((time - exchange.startedAt) / 1000).toFixed(1);
    const place = `worker ${attached.address.number}, thread ${slot.number + 1}`;
    this.fail(
      exchange,
      504,
      `The application did not answer within ${this.config.timeoutMs / 1000} s`,
      OUTCOME.timeout,
    );
    this.interrupt(attached, slot.number, exchange.id, (stack) => {
      this.log.critical(
        `WORKER TIMEOUT (pid:${attached.address.pid}): ${method} ${url}, ${age} s old, in ${place}\n${stack}`,
      );
      const servesOn = slot.worker.slots.some(({ retired }) => !retired);
      this.tell({ op: 'timed-out', serial: attached.address.serial, servesOn });
    });
  }

  /** Interrupts a request and gives its stack to `log`: by the worker's word, or if that does not come from outside. */
  private interrupt(attached: Attached, slot: number, id: number, log: (stack: string) => void): void {
    const { pid, stacksPath } = attached.address;
    const known = (stack: string): void => {
      cancel();
      if (this.stuckStacks.delete(id)) log(stack);
    };
    const cancel = after(STACK_MS, () => readStacks(pid, stacksPath, known));
    this.stuckStacks.set(id, known);
    attached.link.interrupt(slot, id);
  }

  private checkDrained(attached: Attached): void {
    if (attached.drainedSaid) return;
    const busy = attached.worker.slots.some((slot) => slot.requests.some((exchange) => exchange.timedOutAt === 0));
    if (busy) return;
    attached.drainedSaid = true;
    this.tell({ op: 'drained', serial: attached.address.serial });
  }
}

interface Unreachable {
  readonly address: WorkerAddress;
  readonly since: number;
  readonly why: NotOpened;
}

/** Whether it runs a request that was interrupted and given up. */
function isStuck({ requests }: Slot<Exchange>): boolean {
  return requests[0]?.timedOutAt === GIVEN_UP;
}

/** Whether a request of a thread that is no more had begun, by the id of what that thread began last. */
function hasBegun(exchange: Exchange, begun: readonly number[]): boolean {
  const slot = exchange.slot;
  if (slot === null) return true;
  const last = slot.requests.findIndex((request) => request.id === begun[slot.number]);
  return slot.requests.indexOf(exchange) <= last;
}

function pairs(head: string): ReadonlyMap<string, string> {
  const parts = head.split('\0');
  const map = new Map<string, string>();
  for (let at = 0; at + 1 < parts.length; at += 2) map.set(parts[at] ?? '', parts[at + 1] ?? '');
  return map;
}

function nothing(): void {}

/** The worker has checked them. node:http would refuse a Link that it cannot read, and leave out all else. */
function sendHints({ request, response }: Exchange, head: string): void {
  if (request.httpVersionMinor === 0) return;
  response.sendInterim(`HTTP/1.1 103 Early Hints\r\n${head}\r\n`);
}
