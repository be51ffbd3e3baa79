/** What the command line asks for: to serve, to check, or to print something. */
import { EXIT, NunicornError } from '../errors.ts';
import { parseCommandLine, versionText } from './command-line.ts';
import { type LoadedSettings, loadSettings } from './load.ts';
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

/** @throws {NunicornError} as `loadSettings` and `parseCommandLine` do */
export async function readCommandLine({ argv, env, cwd, columns }: CommandLineInput): Promise<CommandLineOutcome> {
  const shell = shellToComplete(argv);
  if (shell !== undefined) {
    const { completionScript } = await import('./completion.ts');
    return { kind: 'print', text: completionScript(shell) };
  }
  const { request } = parseCommandLine(argv, 'the command line');
  if (request === 'version') return { kind: 'print', text: versionText() };
  if (request === 'help') {
    const { helpText } = await import('./help.ts');
    return { kind: 'print', text: helpText(columns) };
  }
  const loaded = await loadSettings(argv, env, cwd);
  const { check_config: check, print_config: print } = loaded.settings;
  if (!check && !print) return { kind: 'serve', loaded };
  const { printedSettings } = await import('./print.ts');
  return { kind: 'check', loaded, printed: print ? printedSettings(loaded) : undefined };
}

/** `nunicorn completion bash`. @throws {NunicornError} if no shell is named, or one that is not known */
function shellToComplete([command, name, ...rest]: readonly string[]): Shell | undefined {
  if (command !== 'completion') return undefined;
  const shell = SHELLS.find((one) => one === name);
  if (shell === undefined || rest.length > 0)
    throw new NunicornError(`nunicorn completion needs the name of a shell: ${SHELLS.join(', ')}`, EXIT.USAGE);
  return shell;
}
