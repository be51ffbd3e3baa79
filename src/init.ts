/**
 * As PID 1 of a container the command is the parent of every orphan, and Node waits only for processes that it has started
 * itself. So the command runs once more, as the child of a small Python that takes the orphans. This process passes signals on.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { NunicornError } from './errors.ts';
import { findPython, PYTHON_PACKAGE_DIR } from './settings/python.ts';

/** Set below PID 1: the end of the master is the end of the container. */
export const INIT_VARIABLE = 'NUNICORN_INIT';
const PASSED = ['HUP', 'INT', 'QUIT', 'TERM', 'USR1', 'USR2', 'WINCH', 'TTIN', 'TTOU'] as const;

/** Returns the exit code when all is over; null if there is no Python, and the command has to run as PID 1 itself. */
export async function runBelowInit(): Promise<number | null> {
  const python = await findPython(null, process.env, process.cwd()).catch((error: unknown) => {
    if (error instanceof NunicornError) return null;
    throw error;
  });
  if (python === null) {
    console.error(
      'Warning: this is PID 1, and no Python was found that reaps orphans: start the container with --init',
    );
    return null;
  }
  const command = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  // Isolated: what watches Python programs, as opentelemetry-instrument does, is for the app and not for this one.
  const child = spawn(python.path, ['-I', '-S', join(PYTHON_PACKAGE_DIR, 'nunicorn_worker', 'init.py'), ...command], {
    env: { ...process.env, [INIT_VARIABLE]: '1' },
    stdio: 'inherit',
    // Ctrl-C comes here alone, and is passed on once.
    detached: true,
  });
  for (const name of PASSED) process.on(`SIG${name}`, () => child.kill(`SIG${name}`));
  return await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => resolve(code ?? 1));
  });
}
