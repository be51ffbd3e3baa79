/**
 * The shape of what `--admin-bind` answers as JSON: /status and /requests. Times are in seconds since some event, or Unix times
 * where the name ends in `At`; sizes in bytes. Fields may be added; none changes its meaning.
 */
import type { Reason } from '../policy/reasons.ts';

/**
 * `idle`: nothing to run. `reserved`: requests wait, but no processor has time for it. `stuck`: its request ran into --timeout
 * and does not come back. `lost`: not connected.
 */
export const SLOT_STATES = ['idle', 'busy', 'reserved', 'draining', 'stuck', 'lost'] as const;
export type SlotState = (typeof SLOT_STATES)[number];

export type WorkerState = 'starting' | 'ready' | 'draining' | 'leaving';

/** GET /status */
export interface Status {
  readonly server: ServerStatus;
  readonly settings: SettingsSummary;
  readonly workers: readonly WorkerStatus[];
  readonly fronts: readonly FrontStatus[];
  readonly queue: QueueStatus;
  /** Over the last `seconds`. */
  readonly recent: RecentStatus;
  /** Since the start, over all processes. */
  readonly totals: Totals;
  /** The last replacements and deaths, newest first. */
  readonly events: readonly WorkerEvent[];
}

export interface ServerStatus {
  readonly version: string;
  readonly app: string;
  readonly pid: number;
  readonly state: 'starting' | 'running' | 'stopping';
  readonly startedAt: number;
  readonly uptime: number;
  readonly listeners: readonly string[];
  readonly python: string | null;
  /** Of the master. */
  readonly memory: MemoryStatus;
  /** Of what workers are forked from. Not known: there is none. */
  readonly moldMemory: MemoryStatus;
}

export interface SettingsSummary {
  readonly workers: number;
  readonly threads: number;
  readonly fronts: number;
  readonly preload: boolean;
  readonly timeout: number;
  readonly queueTimeout: number;
  readonly gracefulTimeout: number;
  readonly maxQueue: number;
  readonly maxRequests: number;
  readonly maxLifetime: number;
}

export interface WorkerStatus {
  /** 1 to N, kept by the worker that replaces it. */
  readonly number: number;
  /** Unique among all processes. Two of one number exist while one replaces the other. */
  readonly serial: number;
  readonly pid: number | null;
  readonly state: WorkerState;
  /** A thread of it does not come back: it is being replaced. */
  readonly stuck: boolean;
  readonly reason: Reason;
  readonly age: number;
  /** From its start to the moment it was ready. Null: not ready yet. */
  readonly bootTime: number | null;
  /** Requests it has answered. */
  readonly requests: number;
  /** Of each thread; of a Node app under async, of the event loop. */
  readonly slots: readonly SlotState[];
  readonly memory: MemoryStatus;
}

/** Null: not known (yet, or on this system). */
export interface MemoryStatus {
  readonly rss: number | null;
  readonly pss: number | null;
}

/** Who serves clients: a front; of a Node app a worker, which then stands in both lists. */
export interface FrontStatus {
  readonly number: number;
  readonly pid: number | null;
  readonly connections: number;
  readonly queueDepth: number;
  /** How long ago it was heard. */
  readonly heardAgo: number | null;
  readonly memory: MemoryStatus;
}

export interface QueueStatus {
  readonly depth: number;
  readonly limit: number;
}

export interface RecentStatus {
  readonly seconds: number;
  readonly requestsPerSecond: number;
  /** Answers of status 500 and above, as a share of all. */
  readonly errorRatio: number;
  /** Slots that are busy or kept in reserve, as a share of all: 0 to 1. */
  readonly utilization: number;
  /** Null: no request in this time. */
  readonly latency: Percentiles | null;
  readonly queueTime: Percentiles | null;
  readonly appTime: Percentiles | null;
  /** Means for each request. Null: not measured on this system, or no request. */
  readonly perRequest: PerRequest | null;
}

/** Seconds. */
export interface Percentiles {
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
}

/** Seconds of a thread for each request: with the processor (C), waiting for the interpreter's lock, for a processor, and all else (Z). */
export interface PerRequest {
  readonly cpu: number;
  readonly gilWait: number | null;
  readonly cpuWait: number;
  readonly io: number;
}

export interface Totals {
  readonly requests: number;
  readonly byOutcome: Readonly<Record<string, number>>;
  readonly byCodeClass: Readonly<Record<string, number>>;
  readonly spawns: Readonly<Record<string, number>>;
  readonly exits: Readonly<Record<string, number>>;
  readonly clientDisconnects: number;
}

export interface WorkerEvent {
  readonly at: number;
  readonly kind: 'spawn' | 'ready' | 'exit';
  readonly worker: number;
  readonly serial: number;
  readonly reason: Reason;
}

/** GET /requests */
export interface Requests {
  readonly requests: readonly RequestStatus[];
  /** Fronts that did not answer in time: what they hold is not in the list. */
  readonly silentFronts: readonly number[];
}

export interface RequestStatus {
  readonly front: number;
  readonly id: number;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly client: string;
  /** Seconds since its head was read. */
  readonly age: number;
  readonly phase: RequestPhase;
  /** Worker and thread from 1 on. Null: it waits. */
  readonly worker: number | null;
  readonly thread: number | null;
  /** In the app so far; null: not begun. */
  readonly running: number | null;
}

/** `ahead`: sent to a busy thread, behind the one that runs. `timed-out`: its client has a 504, its thread is not back. */
export type RequestPhase = 'reading' | 'queued' | 'ahead' | 'running' | 'answering' | 'timed-out';
