/** What kind of application is measured: what the threads of its workers share, and so what limits them. */

/**
 * - `python`: threads share the interpreter's lock; fronts have the clients.
 * - `async`: a Node app under async. A worker is one event loop, with any number of requests under way.
 * - `pool`: a Node app under gthread. Threads share nothing; the main thread of each worker has the clients.
 */
export type Kind = 'python' | 'async' | 'pool';

interface Words {
  /** Of what computes for one request after the other in each worker. */
  readonly lock: string;
  readonly base: string;
  readonly front: string;
}

export const WORDS: Readonly<Record<Kind, Words>> = {
  python: { lock: 'the GIL', base: 'master and front', front: 'the front' },
  async: { lock: 'the event loop', base: 'master', front: 'the master' },
  pool: { lock: 'a lock', base: 'master', front: "the worker's main thread" },
};
