/** --daemon: the server runs detached, with its standard streams on /dev/null. Who started it waits until it serves. */
import { spawn } from 'node:child_process';
import { EXIT, type ExitCode, NunicornError } from './errors.ts';

type Told = { readonly op: 'ready' } | { readonly op: 'error'; readonly message: string; readonly exitCode: ExitCode };

const DAEMON_VARIABLE = 'NUNICORN_DAEMON';
const DAEMON_UMASK = 0o022;

/** Whether this process is the detached one; the word of it is taken out of `env`. Then it has gunicorn's umask of a daemon. */
export function takeDaemon(env: NodeJS.ProcessEnv): boolean {
  const isDaemon = env[DAEMON_VARIABLE] !== undefined;
  delete env[DAEMON_VARIABLE];
  if (isDaemon) process.umask(DAEMON_UMASK);
  return isDaemon;
}

/**
 * Starts the detached process and waits until it serves.
 *
 * @param errorlog the setting: `-` is nowhere here
 * @throws {NunicornError} if it does not come to that, with its exit code
 */
export async function startDaemon(errorlog: string): Promise<ExitCode> {
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    env: { ...process.env, [DAEMON_VARIABLE]: '1' },
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  await new Promise<void>((resolve, reject) => {
    child.on('message', (told: Told) => {
      if (told.op === 'ready') resolve();
      else reject(new NunicornError(told.message, told.exitCode));
    });
    child.on('error', (error) => reject(new NunicornError(`the daemon could not be started: ${error.message}`)));
    child.on('exit', (code) => {
      const exitCode = Object.values(EXIT).find((known) => known === code && known !== EXIT.OK) ?? EXIT.ERROR;
      const where =
        errorlog === '-' ? 'start it without --daemon, or with --error-logfile FILE,' : `look into ${errorlog}`;
      reject(new NunicornError(`the server did not start (exit code ${code}): ${where} to see why`, exitCode));
    });
  });
  child.unref();
  return EXIT.OK;
}

/** In the detached process: tells who started it, and lets go of it. */
export async function tellStarter(told: Told): Promise<void> {
  if (!process.connected) return;
  await new Promise((sent) => process.send?.(told, sent));
  process.disconnect();
}
