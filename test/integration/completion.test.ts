// Completion in real shells: each runs in a terminal of its own, in which keys are pressed.
import { strict as assert } from 'node:assert';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { NUNICORN } from '../helpers/paths.ts';

/** Presses the keys of each step when the output since the step before matches; prints all output. */
const TERMINAL = `
import json, os, pty, re, select, sys, time
command, steps = json.loads(sys.argv[1])
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
output, begin = b"", 0
for pattern, keys in steps:
    end = time.monotonic() + 20
    while not re.search(pattern.encode(), output[begin:]):
        if time.monotonic() > end or not select.select([terminal], [], [], 1)[0]:
            if time.monotonic() > end:
                sys.exit("waited for " + pattern + " in " + repr(output[begin:]))
            continue
        try:
            output += os.read(terminal, 65536)
        except OSError:
            sys.exit("the shell has ended: " + repr(output))
    begin = len(output)
    os.write(terminal, keys.encode())
os.kill(pid, 9)
os.waitpid(pid, 0)
sys.stdout.buffer.write(output)
`;

interface Shell {
  readonly name: 'bash' | 'zsh' | 'fish';
  readonly command: readonly string[];
  /** How its own prompt ends. */
  readonly prompt: string;
  /** Makes it know the script, which is in the current folder, and gives it the prompt that is waited for. */
  readonly setup: string;
  readonly script: string;
  /** What stands between a long flag that was completed and its value. */
  readonly before: ' ' | '=';
}

const SHELLS: readonly Shell[] = [
  {
    name: 'bash',
    command: ['bash', '--norc', '-i'],
    prompt: '[#$] ',
    setup: "source ./nunicorn; PS1='REA''DY> '",
    script: 'nunicorn',
    before: ' ',
  },
  {
    name: 'zsh',
    command: ['zsh', '-f', '-i'],
    prompt: '[#%] ',
    setup: "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; bindkey -e; PS1='REA''DY> '",
    script: '_nunicorn',
    before: '=',
  },
  {
    name: 'fish',
    command: ['fish', '--no-config', '-i'],
    prompt: '[#>] ',
    setup: "source ./nunicorn.fish; function fish_prompt; echo -n 'REA''DY> '; end",
    script: 'nunicorn.fish',
    before: ' ',
  },
];

let folder = '';
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'completion-'));
  for (const name of ['unusual.conf.py', 'application.js']) writeFileSync(join(folder, name), '');
});
after(() => rmSync(folder, { recursive: true }));

const PRINTED = '[\r\n]LINE: ([^\r\n]*)[\r\n]';

/** The command lines that the shell has when these keys were pressed, one after the other. */
function typed({ command, prompt, setup }: Shell, all: readonly string[]): readonly string[] {
  // The shell itself is asked to print the line: a word before it, and Enter.
  const print = '\u0001echo LINE: \r';
  const steps = [
    [prompt, `${setup}\r`],
    ...all.map((keys, at) => [`${at === 0 ? '' : `${PRINTED}(.|\n)*`}READY> `, keys + print]),
    [PRINTED, ''],
  ];
  const { status, stdout, stderr } = spawnSync('python3', ['-c', TERMINAL, JSON.stringify([command, steps])], {
    cwd: folder,
    encoding: 'utf8',
    timeout: 120_000,
    env: { PATH: process.env.PATH, HOME: folder, TERM: 'xterm', LANG: 'C.UTF-8' },
  });
  assert.equal(status, 0, stderr);
  return [...stdout.matchAll(new RegExp(PRINTED, 'g'))].map(([, line = '']) => stripVTControlCharacters(line).trim());
}

for (const shell of SHELLS) {
  const missing = spawnSync(shell.name, ['--version']).error !== undefined;
  const skip = !NUNICORN_RUNS || (missing ? `there is no ${shell.name} here` : false);
  it(`${shell.name} completes`, { skip }, () => {
    const text = execFileSync(process.execPath, [NUNICORN, 'completion', shell.name], { encoding: 'utf8' });
    writeFileSync(join(folder, shell.script), text);
    const cases = {
      'a flag': ['--prel\t', '--preload'],
      'a flag and its value': ['--worker-cl\tgth\t', `--worker-class${shell.before}gthread`],
      'a value behind =': ['--log-level=warn\t', '--log-level=warning'],
      'a value of a short flag': ['-k gth\t', '-k gthread'],
      'a flag that may come again': ['--bind :1 --bin\t', '--bind :1 --bind'],
      'a file as a value': ['-c unus\t', '-c unusual.conf.py'],
      'an application': ['./appl\t', './application.js'],
      'a command': ['compl\t', 'completion'],
      'a shell': ['completion fi\t', 'completion fish'],
    };
    const lines = typed(
      shell,
      Object.values(cases).map(([keys]) => `nunicorn ${keys}`),
    );
    assert.deepEqual(
      lines,
      Object.values(cases).map(([, line]) => `nunicorn ${line}`),
    );
  });
}
