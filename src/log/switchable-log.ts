import type { ErrorLog } from './error-log.ts';

/** A log that can become another one while others hold it: a reload may name another file or level. */
export interface SwitchableLog extends ErrorLog {
  /** Lines go to `next` from now on; the log before is closed. */
  become(next: ErrorLog): void;
}

export function switchableLog(first: ErrorLog): SwitchableLog {
  let log = first;
  return {
    debug: (message) => log.debug(message),
    info: (message) => log.info(message),
    warning: (message) => log.warning(message),
    error: (message) => log.error(message),
    critical: (message) => log.critical(message),
    reopen: () => log.reopen(),
    close: () => log.close(),
    become(next) {
      const before = log;
      log = next;
      before.close();
    },
  };
}
