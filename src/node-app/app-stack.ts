import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const OUR_FOLDER = fileURLToPath(new URL('..', import.meta.url));

/** An error of the app for the log: its stack without the frames of nunicorn and of Node itself, which tell nobody anything. */
export function appStack(error: unknown): string {
  if (!(error instanceof Error)) return `${String(error)} was thrown, which is no Error`;
  return withoutOurs(error.stack ?? String(error));
}

/** A stack without the frames of nunicorn and of Node itself. */
export function withoutOurs(stack: string): string {
  const isOurs = (line: string): boolean =>
    /^\s+at /.test(line) && (line.includes(OUR_FOLDER) || line.includes('node:internal') || /\(node:/.test(line));
  return stack
    .split('\n')
    .filter((line) => !isOurs(line))
    .join('\n');
}

/** The same for an error at the import of `path`. Node keeps the place of a syntax error to itself until it prints it. */
export function bootStack(error: unknown, path: string): string {
  const stack = appStack(error);
  if (!(error instanceof SyntaxError) || stack.includes(path)) return stack;
  const { stderr } = spawnSync(process.execPath, ['--check', path], { encoding: 'utf8' });
  const place = stderr.slice(0, stderr.indexOf('\nSyntaxError')).trim();
  return place === '' ? stack : `${place}\n${stack}`;
}
