/**
 * What `--print-config` shows: each setting with the value that is in force and the source of it. The text is itself a
 * gunicorn.conf.py.
 */
import { describeSource, type LoadedSettings } from './load.ts';
import type { Setting } from './setting.ts';
import { SETTING_NAMES, SETTINGS } from './table.ts';
import { hook, logDictionary } from './types.ts';

/** Comments line up here, unless a value is longer. */
const COMMENT_COLUMN = 56;
const MASK = "'***'";

export function printedSettings({ settings, sources, app }: LoadedSettings): string {
  const longest = Math.max(...SETTING_NAMES.map((name) => name.length));
  const names = SETTING_NAMES.filter((name) => name !== 'print_config' && name !== 'check_config').toSorted();
  return names
    .map((name) => {
      const value = name === 'wsgi_app' && settings.paste === null ? app : settings[name];
      const source = sources.get(name);
      const { status, secret, type }: Setting<unknown> = SETTINGS[name];
      const hidden = secret === true && value !== null;
      // A function or another object cannot be written down; its name is told.
      const told = hidden || (type === hook && value !== null) || (type === logDictionary && holdsObject(value));
      const line = `${told ? '# ' : ''}${name.padEnd(longest)} = ${hidden ? MASK : pythonLiteral(value)}`;
      const notes = [
        ...(source === undefined ? [] : [describeSource(source)]),
        ...(status?.kind === 'no effect' ? ['no effect'] : []),
      ];
      return `${line.padEnd(COMMENT_COLUMN)}  # ${notes.join(', ')}`;
    })
    .join('\n');
}

/** Objects in logconfig_dict stand here as the names of their types: `<Filter>`. */
function holdsObject(value: unknown): boolean {
  if (typeof value === 'string') return /^<\w+>$/.test(value);
  return typeof value === 'object' && value !== null && Object.values(value).some(holdsObject);
}

/** A value as Python writes it. */
function pythonLiteral(value: unknown): string {
  if (value === null || value === undefined) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (typeof value === 'number') return String(value);
  if (typeof value === 'string') return pythonText(value);
  if (Array.isArray(value)) return `[${value.map(pythonLiteral).join(', ')}]`;
  return `{${Object.entries(value as object)
    .map(([key, each]) => `${pythonText(key)}: ${pythonLiteral(each)}`)
    .join(', ')}}`;
}

/** JSON's escapes are Python's too. */
function pythonText(text: string): string {
  return text.includes("'") || /[\\\p{Cc}]/u.test(text) ? JSON.stringify(text) : `'${text}'`;
}
