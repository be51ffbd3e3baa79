// The worker's own tests, in Python: a test here for each module in test/python.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../helpers/paths.ts';

const FOLDER = join(ROOT, 'test', 'python');
const TIME_LIMIT_MS = 60_000;

interface Run {
  readonly error: Error | null;
  readonly output: string;
}

function run(module: string): Promise<Run> {
  const options = {
    cwd: FOLDER,
    env: { ...process.env, PYTHONPATH: join(ROOT, 'src', 'bridge', 'python'), PYTHONDONTWRITEBYTECODE: '1' },
    timeout: TIME_LIMIT_MS,
    killSignal: 'SIGKILL',
  } as const;
  return new Promise((resolve) => {
    execFile(process.env.PYTHON ?? 'python3', ['-m', 'unittest', module], options, (error, stdout, stderr) =>
      resolve({ error, output: stdout + stderr }),
    );
  });
}

const modules = readdirSync(FOLDER).filter((name) => /^test_\w+\.py$/.test(name));

test('there are tests in Python', () => assert.ok(modules.length >= 4));

for (const name of modules) {
  test(`test/python/${name}`, async () => {
    const { error, output } = await run(name.slice(0, -'.py'.length));
    assert.equal(error, null, output);
    // A module without tests succeeds too.
    assert.match(output, /^Ran [1-9]\d* tests? in /m);
  });
}
