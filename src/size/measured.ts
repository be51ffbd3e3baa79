/**
 * How a server is started to be measured: as the user runs it, but so that nothing of it reaches their addresses, files and
 * collectors. What costs something per request (an access log, statsd, syslog, counting) is kept and goes elsewhere.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EXIT, NunicornError } from '../errors.ts';
import { controlSocketPath } from '../settings/admin.ts';
import type { CommandLine } from '../settings/command-line.ts';
import type { LoadedSettings } from '../settings/load.ts';
import { SETTINGS, type SettingName, type Settings } from '../settings/table.ts';
import type { Cell } from './cell.ts';
import type { Kind } from './kind.ts';
import type { Command } from './server.ts';
import { shellCommand } from './shell.ts';

const NUNICORN = fileURLToPath(new URL('../../../bin/nunicorn.js', import.meta.url));

/** The server that the user runs, as far as it is given. */
export interface Served {
  readonly kind: Kind;
  readonly app: string;
  /** From the command line. */
  readonly values: CommandLine['values'];
  readonly loaded: LoadedSettings;
  readonly cwd: string;
}

/** Of one sizing. */
export interface Surroundings {
  /** A folder of its own. */
  readonly temporary: string;
  /** A UDP port at which nobody minds what comes. */
  readonly sinkPort: number;
  /** Null: it is a Node app. */
  readonly python: string | null;
}

/** What a cell or the measurement sets, whatever the user says. */
const SET_BY_CELL: readonly SettingName[] = ['bind', 'workers', 'threads', 'fronts', 'preload_app', 'worker_class'];

/** What takes the place of a setting that reaches out, where it is set. Said on the command line it counts more than a file. */
const REPLACED: Partial<Record<SettingName, (around: Surroundings) => readonly string[]>> = {
  accesslog: ({ temporary }) => [`--access-logfile=${join(temporary, 'access.log')}`],
  errorlog: () => ['--error-logfile=-'],
  syslog: ({ sinkPort }) => ['--log-syslog', `--log-syslog-to=udp://127.0.0.1:${sinkPort}`],
  syslog_addr: () => [],
  statsd_host: ({ sinkPort }) => [`--statsd-host=127.0.0.1:${sinkPort}`],
  pidfile: () => ['--pid='],
  // They have an admin socket instead, for what counting costs.
  admin_bind: () => ['--admin-bind='],
  admin_token: () => ['--admin-token='],
  control_socket: () => ['--control-socket='],
  // The generator speaks plain HTTP.
  certfile: () => ['--certfile='],
  keyfile: () => ['--keyfile='],
  ca_certs: () => ['--ca-certs='],
};

/** Cannot be measured with these. */
const REFUSED: readonly SettingName[] = ['daemon', 'reload', 'check_config', 'print_config'];

/** Variables that tie a server to who started it, or to files beside it. */
const NOT_PASSED_ON = ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID', 'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES'];
const SHARED_FOLDER = 'PROMETHEUS_MULTIPROC_DIR';

/** @throws {NunicornError} for settings with which a server cannot be measured */
export function checkMeasurable(settings: Settings): void {
  const set = REFUSED.find((name) => settings[name] === true);
  if (set !== undefined)
    throw new NunicornError(`${set} is set: a server that is measured runs without it; leave it out`, EXIT.USAGE);
}

/** What of the user's settings a measurement cannot keep away or take along. In words. */
export function notesOn(settings: Settings): readonly string[] {
  const loggers = (['logconfig', 'logconfig_dict', 'logconfig_json', 'logger_class'] as const).filter((name) => {
    const value: unknown = settings[name];
    return typeof value === 'object'
      ? Object.keys(value ?? {}).length > 0
      : !['', 'gunicorn.glogging.Logger'].includes(String(value));
  });
  return [
    ...(settings.certfile === null ? [] : ['Measured without TLS: what it costs comes on top.']),
    ...(loggers.length === 0
      ? []
      : [`${loggers.join(', ')} held while measuring too: those loggers wrote where they always write.`]),
  ];
}

