import { EXIT, type ExitCode, NunicornError } from './errors.ts';
import { helpText, parseCommandLine, versionText } from './settings/command-line.ts';
import { loadSettings } from './settings/load.ts';

const DEFAULT_COLUMNS = 100;

/**
 * The `nunicorn` command. It returns when there is nothing to serve (`--help`, a mistake); otherwise the master runs, and
 * ends the process itself.
 *
 * @param argv without the program itself
 * @returns the exit code
 */
export async function main(argv: readonly string[]): Promise<ExitCode> {
  try {
    const { request } = await parseCommandLine(argv, 'the command line');
    if (request !== undefined) {
      console.log(request === 'version' ? versionText() : await helpText(process.stdout.columns ?? DEFAULT_COLUMNS));
      return EXIT.OK;
    }
    const loaded = await loadSettings(argv, process.env, process.cwd());
    for (const warning of loaded.warnings) console.error(`Warning: ${warning}`);
    const { runMaster } = await import('./master/master.ts');
    await runMaster(loaded);
    return EXIT.OK;
  } catch (error) {
    if (!(error instanceof NunicornError)) throw error;
    console.error(`\nError: ${error.message}`);
    return error.exitCode;
  }
}
