/** Exit codes of the `nunicorn` command: Gunicorn's own, so that supervisors and scripts keep working. */
export const EXIT = {
  /** Stopped as asked. */
  OK: 0,
  /** A setting, an address or a file is wrong, or the server cannot go on. */
  ERROR: 1,
  /** The command line cannot be understood. */
  USAGE: 2,
  /** A worker ended before it was ready to serve. */
  WORKER_BOOT_ERROR: 3,
  /** The application was not found, or is not one. */
  APP_LOAD_ERROR: 4,
  /** A server hook failed while the server ran. */
  HOOK_ERROR: 255,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/**
 * An error meant for the person who started the server. Its message says in one go what is wrong, where it was found and
 * what would be right; it is shown without a stack.
 */
export class NunicornError extends Error {
  readonly exitCode: ExitCode;

  constructor(message: string, exitCode: ExitCode = EXIT.ERROR, options?: ErrorOptions) {
    super(message, options);
    this.name = 'NunicornError';
    this.exitCode = exitCode;
  }
}
