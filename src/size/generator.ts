/** The load generator's process, seen from the one that directs it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import type { LoadOptions, LoadResult } from './load/load.ts';
import type { ToGenerator } from './load/main.ts';

const MAIN = join(import.meta.dirname, 'load', 'main.js');
/** V8's own threads would share the generator's core and make requests start late. */
const FLAGS = ['--single-threaded-gc'];
/** Beyond the planned time of a load. */
const GRACE_MS = 10_000;

export class Generator {
  readonly #child: ChildProcess;
  #waiting: { readonly resolve: (result: LoadResult) => void; readonly reject: (error: Error) => void } | undefined;

  /** @param pin puts a command on the generator's cores */
  constructor(pin: (command: readonly string[]) => readonly string[]) {
    const [file = '', ...args] = pin([process.execPath, ...FLAGS, MAIN]);
    this.#child = spawn(file, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    this.#child.on('message', (result) => {
      this.#waiting?.resolve(result as LoadResult);
      this.#waiting = undefined;
    });
    const failed = (because: string): void => {
      this.#waiting?.reject(new Error(`the load generator ${because}`));
      this.#waiting = undefined;
    };
    this.#child.on('error', (error) => failed(`cannot be started: ${error.message}`));
    this.#child.on('exit', (code, signal) => failed(`ended with ${signal ?? code}`));
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** One load after the other. */
  async run(options: LoadOptions): Promise<LoadResult> {
    const limit = options.warmUpMs + options.durationMs + options.timeoutMs + GRACE_MS;
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<LoadResult>((resolve, reject) => {
        this.#waiting = { resolve, reject };
        timer = setTimeout(() => reject(new Error(`the load generator did not end within ${limit} ms`)), limit);
        this.#send({ op: 'run', options });
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** It ends the server should this process be killed. */
  guard(pid: number, runs: boolean): void {
    this.#send({ op: 'server', pid, runs });
  }

  #send(message: ToGenerator): void {
    if (this.#child.connected) this.#child.send(message);
  }

  stop(): void {
    this.#child.kill('SIGKILL');
  }
}
