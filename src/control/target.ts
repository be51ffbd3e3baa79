/** What the control socket can see and do: the master, as the commands know it. */
import type { Requests, Status } from '../metrics/status.ts';
import type { ServerView } from '../metrics/view.ts';

/** What an operator may tell the server. */
export interface ServerActions {
  addWorker(): void;
  /** The last one stays. */
  removeWorker(): void;
  /** The worker finishes what it runs and is replaced. */
  replaceWorker(serial: number): void;
  /** The stacks of all threads of a worker, also while C code holds the GIL. */
  stacks(serial: number): Promise<string>;
}

export interface ControlTarget {
  readonly view: ServerView;
  readonly actions: ServerActions;
  status(): Promise<Status>;
  requests(): Promise<Requests>;
  /** To the master itself: what has a signal is done by the signal. */
  signal(signal: 'SIGHUP' | 'SIGUSR1' | 'SIGTERM' | 'SIGINT'): void;
}
