import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConnectionOptions } from 'node:tls';
import { isDeepStrictEqual } from 'node:util';
import { SOON_MS, until, withDeadline } from './deadline.ts';
import { Connection, exchange, get, type Response } from './http.ts';
import { FIXTURES, NUNICORN, VENV, VENV_BIN } from './paths.ts';
import { type Address, freePort, isListening } from './ports.ts';
import { descriptorCount, descriptors, isAlive, isUnreaped, type ProcessInfo, processesOf } from './processes.ts';
import { abandonLoads } from './tally.ts';

export type Kind = 'nunicorn' | 'gunicorn';

export interface ServerOptions {
  readonly kind?: Kind;
  /** `module:attribute`. Empty: none is named. */
  readonly app: string;
  readonly workers?: number;
  readonly threads?: number;
  readonly args?: readonly string[];
  /** Values of `--bind`. Left out: one free TCP port on 127.0.0.1. */
  readonly bind?: readonly string[];
  readonly chdir?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** It speaks HTTPS: what its clients need to know. */
  readonly tls?: ConnectionOptions;
  /** Path asked for until it answers 200. */
  readonly readyPath?: string;
  /** Files to be put into its HOME, the folder it is started in, by path. In `args`, `bind` and `env` `{home}` is that folder. */
  readonly files?: Readonly<Record<string, string>>;
  /** Symbolic links to be put there, by path, and where they lead. */
  readonly links?: Readonly<Record<string, string>>;
  /** How many descriptors each of its processes may have open. */
  readonly descriptors?: number;
  /** A command that becomes the command behind it. */
  readonly by?: readonly string[];
  /** How long the server may take until its first 200. */
  readonly bootMs?: number;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

const MARKER = 'NUNICORN_TEST_MARKER';
// A stack of our own TypeScript, or Node's report of an unexpected end, is a defect whatever the test is about.
const DEFECT = /dist\/src\/.*:\d+:\d+|node:internal|UnhandledPromiseRejection|Node\.js v\d+/;
const LISTENING = /Listening at: (.*) \(\d+\)$/m;
/** After a stop the last processes may still be on their way out. */
const GONE_MS = 5_000;

/** "unix:/a/b", "127.0.0.1:8000", ":8000" or "[::1]:8000" as something to connect to. */
export function parseBind(bind: string): Address {
  if (bind.startsWith('unix:')) return { path: bind.slice('unix:'.length) };
  const match = /^\[?([^\]]*)\]?:(\d+)$/.exec(bind);
  if (!match) throw new Error(`not a bind: ${bind}`);
  return { host: match[1] || '127.0.0.1', port: Number(match[2]) };
}

/** One run of a server, from spawn to the proof that nothing of it is left. */
export class Server {
  readonly kind: Kind;
  readonly binds: readonly string[];
  /** The server's TMPDIR: has to be empty in the end. */
  readonly temporary: string;
  /** The server's HOME: for the test's own files. Removed in the end. */
  readonly home: string;
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  readonly #marker: string;
  readonly #known = new Set<number>();
  readonly #options: ServerOptions;
  #stderr = '';
  #stdout = '';
  #exit: Exit | undefined;
  readonly #watchers = new Set<() => void>();

