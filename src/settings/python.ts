import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { NunicornError } from '../errors.ts';

export interface Python {
  /** What to run: absolute, and inside the virtual environment if there is one. */
  readonly path: string;
  /** E.g. `3.11.7`. */
  readonly version: string;
}

/** The folder of nunicorn itself. */
export const PACKAGE_DIR = fileURLToPath(new URL('../../..', import.meta.url));
/** The folder to put on PYTHONPATH for `python -m nunicorn_worker...`. */
export const PYTHON_PACKAGE_DIR = join(PACKAGE_DIR, 'src/bridge/python');

const OLDEST_MINOR = 9;
const PROBE = 'import sys; print(sys.executable); print("%d.%d.%d" % sys.version_info[:3])';
/** The first start of a Python on a slow disk takes seconds. */
const PROBE_LIMIT_MS = 30_000;

interface Candidate {
  readonly command: string;
  readonly what: string;
  /** A bare name is found through PATH, often by way of a slow shim: the real program is used from then on. */
  readonly byName: boolean;
}

/**
 * Finds the Python that runs the application: `--python`, else `$VIRTUAL_ENV/bin/python`, `./.venv/bin/python`, `python3`.
 *
 * @param python the value of the setting `python`
 * @throws {NunicornError} that says what was tried, if there is none or it is older than 3.9
 */
export async function findPython(python: string | null, env: NodeJS.ProcessEnv, cwd: string): Promise<Python> {
  const tried: string[] = [];
  for (const candidate of candidates(python, env, cwd)) {
    const found = await probe(candidate, env, cwd);
    if ('version' in found) return checkVersion(found, candidate);
    tried.push(`${candidate.what} (${found.problem})`);
  }
  throw new NunicornError(
    `no Python was found to run the application; tried ${tried.join(', ')}: install Python 3.${OLDEST_MINOR} or newer, or name one with --python PATH`,
  );
}

function candidates(python: string | null, env: NodeJS.ProcessEnv, cwd: string): readonly Candidate[] {
  if (python !== null) {
    const byName = !python.includes('/');
    return [{ command: byName ? python : resolve(cwd, python), what: `--python ${python}`, byName }];
  }
  const virtualEnv = env.VIRTUAL_ENV;
  const list: Candidate[] = [];
  if (virtualEnv) {
    const command = resolve(cwd, virtualEnv, 'bin/python');
    list.push({ command, what: `$VIRTUAL_ENV: ${command}`, byName: false });
  }
  list.push({ command: join(cwd, '.venv/bin/python'), what: './.venv/bin/python', byName: false });
  list.push({ command: 'python3', what: 'python3 on PATH', byName: true });
  return list;
}

async function probe(
  candidate: Candidate,
  env: NodeJS.ProcessEnv,
  cwd: string,
): Promise<Python | { readonly problem: string }> {
  try {
    const { stdout } = await promisify(execFile)(candidate.command, ['-I', '-S', '-c', PROBE], {
      env,
      cwd,
      timeout: PROBE_LIMIT_MS,
    });
    // Without PATH in the environment it does not know where it is: the first line is empty.
    const [executable = '', version = ''] = stdout.split('\n');
    if (!/^\d+\.\d+\.\d+$/.test(version)) return { problem: 'is not Python' };
    return { path: candidate.byName && executable !== '' ? executable : candidate.command, version };
  } catch (error) {
    return { problem: explain(error, candidate.command) };
  }
}

function explain(error: unknown, command: string): string {
  if (!(error instanceof Error)) return String(error);
  const code = 'code' in error ? error.code : undefined;
  if (code === 'ENOENT') return 'not found';
  if (code === 'EACCES' && existsSync(`${command}/bin/python`)) return 'is a folder; its Python is bin/python in it';
  if (code === 'EACCES') return 'cannot be run: permission denied';
  const stderr = 'stderr' in error ? String(error.stderr).trim() : '';
  return `failed: ${stderr.split('\n').at(-1) || error.message}`;
}

function checkVersion(python: Python, candidate: Candidate): Python {
  const [major = 0, minor = 0] = python.version.split('.').map(Number);
  if (major === 3 && minor >= OLDEST_MINOR) return python;
  throw new NunicornError(
    `${candidate.what} is Python ${python.version}: Python 3.${OLDEST_MINOR} or newer is needed; name another one with --python PATH`,
  );
}
