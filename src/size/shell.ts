const PLAIN = /^[\w@%+=:,./-]+$/;

/** A command line that a shell reads back as these words. */
export function shellCommand(words: readonly string[]): string {
  return words.map((word) => (PLAIN.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(' ');
}