  private constructor(options: ServerOptions, binds: readonly string[]) {
    this.#options = options;
    this.kind = options.kind ?? 'nunicorn';
    this.home = mkdtempSync(join(tmpdir(), 'nt-'));
    this.temporary = mkdtempSync(join(this.home, 't-'));
    const atHome = (text: string): string => text.replaceAll('{home}', this.home);
    this.binds = binds.map(atHome);
    for (const [name, content] of Object.entries(options.files ?? {})) writeFileSync(this.#place(name), content);
    for (const [name, target] of Object.entries(options.links ?? {})) symlinkSync(target, this.#place(name));
    this.#marker = `${MARKER}=${randomUUID()}`;
    const [command, first]: [string, string[]] =
      this.kind === 'gunicorn'
        ? [join(VENV_BIN, 'gunicorn'), options.args?.includes('--control-socket') ? [] : ['--no-control-socket']]
        : [process.execPath, [NUNICORN]];
    const args = [
      ...first,
      ...this.binds.flatMap((bind) => ['--bind', bind]),
      ...(options.workers === undefined ? [] : ['--workers', String(options.workers)]),
      ...(options.threads === undefined ? [] : ['--threads', String(options.threads)]),
      '--chdir',
      atHome(options.chdir ?? FIXTURES),
      ...(options.args ?? []).map(atHome),
      ...(options.app === '' ? [] : [options.app]),
    ];
    const limited =
      options.descriptors === undefined ? [] : ['sh', '-c', `ulimit -n ${options.descriptors}; exec "$@"`, 'sh'];
    const [program = command, ...rest] = [...(options.by ?? []), ...limited, command, ...args];
    this.#child = spawn(program, rest, {
      cwd: this.home,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        PATH: `${VENV_BIN}:${process.env.PATH}`,
        HOME: this.home,
        LANG: 'C.UTF-8',
        VIRTUAL_ENV: VENV,
        TMPDIR: this.temporary,
        PYTHONDONTWRITEBYTECODE: '1',
        PYTHONUNBUFFERED: '1',
        [MARKER]: this.#marker.slice(MARKER.length + 1),
        ...Object.fromEntries(Object.entries(options.env ?? {}).map(([name, value]) => [name, atHome(value)])),
      },
    });
    const { stdout, stderr } = this.#child;
    assert(stdout && stderr);
    createInterface({ input: stderr, crlfDelay: Number.POSITIVE_INFINITY }).on('line', (line) => {
      this.#stderr += `${line}\n`;
      this.#changed();
    });
    createInterface({ input: stdout, crlfDelay: Number.POSITIVE_INFINITY }).on('line', (line) => {
      this.#stdout += `${line}\n`;
      this.#changed();
    });
    this.exited = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('exit', (code, signal) => {
        // What it said last is there by now, and may be read behind this.
        setImmediate(() => {
          this.#exit = { code, signal };
          this.#changed();
          resolve(this.#exit);
        });
      });
    });
    // Whoever never waits for it must not turn it into an unhandled rejection.
    this.exited.catch(() => {});
    running.add(this);
  }

  /** A path below HOME, in a folder that is there. */
  #place(name: string): string {
    const path = join(this.home, name);
    mkdirSync(dirname(path), { recursive: true });
    return path;
  }

  /** Starts the process and does not wait for anything. */
  static async spawn(options: ServerOptions): Promise<Server> {
    return new Server(options, options.bind ?? [`127.0.0.1:${await freePort()}`]);
  }

  /** Starts the server and waits for "Listening at" and the first 200. */
  static async start(options: ServerOptions): Promise<Server> {
    const server = await Server.spawn(options);
    try {
      await server.ready(options.bootMs);
    } catch (error) {
      const log = server.output;
      server.destroy();
      throw new Error(`${server.kind} did not come up: ${error}\n${log}`);
    }
    return server;
  }

  async ready(ms = 30_000): Promise<void> {
    await this.waitForLog(LISTENING, { ms });
    const path = this.#options.readyPath ?? '/';
    await until(
      async () => {
        if (this.#exit) throw new Error(`exited with ${JSON.stringify(this.#exit)}`);
        try {
          return (await get(this.address, path, '', ms)).status === 200;
        } catch {
          return false;
        }
      },
      `first 200 of ${path}`,
      ms,
    );
    // The first 200 proves one worker; a test that counts or kills needs to know them all.
    const workers = this.#options.workers ?? 1;
    await until(
      () => this.workers().length >= workers,
      () => `${workers} workers\n${this.output}`,
      ms,
    );
    this.processes();
  }

  get pid(): number {
    assert(this.#child.pid !== undefined);
    return this.#child.pid;
  }

  get address(): Address {
    assert(this.binds[0] !== undefined);
    const { tls } = this.#options;
    return { ...parseBind(this.binds[0]), ...(tls === undefined ? {} : { tls }) };
  }

  get port(): number {
    assert('port' in this.address);
    return this.address.port;
  }

  get hasExited(): boolean {
    return this.#exit !== undefined;
  }

  /** What it wrote so far: the log. */
  get log(): string {
    return this.#stderr;
  }

  get stdout(): string {
    return this.#stdout;
  }

  get output(): string {
    return `--- stderr of the server\n${this.#stderr.slice(-6000)}--- stdout of the server\n${this.#stdout.slice(-2000)}`;
  }

  #changed(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }

  /** Waits until the log, from offset `from` on, matches; gives the match. */
  async waitForLog(pattern: RegExp, { from = 0, ms = SOON_MS } = {}): Promise<RegExpExecArray> {
    let watcher: (() => void) | undefined;
    const seen = new Promise<RegExpExecArray>((resolve, reject) => {
      watcher = () => {
        const match = pattern.exec(this.#stderr.slice(from));
        if (match) resolve(match);
        else if (this.#exit)
          reject(new Error(`exited with ${JSON.stringify(this.#exit)} before ${pattern} was logged`));
      };
      this.#watchers.add(watcher);
      watcher();
    });
    try {
      return await withDeadline(seen, () => `${pattern} in the log\n${this.output}`, ms);
    } finally {
      if (watcher) this.#watchers.delete(watcher);
    }
  }

  connect(): Promise<Connection> {
    return Connection.open(this.address);
  }

  /**
   * Sends a signal while a hundred requests wait in the listening queue, since those who accept (`pids`) are stopped. Resolves
   * when each has got a 200.
   */
  async answersListeningQueue(pids: readonly number[], signal: NodeJS.Signals, address = this.address): Promise<void> {
    const waiting: Connection[] = [];
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    try {
      waiting.push(...(await Promise.all(Array.from({ length: 100 }, () => Connection.open(address)))));
      await Promise.all(waiting.map((connection) => connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n')));
      const from = this.log.length;
      this.kill(signal);
      await this.waitForLog(/Handling signal/, { from });
    } finally {
      for (const pid of pids) process.kill(pid, 'SIGCONT');
    }
    for (const connection of waiting) {
      assert.equal((await connection.response()).status, 200);
      connection.close();
    }
  }

  get(path = '/', headers = '', ms = SOON_MS): Promise<Response> {
    return get(this.address, path, headers, ms);
  }

  /**
   * Resolves when the front has seen everything that was sent to it before: connections are accepted in order, and a
   * request without Host is refused by the front itself, however busy the threads are.
   */
  async seenByFront(): Promise<void> {
    for (let turn = 0; turn < 2; turn++) {
      assert.equal((await exchange(this.address, 'GET / HTTP/1.1\r\n\r\n')).status, 400);
    }
  }

  processes(): ProcessInfo[] {
    return processesOf(this.pid, this.#marker, this.#known);
  }

  #living(): ProcessInfo[] {
    return this.processes().filter(({ state }) => state !== 'Z' && state !== 'X');
  }

  /** Pids of the Python workers that are alive, by the log. */
  workers(): number[] {
    const booted = [...this.#stderr.matchAll(/Booting worker with pid: (\d+)/g)].map((match) => Number(match[1]));
    return booted.filter(isAlive);
  }

  /** Pids of the fronts: the Node processes below the master. */
  fronts(): number[] {
    return this.#living()
      .filter(({ exe, pid }) => exe.startsWith('node') && pid !== this.pid)
      .map(({ pid }) => pid);
  }

  /** Pids of the Python processes that fork the workers. */
  molds(): number[] {
    return this.#living().flatMap(({ pid, title }) => (title.includes('nunicorn: mold') ? [pid] : []));
  }

  kill(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /** Waits for a file that the application makes in its HOME. */
  async marked(name: string, ms = SOON_MS): Promise<void> {
    await until(
      () => existsSync(join(this.home, name)),
      () => `the application to reach "${name}"\n${this.output}`,
      ms,
    );
  }

  hasMark(name: string): boolean {
    return existsSync(join(this.home, name));
  }

  /** Makes a file that the application waits for. */
  mark(name: string): void {
    writeFileSync(join(this.home, name), '');
  }

  async exit(ms = SOON_MS): Promise<Exit> {
    return await withDeadline(this.exited, () => `exit of the server\n${this.#describe()}`, ms);
  }

  #describe(): string {
    const lines = this.processes().map(
      ({ pid, ppid, state, title, exe }) => `${pid} ${ppid} ${state} ${exe}: ${title}`,
    );
    return `${lines.join('\n')}\n${this.output}`;
  }

  /** How many descriptors each process of the tree has open, by pid, once that stays the same: threads may still be connected. */
  async descriptorsAtRest(): Promise<Map<number, number>> {
    let before = this.#descriptorCounts();
    for (;;) {
      await sleep(300);
      const counts = this.#descriptorCounts();
      if (isDeepStrictEqual(counts, before)) return counts;
      before = counts;
    }
  }

  #descriptorCounts(): Map<number, number> {
    const counts = new Map<number, number>();
    for (const { pid } of this.#living()) {
      try {
        counts.set(pid, descriptorCount(pid));
      } catch {
        // It ended meanwhile.
      }
    }
    return counts;
  }

  /** Waits until no process of the tree holds more descriptors than at `before`. */
  async descriptorsBackTo(before: ReadonlyMap<number, number>, slack = 0): Promise<void> {
    const grown = (): number[] =>
      [...this.#descriptorCounts()]
        .filter(([pid, count]) => count > (before.get(pid) ?? Number.POSITIVE_INFINITY) + slack)
        .map(([pid]) => pid);
    await until(
      () => grown().length === 0,
      () =>
        grown()
          .map((pid) => `descriptors of ${pid} grew from ${before.get(pid)}:\n${descriptors(pid).join('\n')}`)
          .join('\n'),
    );
  }

  /** TERM, exit code 0, nothing left. */
  async stop(): Promise<void> {
    if (!this.hasExited) {
      await this.noZombies();
      this.kill('SIGTERM');
      const { code, signal } = await this.exit(40_000);
      assert.deepEqual({ code, signal }, { code: 0, signal: null }, this.output);
    }
    await this.nothingLeft();
  }

  /** Each process that ended is reaped by its parent: now, or as soon as the parent gets to it. */
  async noZombies(): Promise<void> {
    await until(
      () => !this.processes().some(isUnreaped),
      () => `zombies:\n${this.#describe()}`,
      GONE_MS,
    );
  }

  /**
   * Proves that the server has exited and left no process, listener, socket file or temporary file behind. A master
   * that was killed cannot remove its folder.
   */
  async nothingLeft(ms = GONE_MS): Promise<void> {
    const { signal } = await this.exit();
    await until(
      () => this.#living().length === 0,
      () => `processes left:\n${this.#describe()}`,
      ms,
    );
    await this.noZombies();
    for (const bind of this.binds) {
      assert.equal(await isListening(parseBind(bind)), false, `somebody still listens at ${bind}`);
      if (bind.startsWith('unix:')) assert.equal(existsSync(bind.slice(5)), false, `${bind} was left behind`);
    }
    if (signal !== 'SIGKILL') assert.deepEqual(readdirSync(this.temporary), [], 'left in the temporary folder');
    this.noDefects();
  }

  /** The log holds no stack trace of the server's own. */
  noDefects(): void {
    const lines = `${this.#stderr}${this.#stdout}`.split('\n').filter((line) => DEFECT.test(line));
    assert.deepEqual(lines, [], `the server logged a defect of its own:\n${lines.join('\n')}\n${this.output}`);
  }

  /** Kills whatever is left, hard. For tests that failed. */
  destroy(): void {
    running.delete(this);
    for (const { pid, state } of this.processes()) {
      if (state === 'Z') continue;
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Gone already.
      }
    }
    rmSync(this.home, { recursive: true, force: true });
  }
}

const running = new Set<Server>();

process.on('exit', () => {
  for (const server of running) server.destroy();
});

/** Starts a server, runs the test, stops the server and proves that nothing is left. */
export async function withServer(options: ServerOptions, test: (server: Server) => Promise<void>): Promise<void> {
  const server = await Server.start(options);
  await finishing(server, test);
}

/** The same for a server that was spawned and not waited for. */
export async function finishing(server: Server, test: (server: Server) => Promise<void>): Promise<void> {
  try {
    await test(server);
    await server.stop();
    server.destroy();
  } catch (error) {
    const output = server.output;
    server.destroy();
    abandonLoads();
    // What a reporter prints is the stack, which holds the message of before.
    if (error instanceof Error && !error.message.includes('--- stderr of the server')) error.stack += `\n${output}`;
    throw error;
  }
}
