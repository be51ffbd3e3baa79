/** `nunicorn` without a command: reads the settings and serves. */
import { accessSync, constants } from 'node:fs';
import { startDaemon, takeDaemon, tellStarter } from './daemon.ts';
import { EXIT, type ExitCode, NunicornError } from './errors.ts';
import { type Inheritance, takeInheritance } from './master/inheritance.ts';
import { readCommandLine } from './settings/read-command-line.ts';

/**
 * Returns when there is nothing to serve (`--help`, `--check-config`); otherwise the master runs, and ends the process itself.
 *
 * @throws {NunicornError} for a mistake of the user's, and for what the machine refuses
 */
export async function serve(argv: readonly string[], columns: number): Promise<ExitCode> {
  const isDaemon = takeDaemon(process.env);
  try {
    // Before the environment is read by anything else.
    const inheritance = takeInheritance(process.env, process.pid);
    return await read(argv, columns, inheritance, isDaemon);
  } catch (error) {
    if (isDaemon && error instanceof NunicornError)
      await tellStarter({ op: 'error', message: error.message, exitCode: error.exitCode });
    throw error;
  }
}

async function read(
  argv: readonly string[],
  columns: number,
  inheritance: Inheritance,
  isDaemon: boolean,
): Promise<ExitCode> {
  const outcome = await readCommandLine({ argv, env: process.env, cwd: startFolder(), columns });
  if (outcome.kind === 'print') {
    console.log(outcome.text);
    return EXIT.OK;
  }
  for (const warning of outcome.loaded.warnings) console.error(`Warning: ${warning}`);
  if (outcome.kind === 'check') {
    for (const notice of outcome.loaded.notices) console.error(notice);
    if (outcome.printed !== undefined) console.log(outcome.printed);
    const { checkStart } = await import('./master/start-checks.ts');
    await checkStart(outcome.loaded);
    const { checkApp } = await import('./settings/check.ts');
    return await checkApp(outcome.loaded);
  }
  const { daemon, errorlog } = outcome.loaded.settings;
  if (daemon && !isDaemon && inheritance.oldMaster === null) return await startDaemon(errorlog);
  const { runMaster } = await import('./master/master.ts');
  await runMaster(outcome.loaded, inheritance, () => {
    if (isDaemon) void tellStarter({ op: 'ready' });
  });
  return EXIT.OK;
}

/** Where the command was given. Throws NunicornError where nothing can be started: after `sudo -u` in a folder of another user. */
function startFolder(): string {
  try {
    const folder = process.cwd();
    accessSync(folder, constants.X_OK);
    return folder;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new NunicornError(`the folder of this start cannot be used (${why}): change into that of the project first`);
  }
}
