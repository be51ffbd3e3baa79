/** What clients and the app choose, in logs and on a terminal. */

// C0 and C1 control characters, DEL, the quote and the backslash; U+2028 and U+2029 end a line for some readers.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const UNSAFE = /["\\\u0000-\u001f\u007f-\u009f\u2028\u2029]/;
const ALL_UNSAFE = new RegExp(UNSAFE.source, 'g');

/** What a client chose, so that it cannot end a quoted part or a line, nor command a terminal. */
export function escapeValue(value: string): string {
  return UNSAFE.test(value) ? value.replace(ALL_UNSAFE, escapeCharacter) : value;
}

function escapeCharacter(character: string): string {
  if (character === '"' || character === '\\') return `\\${character}`;
  const code = character.charCodeAt(0);
  const bytes = code < 0x100 ? [code] : [...Buffer.from(character, 'utf8')];
  return bytes.map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('');
}

// Control characters but the tab and the end of a line.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** A text of several lines for a terminal, which what the app chose, as the names of its threads, is not to command. */
export function escapeControls(text: string): string {
  return text.replace(CONTROLS, escapeCharacter);
}

// What JSON leaves as it is: C1 control characters, DEL, and the two that end a line for some readers.
const UNSAFE_IN_JSON = /[\u007f-\u009f\u2028\u2029]/;
const ALL_UNSAFE_IN_JSON = new RegExp(UNSAFE_IN_JSON.source, 'g');

/** JSON of the same value that commands no terminal either. */
export function escapeJson(json: string): string {
  return UNSAFE_IN_JSON.test(json) ? json.replace(ALL_UNSAFE_IN_JSON, escapeInJson) : json;
}

function escapeInJson(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
