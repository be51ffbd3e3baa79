import { statSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { EXIT, NunicornError } from '../errors.ts';

/** An application as Gunicorn names it: `MODULE`, `MODULE:CALLABLE` or `MODULE:FACTORY(ARGUMENTS)`. */
export interface AppUri {
  readonly module: string;
  /** A name, or a call of a factory with literal arguments. `application` if none is given. */
  readonly callable: string;
}

const PYTHON_PATH = /\/[^/]+\.py$/;
const NAME_OR_CALL = /^[\p{XID_Start}_]\p{XID_Continue}*(?:\s*\(.*\))?$/su;

/**
 * Splits the application's name and checks its form; Python judges the rest when it imports the module. The exit codes are
 * those that Gunicorn has for the same mistakes.
 *
 * @param start where the path of a file begins that is given in place of a module
 * @throws {NunicornError} if the form is wrong
 */
export function parseAppUri(text: string, start: string): AppUri {
  const colon = text.indexOf(':');
  const module = (colon === -1 ? text : text.slice(0, colon)).trim();
  const callable = (colon === -1 ? 'application' : text.slice(colon + 1)).trim();
  if (text.trim() === '') {
    throw new NunicornError(
      `'${text}' is not an application: in a command of several lines, nothing may follow the \\ at the end of a line, not even a space`,
      EXIT.WORKER_BOOT_ERROR,
    );
  }
  if (PYTHON_PATH.test(module)) {
    const [name, folder] = moduleOf(module, start);
    const meant = `'${name}:${callable}'${folder === '.' ? '' : ` with --chdir ${folder}`}`;
    throw new NunicornError(
      `'${text}' names a file, but a module as Python imports it is needed: did you mean ${meant}?`,
      EXIT.WORKER_BOOT_ERROR,
    );
  }
  if (!/^[^\s/\\.]+(?:\.[^\s/\\.]+)*$/.test(module)) {
    throw new NunicornError(
      `'${text}' is not an application: a module as Python imports it is needed, such as project.wsgi or project.wsgi:application; a Node app is named by its file, such as ./app.js`,
      EXIT.WORKER_BOOT_ERROR,
    );
  }
  if (!NAME_OR_CALL.test(callable)) {
    throw new NunicornError(
      `failed to parse '${callable}' in '${text}' as an attribute name or function call: MODULE:CALLABLE or MODULE:FACTORY(ARGUMENTS) is needed`,
      EXIT.APP_LOAD_ERROR,
    );
  }
  return { module, callable };
}

/** The module that a file is and the folder to import it from: that above its packages, which have an `__init__.py`. */
function moduleOf(file: string, start: string): readonly [name: string, folder: string] {
  let name = basename(file, '.py');
  let folder = dirname(file);
  while (!/^\.{0,2}$/.test(basename(folder)) && isFileAt(resolve(start, folder, '__init__.py'))) {
    name = `${basename(folder)}.${name}`;
    folder = dirname(folder);
  }
  return [name, folder];
}

/** A Node app: a file, and which of its exports. */
export interface NodeAppUri {
  /** Absolute. */
  readonly path: string;
  /** Null: the default export. */
  readonly name: string | null;
}

const NODE_FILE = /\.[cm]?[jt]s$/;
const TYPESCRIPT_FILE = /\.[cm]?ts$/;

/**
 * The Node app that `text` names, as `./app.js` or `./app.js:name`: a path that ends like a JavaScript or TypeScript file, or
 * that begins with `./`, `../` or `/`, exists and is not Python. Null: it is a Python app.
 *
 * @param folder where a relative path begins
 * @throws {NunicornError} if it cannot be run
 */
export function parseNodeApp(text: string, folder: string): NodeAppUri | null {
  const [, file = text, name = null] = /^(.+?)(?::([^:/\\]*))?$/s.exec(text) ?? [];
  const path = resolve(folder, file);
  const isFile = isFileAt(path);
  const isOther = /^\.{0,2}\//.test(file) && isFile && !PYTHON_PATH.test(file);
  if (!NODE_FILE.test(file) && !isOther) return null;
  if (!isFile) throw new NunicornError(`there is no file ${path}, which '${text}' names`, EXIT.APP_LOAD_ERROR);
  if (name === '') throw new NunicornError(`'${text}' names no export after its colon`, EXIT.APP_LOAD_ERROR);
  if (TYPESCRIPT_FILE.test(file) && !runsTypeScript()) {
    throw new NunicornError(
      `'${text}' is TypeScript, which Node ${process.versions.node} does not run: Node 22.18 or newer is needed, or a compiled .js file`,
      EXIT.APP_LOAD_ERROR,
    );
  }
  return { path, name };
}

/** False also where this user may not look. */
function isFileAt(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function runsTypeScript(): boolean {
  const { typescript } = process.features as { typescript?: unknown };
  // A loader such as tsx brings its own.
  return (
    Boolean(typescript) ||
    /--(import|loader|require)|-r /.test(`${process.execArgv.join(' ')} ${process.env.NODE_OPTIONS}`)
  );
}