/** A UDP port whose datagrams are thrown away, until `close`. */
export async function openSink(): Promise<{ readonly port: number; readonly close: () => void }> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  socket.unref();
  return { port: socket.address().port, close: () => socket.close() };
}

/** Where a server that counts tells what it has counted. */
export function adminSocket({ temporary }: Surroundings, port: number): string {
  return join(temporary, `admin-${port}.sock`);
}

/** @param counts it is to tell its metrics at `adminSocket` */
export function measuredCommand(
  cell: Cell,
  port: number,
  served: Served,
  around: Surroundings,
  counts = false,
): Command {
  const { kind, cwd, loaded } = served;
  if (cell.server === 'gunicorn') return gunicornCommand(cell, port, served, around);
  const { settings } = loaded;
  const set = Object.entries(REPLACED).filter(([name]) => isSet(settings[name as SettingName]));
  const counting = counts || settings.admin_bind !== null || controlSocketPath(settings) !== null;
  const words = [
    process.execPath,
    NUNICORN,
    ...givenWords(served.values, [...SET_BY_CELL, ...Object.keys(REPLACED)]),
    ...set.flatMap(([, instead]) => instead(around)),
    ...(counting ? [`--admin-bind=unix:${adminSocket(around, port)}`] : []),
    ...['--bind', `127.0.0.1:${port}`],
    ...cellWords(cell, kind, true),
    ...(around.python === null ? [] : ['--python', around.python]),
    served.app,
  ];
  return { kind, words, cwd, env: environment(process.env, around) };
}

/** How the user would run a cell. */
export function adviceCommand(cell: Cell, { kind, values, app }: Served): string {
  return shellCommand(['nunicorn', ...givenWords(values, SET_BY_CELL), ...cellWords(cell, kind, false), app]);
}

function gunicornCommand(cell: Cell, port: number, { kind, app, cwd, loaded }: Served, around: Surroundings): Command {
  const words = [
    ...[around.python ?? '', '-m', 'gunicorn', '--chdir', loaded.settings.chdir, '--bind', `127.0.0.1:${port}`],
    ...['--workers', `${cell.workers}`, '--threads', `${cell.threads}`],
    ...(cell.preload ? ['--preload'] : []),
    ...(loaded.settings.accesslog === null ? [] : ['--access-logfile', join(around.temporary, 'access.log')]),
    // It would write to the home folder.
    ...['--no-control-socket', '--config', '/dev/null', app],
  ];
  return { kind, words, cwd, env: environment(loaded.env, around) };
}

/** @param all also what is the default: a file or the environment may say something else */
function cellWords({ workers, threads, fronts, preload }: Cell, kind: Kind, all: boolean): readonly string[] {
  switch (kind) {
    case 'async':
      return ['--workers', `${workers}`, ...(all ? ['--threads', '1', '--worker-class', 'async'] : [])];
    case 'pool':
      return ['--worker-class', 'gthread', '--workers', `${workers}`, '--threads', `${threads}`];
    case 'python':
      return [
        ...['--workers', `${workers}`, '--threads', `${threads}`],
        ...(all || fronts > 1 ? ['--fronts', `${fronts}`] : []),
        ...(preload ? ['--preload'] : []),
      ];
  }
}

/** Options of the command line in one form, but for some. */
function givenWords(values: CommandLine['values'], without: readonly string[]): readonly string[] {
  const words: string[] = [];
  for (const [name, value] of values) {
    if (without.includes(name)) continue;
    const flags: readonly string[] = SETTINGS[name].flags;
    const flag = flags.find((each) => each.startsWith('--')) ?? '';
    if (typeof value === 'boolean') words.push(flag);
    else for (const each of typeof value === 'string' ? [value] : value) words.push(flag, each);
  }
  return words;
}

function isSet(value: unknown): boolean {
  return value !== null && value !== undefined && value !== false;
}

function environment(from: NodeJS.ProcessEnv, { temporary }: Surroundings): NodeJS.ProcessEnv {
  const env = { ...from };
  for (const name of NOT_PASSED_ON) delete env[name];
  if (env[SHARED_FOLDER] !== undefined) env[SHARED_FOLDER] = temporary;
  return env;
}
