/**
 * Splits text into words as a POSIX shell would, without expanding anything: what Python's `shlex.split` does with
 * GUNICORN_CMD_ARGS.
 *
 * @returns undefined if a quotation is not closed or the text ends in a lone backslash
 */
export function shellWords(text: string): readonly string[] | undefined {
  const words: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let i = 0; i < text.length; i++) {
    const character = text.charAt(i);
    const next = text.charAt(i + 1);
    if (quote === "'" && character !== "'") {
      word = (word ?? '') + character;
    } else if (character === '\\' && (quote === '' || next === '"' || next === '\\' || next === '')) {
      if (next === '') return undefined;
      word = (word ?? '') + next;
      i += 1;
    } else if (character === quote) {
      quote = '';
    } else if (quote === '' && (character === '"' || character === "'")) {
      quote = character;
      word ??= '';
    } else if (quote === '' && ' \t\r\n'.includes(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = (word ?? '') + character;
    }
  }
  if (quote !== '') return undefined;
  return word === undefined ? words : [...words, word];
}
