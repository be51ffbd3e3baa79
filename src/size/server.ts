/** One server under test: from its start to the proof that nothing of it is left. */
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cell } from './cell.ts';
import type { Kind } from './kind.ts';
import {
  cpuNsOf,
  isAlive,
  mainThreadNsOf,
  memoryOf,
  type Process,
  readTree,
  runDelayNsOf,
  sameProgram,
} from './proc.ts';
import { CellError, type CellMemory } from './session.ts';

export interface Command {
  readonly kind: Kind;
  readonly words: readonly string[];
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
}

/** CPU time so far, in ns. */
export interface Used {
  readonly workersNs: number;
  /** The part of `workersNs` that event loops used. */
  readonly loopNs: number;
  readonly baseNs: number;
  /** Threads that run the application were ready to run and no core was free. */
  readonly delayNs: number;
}

/** Who looks after a server while it is started and afterwards. */
export interface Guard {
  /** Gives up waiting for it to come up. */
  readonly signal?: AbortSignal;
  /** The same after so long, should that be less than what any server has. */
  readonly withinMs?: number;
  /** It was started, or has ended. */
  readonly tell: (pid: number, runs: boolean) => void;
}

const BOOT_MS = 60_000;
const STOP_MS = 8_000;
const KILLED_MS = 2_000;
const OUTPUT_TAIL = 20_000;
/** All workers have booted when the tree has used nearly nothing for so long. */
const CALM_STEP_MS = 60;
const CALM_STEPS = 3;
const CALM_SHARE = 0.1;

export class ServerUnderTest {
  readonly cell: Cell;
  readonly port: number;
  readonly pid: number;
  /** Requests that it has answered. */
  answered = 0;
  readonly #kind: Kind;
  readonly #guard: Guard;
  #output = '';
  #ended: string | undefined;
  readonly #exit: Promise<void>;

  private constructor(cell: Cell, port: number, { kind, words, cwd, env }: Command, guard: Guard) {
    this.cell = cell;
    this.#kind = kind;
    this.#guard = guard;
    this.port = port;
    const [file = '', ...args] = words;
    // A session of its own: Ctrl-C in the terminal is for us, and we end the servers.
    const child = spawn(file, args, { cwd, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (data) => {
        this.#output = (this.#output + data).slice(-OUTPUT_TAIL);
      });
    this.#exit = new Promise((resolve) => {
      child.on('error', (error) => {
        this.#ended = error.message;
        resolve();
      });
      child.on('close', (code, signal) => {
        this.#ended ??= `it ended with ${signal ?? `exit code ${code}`}`;
        resolve();
      });
    });
    this.pid = child.pid ?? 0;
    living.add(this);
    if (child.pid !== undefined) guard.tell(child.pid, true);
  }

  /**
   * Resolves when it answers and all of its workers have booted.
   *
   * @param answers asks it once; true if the answer was as planned
   * @throws {CellError} with the end of what it wrote, if it does not come up
   */
  static async start(
    cell: Cell,
    port: number,
    command: Command,
    answers: () => Promise<boolean>,
    guard: Guard = { tell: () => {} },
  ): Promise<ServerUnderTest> {
    const server = new ServerUnderTest(cell, port, command, guard);
    try {
      await server.#untilUp(answers);
      return server;
    } catch (error) {
      await server.stop();
      throw error;
    }
  }

  async #untilUp(answers: () => Promise<boolean>): Promise<void> {
    const bootMs = Math.min(BOOT_MS, this.#guard.withinMs ?? BOOT_MS);
    const deadline = Date.now() + bootMs;
    while (!(await answers())) {
      this.check();
      if (this.#guard.signal?.aborted) throw new CellError('it was stopped');
      if (Date.now() > deadline)
        throw new CellError(`it did not answer within ${(bootMs / 1000).toFixed(1)} s${this.#tail()}`);
      await sleep(20);
    }
    // One answer proves one worker. The others may still import the application, and would do so beside the measurement.
    let before = cpuNsOf(this.tree());
    for (let calm = 0; calm < CALM_STEPS && Date.now() < deadline; ) {
      await sleep(CALM_STEP_MS);
      const now = cpuNsOf(this.tree());
      calm = now - before < CALM_STEP_MS * 1e6 * CALM_SHARE ? calm + 1 : 0;
      before = now;
    }
    this.check();
  }

  /** @throws {CellError} if it has ended */
  check(): void {
    if (this.#ended !== undefined) throw new CellError(`${this.#ended}${this.#tail()}`);
  }

  tree(): readonly Process[] {
    return readTree(this.pid).filter(({ zombie }) => !zombie);
  }

  /** Those that run the application, and those that do not: master and fronts, or gunicorn's arbiter. */
  parts(): { readonly workers: readonly Process[]; readonly base: readonly Process[] } {
    const tree = this.tree();
    const fronts = this.cell.server === 'nunicorn' && this.#kind === 'python';
    const base = fronts ? sameProgram(this.pid, tree) : tree.filter(({ pid }) => pid === this.pid);
    return { workers: tree.filter((each) => !base.includes(each)), base };
  }

  used(): Used {
    const { workers, base } = this.parts();
    const workersNs = cpuNsOf(workers);
    const baseNs = cpuNsOf(base);
    const delayNs = runDelayNsOf(workers);
    if (this.#kind === 'python') return { workersNs, loopNs: 0, baseNs, delayNs };
    const main = mainThreadNsOf(workers);
    return this.#kind === 'async'
      ? { workersNs, loopNs: main.cpuNs, baseNs, delayNs: main.delayNs }
      : { workersNs: workersNs - main.cpuNs, loopNs: 0, baseNs: baseNs + main.cpuNs, delayNs: delayNs - main.delayNs };
  }

  memory(): CellMemory {
    const { workers, base } = this.parts();
    const ofWorkers = memoryOf(workers.map(({ pid }) => pid));
    const ofBase = memoryOf(base.map(({ pid }) => pid));
    return {
      workersMb: ofWorkers.pssMb,
      baseMb: ofBase.pssMb,
      swapMb: ofWorkers.swapMb + ofBase.swapMb,
      requests: this.answered,
    };
  }

  /** Ends it: asked, then killed. */
  async stop(): Promise<void> {
    const tree = this.tree();
    if (this.#ended === undefined) signal(this.pid, 'SIGTERM');
    await gone(tree, STOP_MS);
    this.kill(tree);
    await gone(tree, KILLED_MS);
    await this.#exit;
    living.delete(this);
    this.#guard.tell(this.pid, false);
  }

  kill(tree: readonly Process[] = this.tree()): void {
    for (const each of tree) if (isAlive(each)) signal(each.pid, 'SIGKILL');
  }

  #tail(): string {
    const lines = this.#output.trimEnd().split('\n').slice(-15).join('\n');
    return lines === '' ? '' : `; it wrote:\n${lines}`;
  }
}

const living = new Set<ServerUnderTest>();

// However this process ends, nothing that it has started outlives it; where it is killed, see `Guard`.
process.on('exit', () => {
  for (const server of living) server.kill();
});

async function gone(tree: readonly Process[], withinMs: number): Promise<void> {
  for (const deadline = Date.now() + withinMs; Date.now() < deadline && tree.some(isAlive); ) await sleep(15);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Already gone.
  }
}
