/** What the metrics need to see of the running server: given by the master. */
import type { ListenerFacts } from '../front/messages.ts';
import type { BootStep } from '../policy/boot.ts';
import type { Reason } from '../policy/reasons.ts';
import type { Address } from '../settings/address.ts';
import type { Settings } from '../settings/table.ts';
import type { PrometheusFolder } from './prometheus-reader.ts';
import type { WorkerState } from './status.ts';

export interface ServerView {
  readonly version: string;
  /** What holds now: a reload may change it. */
  setup(): SetupView;
  workers(): readonly WorkerView[];
  /** How many there are to be. */
  workerCount(): number;
  /** Since the start. */
  reloads(): number;
  fronts(): readonly FrontView[];
  /** None where workers are spawned, several while one is replaced. */
  moldPids(): readonly number[];
  /** Has workers tell of the app's own metrics. Resolves when they have, or not within a moment. */
  askWorkers(): Promise<void>;
  /** Of an app that uses prometheus_client. Null: there is none. */
  prometheusFolder(): PrometheusFolder | null;
  /** Asks all fronts to report. Resolves with the ids of those that have not within a moment. */
  askFronts(requests: boolean): Promise<readonly number[]>;
}

export interface SetupView {
  readonly loaded: { readonly app: string; readonly settings: Settings };
  readonly sockets: readonly {
    readonly address: Address;
    readonly facts: ListenerFacts;
    readonly handle: { readonly fd: number };
  }[];
  /** Null: a Node app. */
  readonly python: { readonly version: string } | null;
}

export interface WorkerView {
  readonly number: number;
  readonly serial: number;
  readonly pid: number | null;
  readonly state: WorkerState;
  readonly stuck: boolean;
  readonly reason: Reason;
  readonly ageMs: number;
  readonly bootMs: number | null;
  /** The steps of its boot so far, each with the time from its start. */
  readonly reached: readonly { readonly step: BootStep; readonly afterMs: number }[];
  readonly served: number;
}

export interface FrontView {
  /** Unique among all fronts ever started. */
  readonly id: number;
  readonly number: number;
  readonly pid: number | null;
  readonly listening: boolean;
  /** Since it was heard last. */
  readonly silentMs: number;
}
