import { EXIT, NunicornError } from '../errors.ts';

/** An application as Gunicorn names it: `MODULE`, `MODULE:CALLABLE` or `MODULE:FACTORY(ARGUMENTS)`. */
export interface AppUri {
  readonly module: string;
  /** A name, or a call of a factory with literal arguments. `application` if none is given. */
  readonly callable: string;
}

const NAME_OR_CALL = /^[\p{XID_Start}_]\p{XID_Continue}*(?:\s*\(.*\))?$/su;

/**
 * Splits the application's name and checks its form; Python judges the rest when it imports the module. The exit codes are
 * those that Gunicorn has for the same mistakes.
 *
 * @throws {NunicornError} if the form is wrong
 */
export function parseAppUri(text: string): AppUri {
  const colon = text.indexOf(':');
  const module = (colon === -1 ? text : text.slice(0, colon)).trim();
  const callable = (colon === -1 ? 'application' : text.slice(colon + 1)).trim();
  if (!/^[^\s/\\.]+(?:\.[^\s/\\.]+)*$/.test(module)) {
    throw new NunicornError(
      `'${text}' is not an application: a module as Python imports it is needed, such as project.wsgi or project.wsgi:application, not a path`,
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
