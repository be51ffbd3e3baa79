/**
 * Completion scripts for shells, made from the table: `nunicorn completion bash`. They hold all flags, so that a press of the Tab
 * key starts no process.
 */
import type { Setting } from './setting.ts';
import { SETTING_NAMES, SETTINGS } from './table.ts';

export type Shell = 'bash' | 'zsh';

interface Completed {
  readonly flags: readonly string[];
  readonly help: string;
  readonly metavar: string | undefined;
  /** Values to offer; empty: files. */
  readonly choices: readonly string[];
}

const REQUESTS: readonly Completed[] = [
  { flags: ['-h', '--help'], help: 'Show this help.', metavar: undefined, choices: [] },
  { flags: ['-v', '--version'], help: 'Show the version.', metavar: undefined, choices: [] },
];

export function completionScript(shell: Shell): string {
  const settings = SETTING_NAMES.flatMap((name) => {
    const { flags, help, metavar, type, status }: Setting<unknown> = SETTINGS[name];
    return flags.length === 0 || status !== undefined ? [] : [{ flags, help, metavar, choices: type.choices ?? [] }];
  });
  const all = [...settings, ...REQUESTS];
  return shell === 'bash' ? bash(all) : zsh(all);
}

function bash(all: readonly Completed[]): string {
  const cases = all
    .filter(({ choices }) => choices.length > 0)
    .map(
      ({ flags, choices }) =>
        `    ${flags.join('|')}) COMPREPLY=($(compgen -W '${choices.join(' ')}' -- "$current")); return ;;`,
    );
  return `# nunicorn completion bash > ~/.local/share/bash-completion/completions/nunicorn
_nunicorn() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]}
  case $before in
${cases.join('\n')}
  esac
  if [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W '${all.flatMap(({ flags }) => flags).join(' ')}' -- "$current"))
  fi
}
complete -o default -F _nunicorn nunicorn`;
}

function zsh(all: readonly Completed[]): string {
  const specs = all.map(({ flags, help, metavar, choices }) => {
    const names = flags.length === 1 ? flags[0] : `{${flags.join(',')}}`;
    const values = choices.length > 0 ? `(${choices.join(' ')})` : '_files';
    const argument = metavar === undefined ? '' : `:${inBrackets(metavar)}:${values}`;
    return `  ${names}'[${inBrackets(help)}]${argument}'`;
  });
  return `#compdef nunicorn
# nunicorn completion zsh > a file named _nunicorn in a folder of $fpath
_arguments -s \\
${specs.join(' \\\n')} \\
  '*:application:_files'`;
}

/** For the inside of a specification of _arguments, in single quotes. */
function inBrackets(text: string): string {
  return text.replace(/[[\]:\\]/g, '\\$&').replaceAll("'", "'\\''");
}
