import { type ExitCode, NunicornError } from './errors.ts';
import type { CommandName } from './settings/command-names.ts';

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
} satisfies Readonly<Record<Exclude<CommandName, 'completion'>, unknown>>;

/**
 * The `nunicorn` command. It returns when there is nothing to serve (`--help`, a mistake); otherwise the master runs, and
 * ends the process itself.
 *
 * @param argv without the program itself
 * @returns the exit code
 */
export async function main(argv: readonly string[]): Promise<ExitCode> {
  const columns = process.stdout.columns ?? DEFAULT_COLUMNS;
  const [first = ''] = argv;
  const command = Object.hasOwn(COMMANDS, first) ? COMMANDS[first] : undefined;
  try {
    if (command !== undefined) return await (await command()).run(argv.slice(1), columns);
    const { serve } = await import('./serve.ts');
    return await serve(argv, columns);
  } catch (error) {
    if (!(error instanceof NunicornError)) throw error;
    console.error(`\nError: ${error.message}`);
    return error.exitCode;
  }
}
