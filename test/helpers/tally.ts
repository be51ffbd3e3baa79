import { Agent, request } from 'node:http';
import { withDeadline } from './deadline.ts';
import type { Address } from './ports.ts';

export interface LoadOptions {
  readonly address: Address;
  readonly clients: number;
  /** A function: asked for the path of each request. */
  readonly path?: string | (() => string);
  readonly method?: string;
  readonly body?: Buffer;
  /** Keep-alive connections instead of one per request. */
  readonly keepAlive?: boolean;
  /** Hears the outcome of each request. */
  readonly heard?: (path: string, outcome: string) => void;
}

/** Every outcome counted: "200", "502", or the code of the error, such as "ECONNRESET". */
export type Outcomes = ReadonlyMap<string, number>;

const running = new Set<Load>();

/** Ends every load that a failed test has left behind: it would keep the test's process alive. */
export function abandonLoads(): void {
  for (const load of running) load.abandon();
}

/**
 * Clients that ask again and again until they are told to stop, and a tally of what each of them got. The model for
 * every "nothing is dropped" test: no outcome is left out.
 */
export class Load {
  readonly #options: LoadOptions;
  readonly #agent: Agent;
  readonly #tally = new Map<string, number>();
  readonly #clients: Promise<void>[];
  readonly #watchers = new Set<() => void>();
  #stopping = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#agent = new Agent({ keepAlive: options.keepAlive ?? false, maxSockets: options.clients });
    this.#clients = Array.from({ length: options.clients }, () => this.#client());
    running.add(this);
  }

  get outcomes(): Outcomes {
    return this.#tally;
  }

  count(outcome: string): number {
    return this.#tally.get(outcome) ?? 0;
  }

  async #client(): Promise<void> {
    while (!this.#stopping) {
      const { path = '/', heard } = this.#options;
      const asked = typeof path === 'string' ? path : path();
      const outcome = await this.#once(asked);
      heard?.(asked, outcome);
      this.#tally.set(outcome, this.count(outcome) + 1);
      for (const watcher of [...this.#watchers]) watcher();
    }
  }

  #once(path: string): Promise<string> {
    const { address, method = 'GET', body } = this.#options;
    return new Promise((resolve) => {
      const target = 'path' in address ? { socketPath: address.path } : { host: address.host, port: address.port };
      const ask = request(
        {
          ...target,
          path,
          method,
          agent: this.#agent,
          headers: body ? { 'content-length': body.length } : {},
        },
        (answer) => {
          answer.on('error', (error: NodeJS.ErrnoException) => resolve(`body: ${error.code ?? error.message}`));
          answer.on('end', () => resolve(String(answer.statusCode)));
          answer.resume();
        },
      );
      ask.on('error', (error: NodeJS.ErrnoException) => {
        // RFC 9112 9.3.1: a kept-alive connection may be closed while an idempotent request is on its way; every
        // client repeats it. Told apart, so that a test can still count it.
        resolve(
          ask.reusedSocket ? `${error.code ?? error.message} on a reused connection` : (error.code ?? error.message),
        );
      });
      ask.end(body);
    });
  }

  /** Waits until `wanted` outcomes more than now have come in. */
  async more(wanted: number, ms = 30_000): Promise<void> {
    const goal = this.total + wanted;
    let watcher: (() => void) | undefined;
    const reached = new Promise<void>((resolve) => {
      watcher = () => {
        if (this.total >= goal) resolve();
      };
      this.#watchers.add(watcher);
      watcher();
    });
    try {
      await withDeadline(reached, () => `${wanted} more outcomes; have ${this.describe()}`, ms);
    } finally {
      if (watcher) this.#watchers.delete(watcher);
    }
  }

  get total(): number {
    let sum = 0;
    for (const count of this.#tally.values()) sum += count;
    return sum;
  }

  describe(): string {
    return JSON.stringify(Object.fromEntries(this.#tally));
  }

  /** Stops without waiting for anything. */
  abandon(): void {
    this.#stopping = true;
    this.#agent.destroy();
    running.delete(this);
  }

  /** Lets each client finish its last request. */
  async stop(ms = 30_000): Promise<Outcomes> {
    this.#stopping = true;
    await withDeadline(Promise.all(this.#clients), () => `the last answers; have ${this.describe()}`, ms);
    this.abandon();
    return this.#tally;
  }
}
