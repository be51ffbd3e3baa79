/**
 * Reads the command line in a thread of its own. What that takes (yargs, its locales, the tables of terminal widths) is several
 * megabytes that the master, which lives for weeks, never needs again: they go with the thread. A reload reads anew in a new one.
 */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { type ExitCode, NunicornError } from '../errors.ts';
import type { LoadedSettings } from './load.ts';

export interface CommandLineInput {
  readonly argv: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  /** Width of the terminal, for --help. */
  readonly columns: number;
}

export type CommandLineOutcome =
  | { readonly kind: 'serve'; readonly loaded: LoadedSettings }
  /** --help, --version. */
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

async function read({ argv, env, cwd, columns }: CommandLineInput): Promise<Told> {
  try {
    const { helpText, parseCommandLine, versionText } = await import('./command-line.ts');
    const { request } = await parseCommandLine(argv, 'the command line');
    if (request !== undefined) {
      return { kind: 'print', text: request === 'version' ? versionText() : await helpText(columns) };
    }
    const { loadSettings } = await import('./load.ts');
    return { kind: 'serve', loaded: await loadSettings(argv, env, cwd) };
  } catch (error) {
    if (!(error instanceof NunicornError)) throw error;
    return { kind: 'error', message: error.message, exitCode: error.exitCode };
  }
}

if (!isMainThread) parentPort?.postMessage(await read(workerData as CommandLineInput));
