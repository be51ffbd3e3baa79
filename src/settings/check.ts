/** `--check-config`: can the application be loaded? */
import { spawn } from 'node:child_process';
import { delimiter } from 'node:path';
import { EXIT, type ExitCode, NunicornError } from '../errors.ts';
import type { NodeAppUri } from './app.ts';
import type { LoadedSettings } from './load.ts';
import { findPython, PYTHON_PACKAGE_DIR } from './python.ts';

/** Loads it as a worker would, a Python app in a Python of its own; what is wrong goes to stderr. */
export async function checkApp(loaded: LoadedSettings): Promise<ExitCode> {
  const { settings, app, nodeApp, pythonFile, cwd } = loaded;
  if (app === '') return EXIT.OK;
  if (nodeApp !== null) return await checkNodeApp(nodeApp, settings.chdir);
  const { path } = await findPython(settings.python, loaded.env, cwd);
  const env = pythonFile === null ? loaded.env : process.env;
  const given = JSON.stringify({
    app,
    cwd,
    chdir: settings.chdir,
    pythonpath: settings.pythonpath.join(','),
    paste: settings.paste,
    raw_paste_global_conf: settings.raw_paste_global_conf,
    raw_env: settings.raw_env,
    file: pythonFile === null ? null : { location: pythonFile, cwd },
  });
  const child = spawn(path, ['-m', 'nunicorn_worker.check', given], {
    cwd,
    env: {
      ...env,
      PYTHONPATH: env.PYTHONPATH ? `${PYTHON_PACKAGE_DIR}${delimiter}${env.PYTHONPATH}` : PYTHON_PACKAGE_DIR,
    },
    stdio: 'inherit',
  });
  return await new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new NunicornError(`${path} could not be started: ${error.message}`)));
    child.once('exit', (code) => resolve(code === 0 ? EXIT.OK : EXIT.ERROR));
  });
}

/** Ends the process: what the app has begun would keep it. */
async function checkNodeApp(app: NodeAppUri, chdir: string): Promise<never> {
  const { loadApp, silence } = await import('../node-app/load.ts');
  const { bootStack } = await import('../node-app/app-stack.ts');
  process.chdir(chdir);
  // Nothing is left that could call it.
  process.once('beforeExit', () => {
    console.error(`\nError: ${silence(app)}`);
    process.exit(EXIT.ERROR);
  });
  try {
    await loadApp(
      app,
      (text) => console.error(text),
      () => {},
    );
  } catch (error) {
    console.error(error instanceof NunicornError ? `\nError: ${error.message}` : bootStack(error, app.path));
    process.exit(EXIT.ERROR);
  }
  process.exit(EXIT.OK);
}
