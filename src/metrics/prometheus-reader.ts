/**
 * The samples of an app that uses the official prometheus_client in its multiprocess mode. Only that library knows its files, so
 * a Python process with it reads them. It is started by the first scrape that finds files, and kept, since its start takes longer
 * than a scrape.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { ErrorLog } from '../log/error-log.ts';
import { startChild } from '../master/child-start.ts';
import { PYTHON_PACKAGE_DIR } from '../settings/python.ts';
import type { Format } from './exposition.ts';

export interface PrometheusFolder {
  readonly path: string;
  readonly python: string;
  readonly env: NodeJS.ProcessEnv;
  /** Null: the master's. */
  readonly uid: number | null;
  readonly gid: number | null;
}

/** Not its standard output, to which what watches Python processes may print. */
const ANSWERS_FD = 3;
/** A scrape is not kept waiting longer. */
const LIMIT_MS = 3000;

type Reply = { readonly text: string } | { readonly error: string };

export class PrometheusReader {
  private readonly folder: PrometheusFolder;
  private readonly log: ErrorLog;
  private child: ChildProcess | null = null;
  private waiting: ((reply: Reply) => void)[] = [];
  private readonly dead = new Set<number>();
  /** Workers of the other master, which may end without a word to this one. */
  private readonly others = new Set<number>();
  private told = false;

  constructor(folder: PrometheusFolder, log: ErrorLog) {
    this.folder = folder;
    this.log = log;
  }

  /** A worker's process has ended. */
  ended(pid: number): void {
    this.dead.add(pid);
  }

  /** A worker's process is there: the system may have given it the pid of one that had ended. */
  begun(pid: number): void {
    this.dead.delete(pid);
  }

  /** Workers that have ended since the last reading. */
  takeDead(): readonly number[] {
    const dead = [...this.dead];
    this.dead.clear();
    return dead;
  }

  /** Workers of the other master, some of them gone. */
  watch(pids: readonly number[]): void {
    for (const pid of pids) this.others.add(pid);
  }

  /** The samples as text without an end mark; empty if there are none. */
  async read(format: Format): Promise<string> {
    const files = await readdir(this.folder.path).catch(() => []);
    if (!files.some((name) => name.endsWith('.db'))) {
      this.dead.clear(); // they have left nothing
      return '';
    }
    const reply = await this.ask(format);
    if ('text' in reply) return reply.text;
    if (!this.told) this.log.warning(`Metrics of prometheus_client cannot be read: ${reply.error}`);
    this.told = true;
    return '';
  }

  close(): void {
    this.child?.kill('SIGKILL');
  }

  private ask(format: Format): Promise<Reply> {
    this.child ??= this.start();
    const { child } = this;
    for (const pid of this.others) {
      if (isAlive(pid)) continue;
      this.others.delete(pid);
      this.dead.add(pid);
    }
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        child.kill('SIGKILL');
        resolve({ error: `no answer within ${LIMIT_MS} ms` });
      }, LIMIT_MS);
      this.waiting.push((reply) => {
        clearTimeout(timer);
        resolve(reply);
      });
      child.stdin?.write(`${JSON.stringify({ format, dead: this.takeDead() })}\n`);
    });
  }

  private start(): ChildProcess {
    const { path, python, env, uid, gid } = this.folder;
    const child = startChild(() =>
      spawn(python, [join(PYTHON_PACKAGE_DIR, 'prometheus_reader.py'), path], {
        stdio: ['pipe', 'ignore', 'ignore', 'pipe'],
        env,
        ...(uid === null ? {} : { uid }),
        ...(gid === null ? {} : { gid }),
      }),
    );
    child.unref();
    child.stdin?.on('error', () => {}); // told by its end
    const answers = child.stdio?.[ANSWERS_FD]; // none at all of a process that could not be started
    if (answers)
      createInterface({ input: answers as Readable }).on('line', (line) => this.waiting.shift()?.(replyIn(line)));
    const ended = (): void => {
      this.child = null;
      for (const reply of this.waiting.splice(0)) reply({ error: 'the process that reads them has ended' });
    };
    child.on('error', ended);
    child.on('exit', ended);
    return child;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** One that is killed may leave half a line. */
function replyIn(line: string): Reply {
  try {
    return JSON.parse(line) as Reply;
  } catch {
    return { error: `the process that reads them wrote ${JSON.stringify(line.slice(0, 100))}` };
  }
}
