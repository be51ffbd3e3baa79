import type { ErrorLog } from './error-log.ts';

/** A log that can become another one while others hold it: a reload may name another file or level. */
export interface SwitchableLog extends ErrorLog {
  /** Lines go to `next` from now on; the log before is closed. */
  become(next: ErrorLog): void;
  /** Calls `seen` for each warning and worse, whether it is written or not. */
  watch(seen: (level: 'warning' | 'error' | 'critical') => void): void;
}

export function switchableLog(first: ErrorLog): SwitchableLog {
  let log = first;
  let seen: Parameters<SwitchableLog['watch']>[0] = () => {};
  return {
    debug: (message) => log.debug(message),
    info: (message) => log.info(message),
    warning(message) {
      log.warning(message);
      seen('warning');
    },
    error(message) {
      log.error(message);
      seen('error');
    },
    critical(message) {
      log.critical(message);
      seen('critical');
    },
    reopen: () => log.reopen(),
    close: () => log.close(),
    watch(listener) {
      seen = listener;
    },
    become(next) {
      const before = log;
      log = next;
      before.close();
    },
  };
}
