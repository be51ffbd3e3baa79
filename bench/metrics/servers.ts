/** The servers that the bench of metrics starts. */
import { join } from 'node:path';
import { freePort, untilAnswered } from '../loads.ts';
import { Program } from '../programs.ts';
import { ROOT } from '../servers.ts';

const APPS = join(ROOT, 'bench', 'apps');
export const PYTHON = process.env.PYTHON ?? join(ROOT, '.test', 'venv', 'bin', 'python');

export interface Running {
  readonly port: number;
  /** Of --admin-bind, where `args` have it as ADMIN. */
  readonly admin: number;
  readonly program: Program;
}

export interface StartOptions {
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly python?: string;
  readonly cores?: string;
  /** Answered with 200 as soon as the app is there. */
  readonly path?: string;
}

export async function start(
  app: string,
  { args, env = {}, python = PYTHON, cores, path = '/' }: StartOptions,
): Promise<Running> {
  const [port, admin] = [await freePort(), await freePort()];
  const more = args.map((argument) => argument.replace('ADMIN', `127.0.0.1:${admin}`));
  const command = [process.execPath, join(ROOT, 'bin', 'nunicorn.js'), '-b', `127.0.0.1:${port}`];
  const program = new Program([...command, '--python', python, '--chdir', APPS, ...more, app], { cores, env });
  await untilAnswered(port, path, program);
  return { port, admin, program };
}

/** What Node's fetch sends, and the same for all. */
export function targetOf(
  port: number,
  cores?: string,
): { port: number; path: string; bodyBytes: undefined; cores: string | undefined } {
  return { port, path: '/', bodyBytes: undefined, cores };
}
