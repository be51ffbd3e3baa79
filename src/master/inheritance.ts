/** What this process was started with: listening sockets, by systemd or by the master that it is to replace, and what else that has. */
import type { MultiprocessFolder } from './multiprocess-folder.ts';

/** A listening socket of another process that this one has as `fd`. */
export interface InheritedSocket {
  readonly fd: number;
  /** As --bind names it, in its one form; `systemd:0` is systemd's first. */
  readonly bind: string;
}

export interface Inheritance {
  /** The master that started this one for an upgrade. */
  readonly oldMaster: number | null;
  readonly sockets: readonly InheritedSocket[];
  /** The old master's. */
  readonly multiprocess: MultiprocessFolder | null;
}

/** For nunicorn itself, from the old master to the new one: an Inheritance as JSON. */
const UPGRADE_VARIABLE = 'NUNICORN_UPGRADE';
/** sd_listen_fds(3). */
const FIRST_SYSTEMD_FD = 3;
const SYSTEMD_PREFIX = 'systemd:';

export function isSystemd(bind: string): boolean {
  return bind.startsWith(SYSTEMD_PREFIX);
}

/** What the environment says, taken out of it: neither the app nor what it starts need see it. */
export function takeInheritance(env: NodeJS.ProcessEnv, pid: number): Inheritance {
  const text = env[UPGRADE_VARIABLE];
  const { LISTEN_PID, LISTEN_FDS } = env;
  delete env[UPGRADE_VARIABLE];
  if (text !== undefined) return JSON.parse(text) as Inheritance;
  if (Number(LISTEN_PID) !== pid) return { oldMaster: null, sockets: [], multiprocess: null };
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name];
  const sockets = Array.from({ length: Number(LISTEN_FDS) || 0 }, (_, index) => ({
    fd: FIRST_SYSTEMD_FD + index,
    bind: `${SYSTEMD_PREFIX}${index}`,
  }));
  return { oldMaster: null, sockets, multiprocess: null };
}

/** The environment for the new master. */
export function inheritanceEnv(inheritance: Inheritance): NodeJS.ProcessEnv {
  return { [UPGRADE_VARIABLE]: JSON.stringify(inheritance) };
}
