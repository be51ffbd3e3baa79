import { startDaemon, takeDaemon, tellStarter } from './daemon.ts';
import { EXIT, type ExitCode, NunicornError } from './errors.ts';
import { takeInheritance } from './master/inheritance.ts';
import { readInThread } from './settings/read-in-thread.ts';

const DEFAULT_COLUMNS = 80;

interface Command {
  readonly run: (argv: readonly string[], columns: number) => Promise<ExitCode>;
}

/** Commands beside serving. Each is loaded only when it is asked for: what it needs is none of the master's. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  size: () => import('./size/command.ts'),
  advise: () => import('./size/advise.ts'),
  ctl: () => import('./control/ctl.ts'),
  top: () => import('./control/top.ts'),
};

/**
 * The `nunicorn` command. It returns when there is nothing to serve (`--help`, a mistake); otherwise the master runs, and
 * ends the process itself.
 *
 * @param argv without the program itself
 * @returns the exit code
 */
export async function main(argv: readonly string[]): Promise<ExitCode> {
  const isDaemon = takeDaemon(process.env);
  try {
    // Before the environment is read by anything else.
    const inheritance = takeInheritance(process.env, process.pid);
    const columns = process.stdout.columns ?? DEFAULT_COLUMNS;
    const [first = ''] = argv;
    const command = Object.hasOwn(COMMANDS, first) ? COMMANDS[first] : undefined;
    if (command !== undefined) return await (await command()).run(argv.slice(1), columns);
    const outcome = await readInThread({ argv, env: process.env, cwd: process.cwd(), columns });
    if (outcome.kind === 'print') {
      console.log(outcome.text);
      return EXIT.OK;
    }
    for (const warning of outcome.loaded.warnings) console.error(`Warning: ${warning}`);
    if (outcome.kind === 'check') {
      for (const notice of outcome.loaded.notices) console.error(notice);
      if (outcome.printed !== undefined) console.log(outcome.printed);
      const { checkApp } = await import('./settings/check.ts');
      return await checkApp(outcome.loaded);
    }
    if (outcome.loaded.settings.daemon && !isDaemon && inheritance.oldMaster === null) return await startDaemon();
    const { runMaster } = await import('./master/master.ts');
    await runMaster(outcome.loaded, inheritance, () => {
      if (isDaemon) void tellStarter({ op: 'ready' });
    });
    return EXIT.OK;
  } catch (error) {
    if (!(error instanceof NunicornError)) throw error;
    console.error(`\nError: ${error.message}`);
    if (isDaemon) await tellStarter({ op: 'error', message: error.message, exitCode: error.exitCode });
    return error.exitCode;
  }
}
