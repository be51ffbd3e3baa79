/**
 * Why a worker is started, replaced or has ended: the words of the log and of the metrics, and what each means for the
 * planner. A replacement is started for the reason for which the worker before it goes.
 */
export interface ReasonFacts {
  /** "Worker 1 (pid:7) is replaced: ..." */
  readonly text: string;
  /**
   * When the replacement of a worker begins: at once; when it is its turn; or when it is its turn and the worker has been
   * ready for --min-worker-lifetime. Null: such a worker is not replaced, it has gone or goes already.
   */
  readonly begins: 'at-once' | 'in-turn' | 'in-turn-when-old' | null;
  /** The worker failed: if it did so early, the next one is started after a while only (see backoff.ts). */
  readonly failure?: true;
}

const FACTS = {
  boot: { text: 'the server starts', begins: null },
  scale_up: { text: 'one worker more was asked for', begins: null },
  scale_down: { text: 'one worker less was asked for', begins: null },
  shutdown: { text: 'the server stops', begins: null },
  crash: { text: 'it died', begins: null, failure: true },
  boot_failed: { text: 'it did not boot', begins: null, failure: true },
  boot_timeout: { text: 'it did not boot in time', begins: null, failure: true },
  memory_hard: { text: 'it used more than --memory-limit-hard', begins: null, failure: true },
  unresponsive: { text: 'it does not answer', begins: 'at-once' },
  app_error: { text: 'the application threw an error that nothing caught, or closed its server', begins: 'at-once' },
  signal: { text: 'it was told to leave by a signal, a hook or nunicorn ctl', begins: 'at-once' },
  // In the order in which they have their turn.
  timeout: { text: 'a request ran into --timeout', begins: 'in-turn' },
  cgroup_memory: { text: "the memory of the server's cgroup is nearly used up", begins: 'in-turn' },
  memory: { text: 'it uses more than --memory-limit', begins: 'in-turn-when-old' },
  reload: { text: 'reload', begins: 'in-turn' },
  mold: { text: 'its mold has died', begins: 'in-turn' },
  max_lifetime: { text: 'it has served for --max-lifetime', begins: 'in-turn-when-old' },
  max_requests: { text: 'it has answered --max-requests requests', begins: 'in-turn-when-old' },
} satisfies Readonly<Record<string, ReasonFacts>>;

export type Reason = keyof typeof FACTS;

export const REASONS: Readonly<Record<Reason, ReasonFacts>> = FACTS;

const ORDER = Object.keys(FACTS);

/** Smaller: has its turn earlier. */
export function rank(reason: Reason): number {
  return ORDER.indexOf(reason);
}
