/** How the servers of Node apps are found, installed and started. */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../servers.ts';
import type { Variant } from './cases.ts';

export const NODE_APPS = join(ROOT, 'bench', 'apps', 'node');
const NUNICORN = join(ROOT, 'bin', 'nunicorn.js');
const PM2 = join(ROOT, '.test', 'bench-node');

/** The program of a version of Node, from its npm package, as test/run.sh has them. */
function nodeOf(version: number | null): string {
  if (version === null) return process.execPath;
  const name = `node-${process.platform}-${process.arch}`;
  return join(ROOT, '.test', `node-${version}`, 'node_modules', name, 'bin', 'node');
}

function npmInstall(folder: string, name: string): void {
  console.log(`npm install ${name} into ${folder} (once)`);
  mkdirSync(folder, { recursive: true });
  const quiet = ['--no-save', '--no-audit', '--no-fund', '--loglevel=error'];
  execFileSync('npm', ['install', '--prefix', folder, ...quiet, name], { stdio: 'inherit' });
}

/** What the variants run on and is not there yet comes from npm. */
export function install(variants: readonly Variant[]): void {
  for (const { server, node } of variants) {
    if (server === 'pm2' && !existsSync(join(PM2, 'node_modules', 'pm2'))) npmInstall(PM2, 'pm2');
    if (node !== null && !existsSync(nodeOf(node))) {
      npmInstall(join(ROOT, '.test', `node-${node}`), `node-${process.platform}-${process.arch}@${node}`);
    }
  }
}

/** Of what is there. */
export function versions(variants: readonly Variant[]): Record<string, string> {
  const found: Record<string, string> = { node: process.version.slice(1) };
  for (const { server, node } of variants) {
    if (server === 'pm2') {
      const { version } = JSON.parse(readFileSync(join(PM2, 'node_modules', 'pm2', 'package.json'), 'utf8')) as {
        version: string;
      };
      found.PM2 = version;
    }
    if (node !== null) found[`Node ${node}`] = execFileSync(nodeOf(node), ['--version'], { encoding: 'utf8' }).trim();
  }
  return found;
}

/** All are told the same, and write no log of requests. `env` holds what they are told in the environment. */
export function commandOf(variant: Variant, port: number): { command: string[]; env: Record<string, string> } {
  const { server, workers, threads } = variant;
  const node = nodeOf(variant.node);
  const app = join(NODE_APPS, variant.app);
  switch (server) {
    case 'nunicorn': {
      const mode = threads === null ? ['-k', 'async'] : ['-k', 'gthread', '--threads', `${threads}`];
      return { command: [node, NUNICORN, '-b', `127.0.0.1:${port}`, '-w', `${workers}`, ...mode, app], env: {} };
    }
    case 'cluster':
      return { command: [node, join(NODE_APPS, 'cluster.cjs'), `${workers}`], env: { PORT: `${port}` } };
    case 'pm2':
      return {
        command: [node, join(PM2, 'node_modules', 'pm2', 'bin', 'pm2-runtime'), 'start', app, '-i', `${workers}`],
        env: { PORT: `${port}`, PM2_HOME: join(process.env.TMPDIR ?? PM2, 'pm2') },
      };
  }
}
