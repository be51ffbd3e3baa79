/** The text of `--help`. */
import type { Section, Setting } from './setting.ts';
import { SECTIONS } from './setting.ts';
import { SETTING_NAMES, SETTINGS, type SettingName } from './table.ts';

const INDENT = 2;
/** Where descriptions begin. A flag that is longer has its description on the next line. */
const COLUMN = 26;
const WIDEST = 100;
const NARROWEST = 50;

const USAGE = `Usage: nunicorn [OPTIONS] APP
       nunicorn size|advise|ctl|top --help
       nunicorn completion bash|zsh|fish`;

const ABOUT =
  'Serves a Python WSGI application from pre-forked workers, as Gunicorn does, behind an HTTP front. APP is MODULE, MODULE:CALLABLE or MODULE:FACTORY(ARGUMENTS); CALLABLE is "application" unless named. Or a Node app: ./FILE.js.';

const EXAMPLES: readonly (readonly [string, string])[] = [
  ['nunicorn project.wsgi', 'One request at a time, at 127.0.0.1:8000.'],
  ['nunicorn -w auto --threads auto -b :8000 project.wsgi', 'As many workers and threads as fit this machine.'],
  [
    'nunicorn -b unix:/run/app.sock --access-logfile - "app:create_app()"',
    'Behind nginx; the app comes from a factory.',
  ],
  ['nunicorn --check-config -c gunicorn.conf.py project.wsgi', 'Would it start? Also loads the app.'],
  ['nunicorn --print-config project.wsgi', 'What is in force, and where each value comes from.'],
];

const SOURCES =
  'Later sources win: defaults (PORT, WEB_CONCURRENCY and FORWARDED_ALLOW_IPS replace some), the configuration file, GUNICORN_CMD_ARGS, NUNICORN_CMD_ARGS, the command line. Every setting is described in docs/settings.md.';

const REQUESTS: readonly Entry[] = [
  { flags: '-h, --help', text: 'Show this help.' },
  { flags: '-v, --version', text: 'Show the version.' },
];

interface Entry {
  readonly flags: string;
  readonly text: string;
}

/** @param columns the width of the terminal */
export function helpText(columns: number): string {
  const width = Math.max(NARROWEST, Math.min(columns, WIDEST));
  const groups = SECTIONS.flatMap((section) => {
    const entries = entriesOf(section);
    return entries.length === 0 ? [] : [group(section, entries, width)];
  });
  const examples = EXAMPLES.map(([command, meaning]) => `  ${command}\n      ${meaning}`).join('\n');
  return [
    USAGE,
    wrap(ABOUT, width, 0),
    ...groups,
    group('Help', REQUESTS, width),
    `Examples:\n${examples}`,
    wrap(SOURCES, width, 0),
  ].join('\n\n');
}

/** The default as the help and the documentation show it. */
export function defaultText(name: SettingName): string {
  const { default: value, defaultText: text }: Setting<unknown> = SETTINGS[name];
  if (text !== undefined) return text;
  if (value === null || value === '') return 'none';
  if (value === false) return 'off';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** What has no effect is accepted, and not offered. */
function entriesOf(section: Section): readonly Entry[] {
  return SETTING_NAMES.flatMap((name) => {
    const setting: Setting<unknown> = SETTINGS[name];
    if (setting.section !== section || setting.flags.length === 0 || setting.status !== undefined) return [];
    const flags = setting.flags.join(', ') + (setting.metavar === undefined ? '' : ` ${setting.metavar}`);
    const byDefault = setting.type.arity === 'flag' ? '' : ` [${defaultText(name)}]`;
    return [{ flags, text: setting.help + byDefault }];
  });
}

function group(title: string, entries: readonly Entry[], width: number): string {
  return [`${title}:`, ...entries.map((entry) => show(entry, width))].join('\n');
}

function show({ flags, text }: Entry, width: number): string {
  const head = ' '.repeat(INDENT) + flags;
  const body = wrap(text, width, COLUMN);
  return head.length > COLUMN - 2 ? `${head}\n${body}` : head + body.slice(head.length);
}

/** Lines of at most `width` characters, each indented. A longer word has a line of its own. */
function wrap(text: string, width: number, indent: number): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && indent + line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].map((each) => ' '.repeat(indent) + each).join('\n');
}
