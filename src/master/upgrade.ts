/**
 * USR2: a new master, of the code and the settings that are there now, beside this one. Node cannot exec, so it is a child with
 * the listening sockets behind its standard streams. Both serve, until one of them is told to go.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { ErrorLog } from '../log/error-log.ts';
import { startChild } from './child-start.ts';
import { inheritanceEnv } from './inheritance.ts';
import type { Setup } from './options.ts';

const FIRST_FD = 3;
const PROMOTION_CHECK_MS = 200;

/** Starts the new master. `ended` is called when it has gone before this one. */
export function startNewMaster(
  { sockets, loaded, multiprocess }: Setup,
  log: ErrorLog,
  ended: () => void,
): ChildProcess {
  const inherited = sockets.map(({ bind }, index) => ({ fd: FIRST_FD + index, bind }));
  const child = startChild(() =>
    spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
      cwd: loaded.cwd,
      env: { ...process.env, ...inheritanceEnv({ oldMaster: process.pid, sockets: inherited, multiprocess }) },
      // Behind the sockets the channel for what the masters have counted.
      stdio: ['inherit', 'inherit', 'inherit', ...sockets.map(({ handle }) => handle.fd), 'ipc'],
    }),
  );
  let over = false;
  const gone = (how: string): void => {
    if (over) return;
    over = true;
    log.warning(`The new master (pid:${child.pid}) ${how}; this one goes on`);
    ended();
  };
  child.on('error', (error) => gone(`could not be started: ${error.message}`));
  // Not `exit`: what it has said last, on the channel, is to be heard first.
  child.on('close', (code, signal) => gone(`has ended (${signal ?? `code ${code}`})`));
  if (child.pid !== undefined) log.info(`Upgrade: the new master is pid ${child.pid}`);
  return child;
}

/** Whether the old master, this one's parent, is gone. */
export function hasLeft(oldMaster: number): boolean {
  return process.ppid !== oldMaster;
}

/** Calls `promoted` when the old master is gone. */
export function awaitPromotion(oldMaster: number, promoted: () => void): void {
  const timer = setInterval(() => {
    if (!hasLeft(oldMaster)) return;
    clearInterval(timer);
    promoted();
  }, PROMOTION_CHECK_MS);
}
