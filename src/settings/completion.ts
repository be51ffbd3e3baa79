/**
 * Completion scripts for shells, made from the table: `nunicorn completion bash`. They hold all flags, so that a press of the Tab
 * key starts no process.
 */
import { COMMAND_NAMES } from './command-names.ts';
import type { Setting } from './setting.ts';
import { SHELLS, type Shell } from './shells.ts';
import { SETTING_NAMES, SETTINGS } from './table.ts';

interface Completed {
  readonly flags: readonly string[];
  readonly help: string;
  /** Undefined: it takes no value. */
  readonly metavar: string | undefined;
  readonly repeatable: boolean;
  /** Values to offer; empty: files. */
  readonly choices: readonly string[];
}

const REQUESTS: readonly Completed[] = [
  { flags: ['-h', '--help'], help: 'Show this help.', metavar: undefined, repeatable: false, choices: [] },
  { flags: ['-v', '--version'], help: 'Show the version.', metavar: undefined, repeatable: false, choices: [] },
];

export function completionScript(shell: Shell): string {
  const settings = SETTING_NAMES.flatMap((name): Completed[] => {
    const { flags, help, metavar, type, status }: Setting<unknown> = SETTINGS[name];
    const repeatable = type.arity === 'many';
    const shown = flags.length > 0 && status === undefined;
    return shown ? [{ flags, help, metavar, repeatable, choices: type.choices ?? [] }] : [];
  });
  const all = [...settings, ...REQUESTS];
  switch (shell) {
    case 'bash':
      return bash(all);
    case 'zsh':
      return zsh(all);
    case 'fish':
      return fish(all);
  }
}

/** Bash takes `--flag=value` for three words. */
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
  if [[ $before == = ]]; then before=\${COMP_WORDS[COMP_CWORD-2]}; elif [[ $current == = ]]; then current=; fi
  case $before in
${cases.join('\n')}
    completion) COMPREPLY=($(compgen -W '${SHELLS.join(' ')}' -- "$current")); return ;;
  esac
  if [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W '${all.flatMap(({ flags }) => flags).join(' ')}' -- "$current"))
  elif (( COMP_CWORD == 1 )); then
    COMPREPLY=($(compgen -W '${COMMAND_NAMES.join(' ')}' -- "$current") $(compgen -f -- "$current"))
  fi
}
complete -o default -F _nunicorn nunicorn`;
}

function zsh(all: readonly Completed[]): string {
  const specs = all.map(({ flags, help, metavar, repeatable, choices }) => {
    const taking = flags.map((flag) => (metavar === undefined ? flag : flag + (flag.startsWith('--') ? '=' : '+')));
    const names = taking.length === 1 ? `'${taking[0]}'` : `{${taking.join(',')}}`;
    // One that was given is not offered again, under no name.
    const once = repeatable ? `'*'` : `'(${flags.join(' ')})'`;
    const values = choices.length > 0 ? `(${choices.join(' ')})` : '_files';
    const argument = metavar === undefined ? '' : `:${quoted(metavar)}:${values}`;
    return `  ${once}${names}'[${quoted(help)}]${argument}'`;
  });
  return `#compdef nunicorn
# nunicorn completion zsh > a file named _nunicorn in a folder of $fpath
_arguments -s \\
${specs.join(' \\\n')} \\
  '1:application:{ _alternative "commands:command:(${COMMAND_NAMES.join(' ')})" "files:application:_files" }' \\
  '*:word:{ [[ $words[2] = completion ]] && compadd ${SHELLS.join(' ')} || _files }'`;
}

function fish(all: readonly Completed[]): string {
  const lines = all.map(({ flags, help, metavar, choices }) => {
    const names = flags.map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`));
    const values = metavar === undefined ? [] : choices.length > 0 ? ['-x', `-a '${choices.join(' ')}'`] : ['-r', '-F'];
    return ['complete -c nunicorn', ...names, ...values, `-d '${help.replace(/[\\']/g, '\\$&')}'`].join(' ');
  });
  return `# nunicorn completion fish > ~/.config/fish/completions/nunicorn.fish
${lines.join('\n')}
complete -c nunicorn -n __fish_is_first_token -a '${COMMAND_NAMES.join(' ')}'
complete -c nunicorn -n '__fish_seen_subcommand_from completion' -x -a '${SHELLS.join(' ')}'`;
}

/** For the inside of a specification of _arguments, in single quotes. */
function quoted(text: string): string {
  return text.replace(/[[\]:\\]/g, '\\$&').replaceAll("'", "'\\''");
}
