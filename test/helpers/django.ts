import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { FIXTURES, PYTHON } from './paths.ts';

export const DJANGO_PROJECT = join(FIXTURES, 'django_project');
export const USER = { username: 'admin', password: 'correct horse' } as const;

/** A migrated database with one superuser in a folder of its own, which is removed afterwards. */
export async function withDjangoData<T>(test: (env: Record<string, string>) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'nt-django-'));
  try {
    const env = { NOTES_DATA: folder, DJANGO_SETTINGS_MODULE: 'project.settings', PYTHONDONTWRITEBYTECODE: '1' };
    const run = promisify(execFile);
    const options = {
      cwd: DJANGO_PROJECT,
      env: { ...process.env, ...env, DJANGO_SUPERUSER_PASSWORD: USER.password },
    };
    await run(PYTHON, ['manage.py', 'migrate', '--verbosity', '0'], options);
    const user = ['--noinput', '--username', USER.username, '--email', 'admin@example.org'];
    await run(PYTHON, ['manage.py', 'createsuperuser', '--verbosity', '0', ...user], options);
    return await test(env);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
