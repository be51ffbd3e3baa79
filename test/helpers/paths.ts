import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

function findRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

export const ROOT = findRoot();
export const FIXTURES = join(ROOT, 'test', 'fixtures');
export const VENV = join(ROOT, '.test', 'venv');
export const VENV_BIN = join(VENV, 'bin');
export const PYTHON = join(VENV_BIN, 'python');
/** What test/fixtures/node_apps/package.json names, installed. */
export const NODE_APPS = join(ROOT, '.test', 'node-apps');
/** What `next build` has made of test/fixtures/node_next: a program that calls listen(). */
export const NEXT_SERVER = join(ROOT, '.test', 'node-next', '.next', 'standalone', 'server.js');
export const NUNICORN = join(ROOT, 'bin', 'nunicorn.js');
