/**
 * Messages to systemd, sd_notify(3): datagrams to the Unix socket that NOTIFY_SOCKET names. Node has no such sockets, and unless
 * the unit says NotifyAccess=all they have to come from the main process itself. So a Python that ends at once makes the socket
 * and passes it over Node's channel to a child; Node takes no sockets of this kind, but leaves it open, and writing to the
 * descriptor is all that is needed.
 */
import { spawn } from 'node:child_process';
import { readdirSync, readlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { ErrorLog } from '../log/error-log.ts';
import { PYTHON_PACKAGE_DIR } from '../settings/python.ts';

export interface Systemd {
  ready(status: string): void;
  status(status: string): void;
  reloading(): void;
  stopping(): void;
  /** Another process is the service's main one from now on. */
  mainPid(pid: number): void;
}

const NOBODY: Systemd = { ready() {}, status() {}, reloading() {}, stopping() {}, mainPid() {} };
const CONNECT_LIMIT_MS = 10_000;

/** Without NOTIFY_SOCKET in `env` nothing is told to anybody. `isUpgrade`: this is not the main process yet. */
export async function connectSystemd(
  env: NodeJS.ProcessEnv,
  python: string,
  isUpgrade: boolean,
  log: ErrorLog,
): Promise<Systemd> {
  if (!env.NOTIFY_SOCKET) return NOBODY;
  const fd = await notifySocket(env, python);
  if (fd === null) {
    log.warning(`systemd cannot be told that the server is ready: no connection to ${env.NOTIFY_SOCKET}`);
    return NOBODY;
  }
  const tell = (...lines: string[]): void => {
    try {
      writeSync(fd, lines.join('\n'));
    } catch {
      // systemd is gone, or does not read; it has limits of its own for that.
    }
  };
  // Half of what systemd waits for. A master whose event loop stands still does not say it.
  const watchdogUsec = Number(env.WATCHDOG_USEC) || 0;
  const isWatched = isUpgrade || env.WATCHDOG_PID === undefined || Number(env.WATCHDOG_PID) === process.pid;
  if (watchdogUsec > 0 && isWatched) setInterval(() => tell('WATCHDOG=1'), watchdogUsec / 2000).unref();
  return {
    ready: (status) => tell('READY=1', `STATUS=${status}`),
    status: (status) => tell(`STATUS=${status}`),
    reloading: () => tell('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`, 'STATUS=Reloading'),
    stopping: () => tell('STOPPING=1', 'STATUS=Stopping'),
    mainPid: (pid) => tell(`MAINPID=${pid}`),
  };
}

/** The descriptor of a datagram socket that is connected to systemd's. */
async function notifySocket(env: NodeJS.ProcessEnv, python: string): Promise<number | null> {
  const child = spawn(python, ['-I', '-S', join(PYTHON_PACKAGE_DIR, 'nunicorn_worker', 'notify_socket.py')], {
    env,
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const inode = await new Promise<number | null>((resolve) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), CONNECT_LIMIT_MS);
    let told: number | null = null;
    child.on('message', (message: { inode: number }) => {
      told = message.inode;
      // The channel stays open, and with it the socket. It is to keep nothing alive.
      child.channel?.unref();
    });
    child.on('error', () => resolve(null));
    child.on('exit', () => {
      clearTimeout(timer);
      setImmediate(() => resolve(told));
    });
  });
  return inode === null ? null : descriptorOf(inode);
}

function descriptorOf(inode: number): number | null {
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${name}`) === `socket:[${inode}]`) return Number(name);
    } catch {
      // The descriptor of the folder itself.
    }
  }
  return null;
}
