import { readFileSync } from 'node:fs';

/** The version of this package, as in its package.json. */
export const VERSION: string = readVersion();

function readVersion(): string {
  // From dist/src/settings/ the package's folder is three up.
  const content: unknown = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
  if (typeof content === 'object' && content !== null && 'version' in content) return String(content.version);
  throw new Error('package.json has no version');
}
