/** The Python process that writes the logs, where the configuration asks for a logger of Python's: started, restarted, ended. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { lchownSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { EXIT, NunicornError } from '../errors.ts';
import { type LogProcessAddress, linkTo } from '../log/log-link.ts';
import { Backoff } from '../policy/backoff.ts';
import { needsLogProcess } from '../settings/hooks.ts';
import type { LoadedSettings } from '../settings/load.ts';
import { findPython, PYTHON_PACKAGE_DIR, type Python } from '../settings/python.ts';
import { onEnd } from './child-end.ts';
import { startChild } from './child-start.ts';
import { SOFTWARE, titleOf } from './options.ts';
import { ownerOf } from './owner.ts';
import { privateFolder, removePrivateFolder, socketsFolder } from './private-folder.ts';
import { pythonSettings } from './python-settings.ts';

const TITLE_ROOM = ' '.repeat(120);
const END_MS = 2000;

/** The log process that the settings ask for, or null. */
export async function startLogProcess(loaded: LoadedSettings, python: Python | null): Promise<LogProcess | null> {
  if (!needsLogProcess(loaded.settings)) return null;
  // The logs of a Node app too.
  return await LogProcess.start(loaded, python ?? (await findPython(loaded.settings.python, process.env, loaded.cwd)));
}

/** Tries it, and opens no log. Throws NunicornError as a start would. */
export async function checkLogProcess(loaded: LoadedSettings): Promise<void> {
  const { settings, cwd } = loaded;
  if (!needsLogProcess(settings)) return;
  const python = await findPython(settings.python, process.env, cwd);
  await (await LogProcess.start(loaded, python, true)).end();
}

export class LogProcess {
  readonly address: LogProcessAddress;
  private readonly folder: string;
  private readonly loaded: LoadedSettings;
  private readonly python: Python;
  private readonly check: boolean;
  private readonly backoff = new Backoff();
  private child: ChildProcess | null = null;
  private startedAt = 0;
  private everUp = false;
  private ending: (() => void) | null = null;

  /**
   * @param check whether it is only to see that it could write
   * @throws {NunicornError} with what Python says of the configuration of logging
   */
  static async start(loaded: LoadedSettings, python: Python, check = false): Promise<LogProcess> {
    const owner = ownerOf(loaded.settings);
    const folder = privateFolder(socketsFolder(loaded.settings.worker_tmp_dir ?? tmpdir()), 'nunicorn-log-');
    if (owner !== null) lchownSync(folder, owner.uid, owner.gid);
    const one = new LogProcess(loaded, python, folder, check);
    const problem = await one.spawn();
    if (problem === null) return one;
    one.remove();
    throw new NunicornError(problem, EXIT.ERROR);
  }

  private constructor(loaded: LoadedSettings, python: Python, folder: string, check: boolean) {
    this.loaded = loaded;
    this.python = python;
    this.check = check;
    this.folder = folder;
    this.address = { socketPath: join(folder, 'log.sock'), token: randomBytes(16).toString('hex') };
    process.on('exit', this.exiting);
  }

  reopen(): void {
    this.child?.stdin?.write('reopen\n');
  }

  /** Ends it when it has written what was sent to it. */
  async end(): Promise<void> {
    await linkTo(this.address).close();
    const { child } = this;
    await new Promise<void>((resolve) => {
      this.ending = resolve;
      if (child === null) resolve();
      child?.stdin?.end('end\n');
      setTimeout(() => child?.kill('SIGKILL'), END_MS).unref();
    });
    this.remove();
  }

  /** The server may end while a reload starts a log process, or ends one. */
  private readonly exiting = (): void => {
    if (!this.everUp) this.child?.kill('SIGKILL');
    this.remove();
  };

  private remove(): void {
    process.off('exit', this.exiting);
    removePrivateFolder(this.folder);
  }

  /** Null, or what is wrong. */
  private spawn(): Promise<string | null> {
    const { settings, app, env, cwd } = this.loaded;
    const forPython = pythonSettings(this.loaded);
    const child = startChild(() =>
      spawn(this.python.path, [join(PYTHON_PACKAGE_DIR, 'start_log.py'), TITLE_ROOM], {
        detached: true, // Ctrl-C reaches the master alone
        stdio: ['pipe', 'inherit', 'inherit', 'pipe'],
        env: forPython.file === null ? env : process.env,
      }),
    );
    this.child = child;
    this.startedAt = performance.now();
    child.stdin?.on('error', () => {});
    child.stdin?.write(
      `${JSON.stringify({
        ...forPython,
        app,
        title: titleOf(this.loaded, 'log'),
        software: SOFTWARE,
        cwd,
        chdir: settings.chdir,
        pythonpath: settings.pythonpath.join(',') || null,
        uid: settings.user ?? null,
        gid: settings.group ?? null,
        check: this.check,
        socket_path: this.address.socketPath,
        token: this.address.token,
      })}\n`,
    );
    return new Promise((resolve) => {
      let text = '';
      let up = false;
      const gone = (how: string): void => {
        this.child = null;
        resolve(`the log process ${how}`);
        if (this.ending !== null) this.ending();
        else if (this.everUp) this.restart(up, how);
      };
      onEnd(
        child,
        (why) => gone(`could not be started: ${why}`),
        (code, signal) => gone(`ended (${signal ?? `exit code ${code}`})`),
      );
      // Without descriptors for it there is none.
      const report = child.stdio?.[3] as Readable | undefined;
      report?.setEncoding('utf8');
      report?.on('data', (chunk: string) => {
        text += chunk;
        if (!text.endsWith('\n')) return;
        const { problem = null } = JSON.parse(text) as { problem?: string };
        up = problem === null;
        this.everUp ||= up;
        report.destroy();
        resolve(problem);
      });
    });
  }

  private restart(wasUp: boolean, how: string): void {
    const { startedAt } = this;
    const delayMs = this.backoff.delayAfter({
      startedAt,
      readyAt: wasUp ? startedAt : null,
      hasBegun: false,
      diedAt: performance.now(),
    });
    console.error(`[${process.pid}] [ERROR] The log process ${how}; it is started again`);
    setTimeout(() => {
      if (this.ending === null) void this.spawn();
    }, delayMs);
  }
}
