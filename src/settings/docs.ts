/**
 * Writes docs/settings.md from the table: `npm run docs`.
 */
import { realpathSync, writeFileSync } from 'node:fs';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { defaultText } from './help.ts';
import { SECTIONS, type Setting } from './setting.ts';
import { SETTING_NAMES, SETTINGS, type SettingName } from './table.ts';

/** From dist/src/settings/ the package's folder is three up. */
export const SETTINGS_DOC = fileURLToPath(new URL('../../../docs/settings.md', import.meta.url));

const INTRODUCTION = `<!-- Made by \`npm run docs\` from src/settings/table.ts: change that file, not this one. -->

# Settings

Names, flags and meanings are Gunicorn's where Gunicorn has the setting; the others are marked *nunicorn's own*.
Durations are in seconds, sizes in bytes. \`HUP\` reads all of them anew; where one is marked *Needs a restart*, the server
keeps the value that it was started with, and says so in the log.

## Where they come from

Later sources win, and a list replaces a list:

1. The defaults below. Some are taken from the environment: \`PORT\`, \`WEB_CONCURRENCY\`, \`FORWARDED_ALLOW_IPS\`, \`SENDFILE\`.
2. The configuration file: what \`-c\` names, else the first of \`nunicorn.config.ts\`, \`.js\`, \`.mjs\`, \`.json\` and
   \`gunicorn.conf.py\` in the folder of the start. Only one is read; a warning names those beside it. \`gunicorn.conf.py\` is
   run by Python; each variable that is named like a setting sets it. The default export of a \`nunicorn.config.*\` is an
   object of settings, or a function that returns one. What a file changes in \`os.environ\` or \`process.env\` reaches the
   application. \`None\` (\`null\`) for a text, a switch, a choice or a list means that the default holds, as in Gunicorn, also
   for \`errorlog\` (with which Gunicorn leaves only bare warnings and errors on standard error). \`header_map = None\` is
   \`refuse\`, as in Gunicorn. Numbers, dictionaries, \`bind\`, \`chdir\`, \`loglevel\`, \`logger_class\` and \`worker_class\` need a
   value.
3. \`GUNICORN_CMD_ARGS\`, then \`NUNICORN_CMD_ARGS\`: words as on the command line, such as \`--workers 4 --threads 2\`.
4. The command line. A flag can be shortened as long as it is unambiguous: \`--bin\` is \`--bind\`.

\`nunicorn --print-config\` shows what is in force and where each value comes from; \`nunicorn --check-config\` also loads the
application and ends with 0 or 1. \`nunicorn completion bash\` (or \`zsh\`, \`fish\`) prints completion for the shell.

A value that does not fit ends the start with exit code 1; a flag that does not exist, and an argument that is no number where
one is needed, with 2. The message names the source, a file with its line. In a file that Gunicorn can read too a variable that has
the name of a setting of nunicorn's own, but no value for it (\`log_format = "%(asctime)s ..."\`), sets nothing, and a warning says so.

\`\`\`python
# gunicorn.conf.py
bind = ["127.0.0.1:8000"]
workers = 2
threads = 4
accesslog = "-"
\`\`\`

\`\`\`ts
// nunicorn.config.ts: Node 22.18 and newer
import type { Config } from 'nunicorn';

export default { bind: '127.0.0.1:8000', workers: 'auto', threads: 4, accesslog: '-' } satisfies Config;
\`\`\`
`;

export function settingsDocument(): string {
  const sections = SECTIONS.flatMap((section) => {
    const names = SETTING_NAMES.filter((name) => SETTINGS[name].section === section && statusOf(name) === undefined);
    return names.length === 0 ? [] : [`## ${section}\n\n${names.map(describe).join('\n')}`];
  });
  return [INTRODUCTION, ...sections, gunicornsTable()].join('\n');
}

function statusOf(name: SettingName): Setting<unknown>['status'] {
  const { status }: Setting<unknown> = SETTINGS[name];
  return status;
}

function describe(name: SettingName): string {
  const { flags, type, metavar, help, origin, restart }: Setting<unknown> = SETTINGS[name];
  const facts = [
    flags.length === 0
      ? 'In the configuration file only.'
      : `On the command line: ${flags.map((flag) => `\`${metavar === undefined ? flag : `${flag} ${metavar}`}\``).join(', ')}.`,
    `Type: ${type.label}.`,
    `Default: ${codeOrText(name)}.`,
    ...(restart === true ? ['*Needs a restart.*'] : []),
    ...(origin === 'nunicorn' ? ["*nunicorn's own.*"] : []),
  ];
  return `### ${name}\n\n${help}\n\n${facts.join(' ')}\n`;
}

function codeOrText(name: SettingName): string {
  const text = defaultText(name);
  return 'defaultText' in SETTINGS[name] || text === 'none' ? text : `\`${text}\``;
}

function gunicornsTable(): string {
  const known = SETTING_NAMES.filter((name) => SETTINGS[name].origin === 'gunicorn').map((name) => {
    const status = statusOf(name);
    const here =
      status === undefined
        ? `[works](#${name})`
        : status.kind === 'no effect'
          ? `no effect: ${status.because}`
          : `only ${codeOrText(name)}${status.with ? ` where \`${status.with}\` is set` : ''}: ${status.instead}`;
    return { name, flags: SETTINGS[name].flags, here };
  });
  const rows = known
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, flags, here }) => `| ${name} | ${flags.map((flag) => `\`${flag}\``).join(' ')} | ${here} |`);
  return `## Gunicorn's settings, one by one

All ${rows.length} settings of Gunicorn 26 and 27 are known. *No effect*: the value is checked and taken, and one line at the start says why it
changes nothing. *Only*: another value ends the start.

| setting | flags | here |
|---|---|---|
${rows.join('\n')}
`;
}

if (argv[1] !== undefined && realpathSync(argv[1]) === fileURLToPath(import.meta.url))
  writeFileSync(SETTINGS_DOC, settingsDocument());
