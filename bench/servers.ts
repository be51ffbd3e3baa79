/** The servers that are compared: how each is found, started and named. One table. */

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

export const ROOT = join(import.meta.dirname, '..', '..');
export const APPS = join(ROOT, 'bench', 'apps');
/** The PYTHONPATH: the Django project is one of the examples. Both folders have a hello.py, and that of the benchmark is meant. */
export const MODULES = `${APPS}:${join(ROOT, 'examples')}`;
const VENV = join(ROOT, '.test', 'bench-venv');
const PYTHON = join(VENV, 'bin', 'python');
const NUNICORN = join(ROOT, 'bin', 'nunicorn.js');

const REQUIRED_PACKAGES = ['gunicorn', 'django'];
/** Compared where they install. */
const OPTIONAL_PACKAGES = ['waitress', 'granian', 'uwsgi'];

export type ServerId =
  | 'nunicorn'
  | 'gunicorn-sync'
  | 'gunicorn-gthread'
  | 'uwsgi'
  | 'waitress'
  | 'granian'
  | 'node-http';

/** What one start of a server is asked to serve. */
export interface Deployment {
  /** `module:callable`, below bench/apps. */
  readonly app: string;
  readonly workers: number;
  readonly threads: number;
  readonly port: number;
}

export interface ServerKind {
  readonly title: string;
  /** Throws if the server is not installed. */
  readonly version: () => string;
  readonly missing: string;
  readonly command: (deployment: Deployment) => readonly string[];
}

const listen = ({ port }: Deployment): string => `127.0.0.1:${port}`;
const inVenv = (program: string): string => join(VENV, 'bin', program);
const firstLine = (file: string, args: readonly string[]): string =>
  execFileSync(file, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    .split('\n')[0]
    ?.trim() ?? '';
const packageVersion = (name: string): string =>
  firstLine(PYTHON, ['-c', `from importlib.metadata import version; print(version("${name}"))`]);
const inBenchVenv = (name: string): string => `pip did not install ${name} into .test/bench-venv`;

/** Only what makes them comparable is set: the same workers and threads, no log of requests, nothing written at home. */
function gunicorn(workerClass: 'sync' | 'gthread', deployment: Deployment): string[] {
  const { app, workers, threads } = deployment;
  const size = ['-w', `${workers}`, ...(workerClass === 'gthread' ? ['--threads', `${threads}`] : [])];
  return [inVenv('gunicorn'), '-b', listen(deployment), '-k', workerClass, ...size, '--no-control-socket', app];
}

function uwsgiProgram(): readonly string[] {
  // Debian's uwsgi loads Python as a plugin, the one from pip has it built in.
  return existsSync(inVenv('uwsgi')) ? [inVenv('uwsgi')] : ['uwsgi', '--plugin', 'python3', '--virtualenv', VENV];
}

export const SERVERS: Readonly<Record<ServerId, ServerKind>> = {
  nunicorn: {
    title: 'nunicorn',
    version: () => firstLine(process.execPath, [NUNICORN, '--version']).replace(/^.*version |\)$/g, ''),
    missing: 'bin/nunicorn.js does not start: run `npm run build`',
    command: (deployment) => [
      ...[process.execPath, NUNICORN, '-b', listen(deployment), '-w', `${deployment.workers}`],
      ...['--threads', `${deployment.threads}`, '--python', PYTHON, '--chdir', APPS, deployment.app],
    ],
  },
  'gunicorn-sync': {
    title: 'gunicorn sync',
    version: () => packageVersion('gunicorn'),
    missing: inBenchVenv('gunicorn'),
    command: (deployment) => gunicorn('sync', deployment),
  },
  'gunicorn-gthread': {
    title: 'gunicorn gthread',
    version: () => packageVersion('gunicorn'),
    missing: inBenchVenv('gunicorn'),
    command: (deployment) => gunicorn('gthread', deployment),
  },
  uwsgi: {
    title: 'uWSGI',
    version: () => firstLine(uwsgiProgram()[0] ?? '', ['--version']),
    missing: 'neither pip nor Debian has it here: apt-get install uwsgi-core uwsgi-plugin-python3',
    // It closes after each answer without saying so, which clients count as an error: let it say so.
    command: (deployment) => [
      ...[...uwsgiProgram(), '--http-socket', listen(deployment), '--add-header', 'Connection: close'],
      ...['--master', '--processes', `${deployment.workers}`, '--threads', `${deployment.threads}`],
      ...['--need-app', '--die-on-term', '--disable-logging', '--module', deployment.app],
    ],
  },
  waitress: {
    title: 'waitress',
    version: () => packageVersion('waitress'),
    missing: inBenchVenv('waitress'),
    command: (deployment) => [
      inVenv('waitress-serve'),
      `--listen=${listen(deployment)}`,
      `--threads=${deployment.threads}`,
      deployment.app,
    ],
  },
  granian: {
    title: 'Granian',
    version: () => packageVersion('granian'),
    missing: inBenchVenv('granian'),
    command: (deployment) => [
      ...[inVenv('granian'), '--interface', 'wsgi', '--host', '127.0.0.1', '--port', `${deployment.port}`],
      ...['--workers', `${deployment.workers}`, '--blocking-threads', `${deployment.threads}`],
      ...['--log-level', 'warning', deployment.app],
    ],
  },
  'node-http': {
    title: 'bare node:http',
    version: () => process.version,
    missing: '',
    command: ({ port }) => [process.execPath, join(import.meta.dirname, 'bare-http.js'), `${port}`],
  },
};

export function pythonVersion(): string {
  return firstLine(PYTHON, ['--version']).replace('Python ', '');
}

/** Command of the sleep case's ceiling: THREADS threads that only sleep, for SECONDS. */
export function bareThreadsCommand(threads: number, sleepSeconds: number, seconds: number): string[] {
  return [PYTHON, join(APPS, 'bare_threads.py'), `${threads}`, `${sleepSeconds}`, `${seconds}`];
}

export function fillDatabaseCommand(): string[] {
  return [PYTHON, '-m', 'django_shop.fill'];
}

/** Makes .test/bench-venv if it is not there. The optional servers may fail to install: `version` finds out later. */
export function ensureVenv(): void {
  if (existsSync(inVenv('gunicorn'))) return;
  const install = (packages: readonly string[]): void => {
    execFileSync(PYTHON, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...packages], {
      stdio: 'inherit',
    });
  };
  console.log('Making .test/bench-venv (once)');
  execFileSync('python3', ['-m', 'venv', VENV], { stdio: 'inherit' });
  for (const name of OPTIONAL_PACKAGES) {
    try {
      install([name]);
    } catch {
      console.log(`${name} did not install: it will be skipped`);
    }
  }
  install(REQUIRED_PACKAGES);
}
