import type { ErrorLog } from '../../src/log/error-log.ts';

export function nothing(): void {}

/** An error log that keeps what it is told to itself. */
export const SILENT_LOG: ErrorLog = {
  debug: nothing,
  info: nothing,
  warning: nothing,
  error: nothing,
  critical: nothing,
  reopen: nothing,
  close: nothing,
};
