/**
 * Reads the command line in a thread of its own. What that takes (yargs, its locales, the tables of terminal widths) is several
 * megabytes that the master, which lives for weeks, never needs again: they go with the thread. A reload reads anew in a new one.
 */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { type ExitCode, NunicornError } from '../errors.ts';
import type { LoadedSettings } from './load.ts';
import { SHELLS, type Shell } from './shells.ts';

export interface CommandLineInput {
  readonly argv: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  /** Width of the terminal, for --help. */
  readonly columns: number;
}

export type CommandLineOutcome =
  | { readonly kind: 'serve'; readonly loaded: LoadedSettings }
  /** --check-config: the application is to be loaded, no more. `printed`: of --print-config, to be shown before. */
  | { readonly kind: 'check'; readonly loaded: LoadedSettings; readonly printed: string | undefined }
  /** --help, --version, completion. */
  | { readonly kind: 'print'; readonly text: string };

type Told = CommandLineOutcome | { readonly kind: 'error'; readonly message: string; readonly exitCode: ExitCode };

/** @throws {NunicornError} as `loadSettings` and `parseCommandLine` do */
export async function readInThread(input: CommandLineInput): Promise<CommandLineOutcome> {
  const thread = new Worker(new URL(import.meta.url), { workerData: input });
  const told = await new Promise<Told>((resolve, reject) => {
    thread.once('message', resolve);
    thread.once('error', reject);
  });
  await thread.terminate();
  if (told.kind === 'error') throw new NunicornError(told.message, told.exitCode);
  return told;
}

/** `nunicorn completion bash`; an application that is named `completion` has no second word. */
function shellToComplete([command, name, ...rest]: readonly string[]): Shell | undefined {
  return command === 'completion' && rest.length === 0 ? SHELLS.find((shell) => shell === name) : undefined;
}

async function read({ argv, env, cwd, columns }: CommandLineInput): Promise<Told> {
  try {
    const shell = shellToComplete(argv);
    if (shell !== undefined) {
      const { completionScript } = await import('./completion.ts');
      return { kind: 'print', text: completionScript(shell) };
    }
    const { parseCommandLine, versionText } = await import('./command-line.ts');
    const { request } = await parseCommandLine(argv, 'the command line');
    if (request === 'version') return { kind: 'print', text: versionText() };
    if (request === 'help') {
      const { helpText } = await import('./help.ts');
      return { kind: 'print', text: helpText(columns) };
    }
    const { loadSettings } = await import('./load.ts');
    const loaded = await loadSettings(argv, env, cwd);
    const { check_config: check, print_config: print } = loaded.settings;
    if (!check && !print) return { kind: 'serve', loaded };
    const { printedSettings } = await import('./print.ts');
    return { kind: 'check', loaded, printed: print ? printedSettings(loaded) : undefined };
  } catch (error) {
    if (!(error instanceof NunicornError)) throw error;
    return { kind: 'error', message: error.message, exitCode: error.exitCode };
  }
}

if (!isMainThread) parentPort?.postMessage(await read(workerData as CommandLineInput));
