import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { NunicornError } from '../../src/errors.ts';
import { findPython } from '../../src/settings/python.ts';

const PATH = process.env.PATH ?? '';
let cwd = '';
beforeEach(() => {
  cwd = mkdtempSync(join(tmpdir(), 'nunicorn-python-'));
});
afterEach(() => rmSync(cwd, { recursive: true }));

/** A program that answers as a Python of that version would. */
function fakePython(path: string, version: string): string {
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, `#!/bin/sh\nprintf '/elsewhere/python\\n${version}\\n'\n`);
  chmodSync(path, 0o755);
  return path;
}

async function failure(python: string | null, env: NodeJS.ProcessEnv): Promise<string> {
  try {
    await findPython(python, env, cwd);
  } catch (error) {
    assert.ok(error instanceof NunicornError, String(error));
    assert.equal(error.exitCode, 1);
    return error.message;
  }
  return assert.fail('a Python was found');
}

test('python3 on PATH is found and resolved to the real program', async () => {
  const { path, version } = await findPython(null, { PATH }, cwd);
  assert.ok(isAbsolute(path));
  assert.match(version, /^3\.\d+\.\d+$/);
});

test('a Python that does not know where it is, without PATH in the environment, is one', async () => {
  const python = fakePython(join(cwd, 'python3'), '3.11.2');
  writeFileSync(python, "#!/bin/sh\nprintf '\\n3.11.2\\n'\n");
  assert.deepEqual(await findPython('python3', { PATH: cwd }, cwd), { path: 'python3', version: '3.11.2' });
});

test('the order is --python, $VIRTUAL_ENV, ./.venv, python3', async () => {
  const onPath = fakePython(join(cwd, 'bin/python3'), '3.9.0');
  const env = { PATH: `${join(onPath, '..')}:${PATH}` };
  assert.equal((await findPython(null, env, cwd)).version, '3.9.0');
  const venv = fakePython(join(cwd, '.venv/bin/python'), '3.10.0');
  assert.deepEqual(await findPython(null, env, cwd), { path: venv, version: '3.10.0' });
  const active = fakePython(join(cwd, 'active/bin/python'), '3.11.0');
  const activeEnv = { ...env, VIRTUAL_ENV: join(cwd, 'active') };
  assert.deepEqual(await findPython(null, activeEnv, cwd), { path: active, version: '3.11.0' });
  const named = fakePython(join(cwd, 'my python'), '3.12.0');
  assert.deepEqual(await findPython('./my python', activeEnv, cwd), { path: named, version: '3.12.0' });
});

test('a Python that is too old is refused by its version', async () => {
  fakePython(join(cwd, 'old'), '3.8.20');
  assert.match(
    await failure('./old', { PATH }),
    /^--python \.\/old is Python 3\.8\.20: Python 3\.9 or newer is needed/,
  );
  fakePython(join(cwd, 'ancient'), '2.7.18');
  assert.match(await failure('./ancient', { PATH }), /2\.7\.18/);
});

test('the message says what was tried and what to do', async () => {
  const message = await failure(null, { PATH: cwd, VIRTUAL_ENV: '/gone' });
  assert.match(
    message,
    /\$VIRTUAL_ENV: \/gone\/bin\/python \(not found\), \.\/\.venv\/bin\/python \(not found\), python3 on PATH \(not found\)/,
  );
  assert.match(message, /install Python 3\.9 or newer, or name one with --python PATH$/);
});

test('what is named and is no Python is refused, not replaced by another', async () => {
  assert.match(await failure('./missing', { PATH }), /--python \.\/missing \(not found\)/);
  symlinkSync('/bin/true', join(cwd, 'true'));
  assert.match(await failure('./true', { PATH }), /--python \.\/true \(is not Python\)/);
  writeFileSync(join(cwd, 'plain'), '');
  assert.match(await failure('./plain', { PATH }), /permission denied/);
  fakePython(join(cwd, 'venv/bin/python'), '3.12.0');
  assert.match(await failure('./venv', { PATH }), /--python \.\/venv \(is a folder; its Python is bin\/python in it\)/);
});
