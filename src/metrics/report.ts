/** What a front tells the master of itself, once a second and when it is asked. */
import type { RequestStatus, SlotState } from './status.ts';

export interface FrontReport {
  /** Set when it was asked for: the number of the question. */
  readonly asked?: number;
  /** As counters.ts lays them out, since the front's start. */
  readonly cells: readonly number[];
  readonly workers: readonly WorkerReport[];
  readonly queueDepth: number;
  readonly connections: number;
  /** The queue and what runs, when that was asked for. */
  readonly requests?: readonly RequestStatus[];
}

export interface WorkerReport {
  /** 1 to N. */
  readonly number: number;
  readonly cells: readonly number[];
  /** Of each process in that seat that the front is connected to: its threads. */
  readonly processes: readonly ProcessReport[];
}

export interface ProcessReport {
  readonly serial: number;
  readonly slots: readonly SlotState[];
  /** Slots that have a request, whatever their state. */
  readonly busy: number;
}
