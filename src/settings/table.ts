/**
 * Every setting, once. The command line, the validation, the type `Settings` and docs/settings.md are made from this
 * table. Names are Gunicorn's; durations are in seconds, sizes in bytes.
 */
import { tmpdir } from 'node:os';
import { INERT } from './inert.ts';
import { type DefaultValue, type Setting, setting } from './setting.ts';
import {
  addresses,
  clientCertificates,
  environment,
  existingFolder,
  flag,
  folders,
  group,
  headerMap,
  headerNames,
  headerValues,
  hook,
  list,
  logFormat,
  logLevel,
  networks,
  octal,
  optionalText,
  proxyProtocol,
  seconds,
  text,
  threadCount,
  user,
  wholeNumber,
  workerClass,
  workerCount,
} from './types.ts';

function hookSetting(help: string): Setting<string | null> {
  return {
    section: 'Server Hooks',
    flags: [],
    type: hook,
    default: null,
    defaultText: 'none',
    help,
    origin: 'gunicorn',
  };
}

export const SETTINGS = {
  config: setting({
    section: 'Config File',
    flags: ['-c', '--config'],
    type: optionalText,
    default: null,
    defaultText: './gunicorn.conf.py, if there is one',
    metavar: 'CONFIG',
    help: 'Python file with settings: PATH, file:PATH or python:MODULE. It is run by Python, each variable named like a setting sets it.',
    origin: 'gunicorn',
  }),
  wsgi_app: setting({
    section: 'Config File',
    flags: [],
    type: optionalText,
    default: null,
    defaultText: 'none',
    help: 'The application, MODULE:CALLABLE or MODULE:FACTORY(ARGUMENTS), used when the command line names none.',
    origin: 'gunicorn',
  }),

  paste: setting({
    section: 'Config File',
    flags: ['--paste', '--paster'],
    type: optionalText,
    default: null,
    defaultText: 'none',
    metavar: 'FILE',
    help: 'Serve the application that a PasteDeploy file describes: FILE.ini or FILE.ini#NAME. Needs PasteDeploy in the Python of the application.',
    origin: 'gunicorn',
  }),
  raw_paste_global_conf: setting({
    section: 'Config File',
    flags: ['--paste-global'],
    type: list('many'),
    default: [],
    defaultText: 'none',
    metavar: 'NAME=VALUE',
    help: 'Set a global variable of the PasteDeploy file. Can be given several times.',
    origin: 'gunicorn',
  }),

  bind: setting({
    section: 'Server Socket',
    flags: ['-b', '--bind'],
    type: addresses,
    default: ['127.0.0.1:8000'],
    env: { variable: 'PORT', raw: (port) => [`0.0.0.0:${port}`] },
    defaultText: '127.0.0.1:8000, or 0.0.0.0:$PORT if PORT is set',
    metavar: 'ADDRESS',
    help: 'Address to listen at: HOST, HOST:PORT, :PORT, [IPV6]:PORT or unix:PATH. Can be given several times. The port is 8000 unless named.',
    origin: 'gunicorn',
  }),
  backlog: setting({
    section: 'Server Socket',
    flags: ['--backlog'],
    type: wholeNumber,
    default: 2048,
    metavar: 'INT',
    help: 'How many connections may wait in the kernel to be accepted. The kernel may allow fewer (net.core.somaxconn).',
    origin: 'gunicorn',
  }),

  workers: setting({
    section: 'Worker Processes',
    flags: ['-w', '--workers'],
    type: workerCount,
    default: 1,
    env: { variable: 'WEB_CONCURRENCY', raw: (value) => value },
    defaultText: '1, or $WEB_CONCURRENCY if set',
    metavar: 'INT|auto',
    help: 'How many processes run the application. Each has its own memory and its own Python lock (GIL): add workers for work that needs the processor. auto: one for each processor that the CPU quota allows, as far as there is memory.',
    origin: 'gunicorn',
  }),
  worker_class: setting({
    section: 'Worker Processes',
    flags: ['-k', '--worker-class'],
    type: workerClass,
    default: 'sync',
    metavar: 'STRING',
    help: 'How a worker runs requests: sync (one at a time) or gthread (one on each of its threads). sync with more than one thread becomes gthread.',
    origin: 'gunicorn',
  }),
  threads: setting({
    section: 'Worker Processes',
    flags: ['--threads'],
    type: threadCount,
    default: 1,
    metavar: 'INT|auto',
    help: 'How many requests a worker runs at the same time, each on a thread of its own. Workers x threads is the concurrency: add threads for work that waits (database, other services). auto: up to 3, fewer where there are more workers than processors.',
    origin: 'gunicorn',
  }),
  stagger: setting({
    section: 'Worker Processes',
    flags: ['--stagger'],
    type: flag,
    default: false,
    help: 'At the start, boot one worker at a time, each when the one before it is ready: where several that boot together need more memory or processor than there is.',
    origin: 'nunicorn',
  }),
  timeout: setting({
    section: 'Worker Processes',
    flags: ['-t', '--timeout'],
    type: wholeNumber,
    default: 30,
    metavar: 'SECONDS',
    help: 'How long a request may run in the application, in seconds, until its response begins; later, how long between two pieces of it. Then the client gets 504 and the request is interrupted. 0: no limit.',
    origin: 'gunicorn',
  }),
  graceful_timeout: setting({
    section: 'Worker Processes',
    flags: ['--graceful-timeout'],
    type: wholeNumber,
    default: 30,
    metavar: 'SECONDS',
    help: 'How long running requests may take to finish after a stop or a reload was asked for, in seconds. What still runs then is killed.',
    origin: 'gunicorn',
  }),
  max_requests: setting({
    section: 'Worker Processes',
    flags: ['--max-requests'],
    type: wholeNumber,
    default: 0,
    metavar: 'INT',
    help: 'How many requests a worker answers before it is replaced. It goes on until the next one is ready, and no request is lost. 0: no limit.',
    origin: 'gunicorn',
  }),
  max_requests_jitter: setting({
    section: 'Worker Processes',
    flags: ['--max-requests-jitter'],
    type: wholeNumber,
    default: 0,
    metavar: 'INT',
    help: 'Up to this many is added to --max-requests, for each worker at random, so that they are not all due together.',
    origin: 'gunicorn',
  }),
  max_lifetime: setting({
    section: 'Worker Processes',
    flags: ['--max-lifetime'],
    type: seconds,
    default: 0,
    metavar: 'SECONDS',
    help: 'How long a worker serves before it is replaced, in seconds. 0: no limit.',
    origin: 'nunicorn',
  }),
  max_lifetime_jitter: setting({
    section: 'Worker Processes',
    flags: ['--max-lifetime-jitter'],
    type: seconds,
    default: 0,
    metavar: 'SECONDS',
    help: 'Up to this many seconds are added to --max-lifetime, for each worker at random.',
    origin: 'nunicorn',
  }),
  min_worker_lifetime: setting({
    section: 'Worker Processes',
    flags: ['--min-worker-lifetime'],
    type: seconds,
    default: 10,
    metavar: 'SECONDS',
    help: 'How long a worker serves at least before --max-requests, --max-lifetime or --memory-limit replaces it, in seconds: a limit that is soon reached must not keep the machine busy with starting workers.',
    origin: 'nunicorn',
  }),
  keepalive: setting({
    section: 'Worker Processes',
    // Gunicorn has the first only; the second is what many guides write, after the name in the configuration file.
    flags: ['--keep-alive', '--keepalive'],
    type: wholeNumber,
    default: 2,
    metavar: 'SECONDS',
    help: 'How long an idle connection is kept open for its next request, in seconds. 0: each connection is closed after its response.',
    origin: 'gunicorn',
  }),

  fronts: setting({
    section: 'Fronts and Queue',
    flags: ['--fronts'],
    type: wholeNumber,
    default: 0,
    defaultText: '1 for up to 8 workers, then one for each further 8',
    metavar: 'INT',
    help: 'How many processes speak HTTP and hold the queue in front of the workers. 0: chosen from the number of workers. Few are better: requests that share one queue wait less.',
    origin: 'nunicorn',
  }),
  max_queue: setting({
    section: 'Fronts and Queue',
    flags: ['--max-queue'],
    type: wholeNumber,
    default: 2048,
    metavar: 'INT',
    help: 'How many requests may wait for a free thread in each front. Further ones get 503 with Retry-After at once.',
    origin: 'nunicorn',
  }),
  queue_timeout: setting({
    section: 'Fronts and Queue',
    flags: ['--queue-timeout'],
    type: seconds,
    default: 30,
    metavar: 'SECONDS',
    help: 'How long a request may wait for a free thread, in seconds. Then the client gets 504 and the application never sees the request. 0: no limit.',
    origin: 'nunicorn',
  }),
  limit_request_body: setting({
    section: 'Fronts and Queue',
    flags: ['--limit-request-body'],
    type: wholeNumber,
    default: 0,
    metavar: 'BYTES',
    help: 'The largest request body that is taken, in bytes. A larger one gets 413. 0: no limit.',
    origin: 'nunicorn',
  }),
  spool_dir: setting({
    section: 'Fronts and Queue',
    flags: ['--spool-dir'],
    type: text,
    default: tmpdir(),
    defaultText: "the system's folder for temporary files",
    metavar: 'DIR',
    help: 'Folder for request bodies that are too large to be kept in memory while they arrive. It needs room for all uploads of one moment.',
    origin: 'nunicorn',
    restart: true,
    path: true,
  }),

  tmp_upload_dir: setting({
    section: 'Fronts and Queue',
    flags: [],
    type: optionalText,
    default: null,
    defaultText: 'none',
    help: "Gunicorn's name for spool_dir, which is used if both are set.",
    origin: 'gunicorn',
    path: true,
  }),

  header_timeout: setting({
    section: 'Time Limits of the Front',
    flags: ['--header-timeout'],
    type: seconds,
    default: 10,
    metavar: 'SECONDS',
    help: 'How long a client may take to send the request line and the headers, in seconds. Then it gets 408. 0: no limit.',
    origin: 'nunicorn',
  }),
  body_timeout: setting({
    section: 'Time Limits of the Front',
    flags: ['--body-timeout'],
    type: seconds,
    default: 30,
    metavar: 'SECONDS',
    help: 'How long a client may send nothing in the middle of a request body, in seconds. Then it gets 408. No thread of a worker waits meanwhile. 0: no limit.',
    origin: 'nunicorn',
  }),
  response_timeout: setting({
    section: 'Time Limits of the Front',
    flags: ['--response-timeout'],
    type: seconds,
    default: 60,
    metavar: 'SECONDS',
    help: 'How long a client may read nothing of its response while more is waiting to be sent, in seconds. Then the connection is closed. 0: no limit.',
    origin: 'nunicorn',
  }),

  limit_request_line: setting({
    section: 'Security',
    flags: ['--limit-request-line'],
    type: wholeNumber,
    default: 4094,
    metavar: 'BYTES',
    help: 'The longest request line that is taken, in bytes. A longer one gets 414. 0: no limit.',
    origin: 'gunicorn',
  }),
  limit_request_fields: setting({
    section: 'Security',
    flags: ['--limit-request-fields'],
    type: wholeNumber,
    default: 100,
    metavar: 'INT',
    help: 'How many header fields a request may have. More get 431. 0: 32768.',
    origin: 'gunicorn',
  }),
  limit_request_field_size: setting({
    section: 'Security',
    flags: ['--limit-request-field_size'],
    type: wholeNumber,
    default: 8190,
    metavar: 'BYTES',
    help: 'The largest header field that is taken, name and value, in bytes. A larger one gets 431. 0: 8190.',
    origin: 'gunicorn',
  }),
  forwarded_allow_ips: setting({
    section: 'Security',
    flags: ['--forwarded-allow-ips'],
    type: networks,
    default: '127.0.0.1,::1',
    env: { variable: 'FORWARDED_ALLOW_IPS', raw: (value) => value },
    defaultText: '127.0.0.1,::1, or $FORWARDED_ALLOW_IPS if set',
    metavar: 'STRING',
    help: 'Proxies whose headers are believed (see secure_scheme_headers): addresses or networks such as 10.0.0.0/8, separated by commas, or * for all. Connections over a Unix socket are always believed.',
    origin: 'gunicorn',
  }),
  secure_scheme_headers: setting({
    section: 'Security',
    flags: [],
    type: headerValues,
    default: { 'X-FORWARDED-PROTOCOL': 'ssl', 'X-FORWARDED-PROTO': 'https', 'X-FORWARDED-SSL': 'on' },
    help: 'Headers, with their values, by which a trusted proxy says that the request came over https. If two of them disagree, the request gets 400.',
    origin: 'gunicorn',
  }),

  forwarder_headers: setting({
    section: 'Security',
    flags: ['--forwarder-headers'],
    type: headerNames,
    default: 'SCRIPT_NAME,PATH_INFO',
    metavar: 'STRING',
    help: 'Header names with underscores that a trusted proxy (see forwarded_allow_ips) may send, separated by commas, or * for all. SCRIPT_NAME sets the prefix that is taken off the path; the others become HTTP_... keys.',
    origin: 'gunicorn',
  }),
  header_map: setting({
    section: 'Security',
    flags: ['--header-map'],
    type: headerMap,
    default: 'drop',
    metavar: 'STRING',
    help: 'What becomes of other headers with an underscore in the name, which could forge one with a hyphen: drop leaves them out, refuse answers 400, dangerous takes them, joined with the others.',
    origin: 'gunicorn',
  }),
  proxy_protocol: setting({
    section: 'Security',
    flags: ['--proxy-protocol'],
    type: proxyProtocol,
    default: 'off',
    metavar: '[MODE]',
    help: 'Read the address of the client from the header that HAProxy, ELB or stunnel put before each connection (PROXY protocol): v1, v2 or auto, which is both and the value when none is given. Connections without it are served too. With TLS it is expected before the handshake.',
    origin: 'gunicorn',
  }),
  proxy_allow_ips: setting({
    section: 'Security',
    flags: ['--proxy-allow-from'],
    type: networks,
    default: '127.0.0.1,::1',
    metavar: 'STRING',
    help: 'Who may send a header of the PROXY protocol: addresses or networks, separated by commas, or * for all. Others that do get 403. Connections over a Unix socket always may.',
    origin: 'gunicorn',
  }),
  permit_unconventional_http_version: setting({
    section: 'Security',
    flags: ['--permit-unconventional-http-version'],
    type: flag,
    default: false,
    help: 'Also take requests that say HTTP/0.9 or HTTP/2.0, and read them as HTTP/1: for diagnosis. Other versions are always refused, by the HTTP parser of Node.',
    origin: 'gunicorn',
  }),

  certfile: setting({
    section: 'TLS',
    flags: ['--certfile'],
    type: optionalText,
    default: null,
    defaultText: 'none',
    metavar: 'FILE',
    help: 'Serve HTTPS (TLS 1.2 and newer) with this certificate: a PEM file, the certificate first, then those between it and its root. All addresses of bind speak HTTPS then. HUP reads it again.',
    origin: 'gunicorn',
    path: true,
  }),
  keyfile: setting({
    section: 'TLS',
    flags: ['--keyfile'],
    type: optionalText,
    default: null,
    defaultText: 'certfile, which may hold the key too',
    metavar: 'FILE',
    help: 'The private key of the certificate: a PEM file without a passphrase. The master alone reads it, before it becomes another user.',
    origin: 'gunicorn',
    path: true,
  }),
  ca_certs: setting({
    section: 'TLS',
    flags: ['--ca-certs'],
    type: optionalText,
    default: null,
    defaultText: 'the public ones that Node knows',
    metavar: 'FILE',
    help: 'PEM file with the certificates of those who may sign the certificates of clients (see cert_reqs).',
    origin: 'gunicorn',
    path: true,
  }),
  cert_reqs: setting({
    section: 'TLS',
    flags: ['--cert-reqs'],
    type: clientCertificates,
    default: 0,
    metavar: 'INT',
    help: 'Whether clients need a certificate: 0 no, 1 if they send one it has to be good, 2 yes.',
    origin: 'gunicorn',
  }),
  ciphers: setting({
    section: 'TLS',
    flags: ['--ciphers'],
    type: optionalText,
    default: null,
    defaultText: "Node's",
    metavar: 'STRING',
    help: 'The ciphers that may be used, as an OpenSSL cipher list.',
    origin: 'gunicorn',
  }),

  check_config: setting({
    section: 'Debugging',
    flags: ['--check-config'],
    type: flag,
    default: false,
    help: 'Read the settings and load the application, say what is wrong, and end: exit code 0 if it could be served, else 1.',
    origin: 'gunicorn',
  }),
  print_config: setting({
    section: 'Debugging',
    flags: ['--print-config'],
    type: flag,
    default: false,
    help: 'Print the value of each setting and where it came from, in the form of a gunicorn.conf.py; then as --check-config.',
    origin: 'gunicorn',
  }),

  spew: setting({
    section: 'Debugging',
    flags: ['--spew'],
    type: flag,
    default: false,
    help: 'Print each line of Python before it runs, of the application and its libraries: a great deal of output.',
    origin: 'gunicorn',
  }),

  preload_app: setting({
    section: 'Server Mechanics',
    flags: ['--preload'],
    type: flag,
    default: false,
    help: 'Import the application once, before the workers are made from that process: they share its memory and start faster.',
    origin: 'gunicorn',
    restart: true,
  }),
  chdir: setting({
    section: 'Server Mechanics',
    flags: ['--chdir'],
    type: existingFolder,
    default: '.',
    defaultText: 'the folder the server was started in',
    metavar: 'DIR',
    help: 'Folder to change to before the application is imported. Its modules can be imported, and relative paths in other settings start there.',
    origin: 'gunicorn',
  }),
  pythonpath: setting({
    section: 'Server Mechanics',
    flags: ['--pythonpath'],
    type: folders,
    default: null,
    defaultText: 'none',
    metavar: 'DIRS',
    help: 'Folders, separated by commas, in which Python looks for modules first, e.g. /home/app/project,/home/app/lib.',
    origin: 'gunicorn',
  }),
  python: setting({
    section: 'Server Mechanics',
    flags: ['--python'],
    type: optionalText,
    default: null,
    defaultText: '$VIRTUAL_ENV/bin/python, else ./.venv/bin/python, else python3',
    metavar: 'PATH',
    help: 'The Python (3.9 or newer) that runs the application: a path or the name of a command.',
    origin: 'nunicorn',
  }),
  raw_env: setting({
    section: 'Server Mechanics',
    flags: ['-e', '--env'],
    type: environment,
    default: [],
    defaultText: 'none',
    metavar: 'KEY=VALUE',
    help: "Set a variable in the application's environment. Can be given several times.",
    origin: 'gunicorn',
  }),
  pidfile: setting({
    section: 'Server Mechanics',
    flags: ['-p', '--pid'],
    type: optionalText,
    default: null,
    defaultText: 'none',
    metavar: 'FILE',
    help: 'File that holds the process id of the master while it runs.',
    origin: 'gunicorn',
    path: true,
  }),
  user: setting({
    section: 'Server Mechanics',
    flags: ['-u', '--user'],
    type: user,
    default: null,
    defaultText: 'the user who starts the server',
    metavar: 'USER',
    help: 'User, by name or number, that the workers run as. Needs a start as root.',
    origin: 'gunicorn',
    restart: true,
  }),
  group: setting({
    section: 'Server Mechanics',
    flags: ['-g', '--group'],
    type: group,
    default: null,
    defaultText: 'the group of the user who starts the server',
    metavar: 'GROUP',
    help: 'Group, by name or number, that the workers run as. Needs a start as root.',
    origin: 'gunicorn',
    restart: true,
  }),
  sendfile: setting({
    section: 'Server Mechanics',
    flags: ['--no-sendfile'],
    type: flag,
    default: true,
    env: { variable: 'SENDFILE', raw: (value) => ['y', '1', 'yes', 'true'].includes(value.toLowerCase()) },
    defaultText: 'on, unless $SENDFILE is set and says no',
    flagMeans: false,
    help: 'Let the kernel send files of wsgi.file_wrapper. The flag turns it off, for file systems where that fails.',
    origin: 'gunicorn',
  }),
  umask: setting({
    section: 'Server Mechanics',
    flags: ['-m', '--umask'],
    type: octal,
    default: 0,
    metavar: 'INT',
    help: 'Permissions taken from files and Unix sockets that the server makes; octal when it begins with 0, such as 077.',
    origin: 'gunicorn',
  }),

  accesslog: setting({
    section: 'Logging',
    flags: ['--access-logfile'],
    type: optionalText,
    default: null,
    defaultText: 'none',
    metavar: 'FILE',
    help: 'File for one line per request; - is standard output.',
    origin: 'gunicorn',
    path: true,
  }),
  access_log_format: setting({
    section: 'Logging',
    flags: ['--access-logformat'],
    type: text,
    default: '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
    metavar: 'STRING',
    help: 'What a line of the access log shows, with the identifiers of Gunicorn: %(h)s address, %(r)s request line, %(s)s status, %(b)s bytes, %(D)s microseconds, %({Name}i)s a request header, %({Name}o)s a response header, %({NAME}e)s a variable of the environ ... json: one JSON object a line, with time, remote_address, method, path, status, bytes, duration_ms, pid, worker, thread and more.',
    origin: 'gunicorn',
  }),
  errorlog: setting({
    section: 'Logging',
    flags: ['--error-logfile', '--log-file'],
    type: text,
    default: '-',
    metavar: 'FILE',
    help: "File for the server's own log; - is standard error.",
    origin: 'gunicorn',
    path: true,
  }),
  loglevel: setting({
    section: 'Logging',
    flags: ['--log-level'],
    type: logLevel,
    default: 'info',
    metavar: 'LEVEL',
    help: 'The least severe lines that the error log shows: debug, info, warning, error or critical.',
    origin: 'gunicorn',
  }),
  log_format: setting({
    section: 'Logging',
    flags: ['--log-format'],
    type: logFormat,
    default: 'text',
    metavar: 'FORMAT',
    help: 'The form of the error log: text, as Gunicorn writes it, or json, one JSON object a line with time, level, pid and message.',
    origin: 'nunicorn',
  }),
  log_split: setting({
    section: 'Logging',
    flags: ['--log-split'],
    type: flag,
    default: false,
    help: 'Lines of the error log of level info and below go to standard output, warnings and errors to standard error, which some collectors take for errors whole. Without effect where the error log is a file.',
    origin: 'nunicorn',
  }),

  default_proc_name: setting({
    section: 'Process Naming',
    flags: [],
    type: text,
    default: 'gunicorn',
    defaultText: 'the application',
    help: 'The name in the titles of the processes where proc_name is not set.',
    origin: 'gunicorn',
  }),
  proc_name: setting({
    section: 'Process Naming',
    flags: ['-n', '--name'],
    type: text,
    default: '',
    defaultText: 'the application',
    metavar: 'STRING',
    help: 'Name shown in brackets in the titles of the processes (ps, top), to tell several servers apart.',
    origin: 'gunicorn',
  }),

  post_fork: hookSetting('Called as post_fork(server, worker) in each worker before it imports the application.'),
  post_worker_init: hookSetting(
    'Called as post_worker_init(worker) in each worker when it has imported the application.',
  ),
  pre_request: hookSetting(
    'Called as pre_request(worker, req) before each request. If it raises, the client gets 500.',
  ),
  post_request: hookSetting(
    'Called as post_request(worker, req, environ, resp) after each request, when the client has its answer; with two or three arguments too.',
  ),
  worker_int: hookSetting(
    'Called as worker_int(worker) in a worker that is told to stop at once: by a quick shutdown, or by SIGINT or SIGQUIT.',
  ),
  worker_abort: hookSetting('Called as worker_abort(worker) in a worker that gets SIGABRT: it did not leave in time.'),
  worker_exit: hookSetting('Called as worker_exit(server, worker) in each worker as it leaves.'),

  ...INERT,
} as const satisfies Readonly<Record<string, Setting<unknown>>>;

export type SettingName = keyof typeof SETTINGS;

/** The value of a setting as its type reads it. */
export type ValueOf<Name extends SettingName> = (typeof SETTINGS)[Name] extends Setting<infer T> ? T : never;

/** The settings of one server, checked and complete: what was `auto` is chosen. */
export type Settings = {
  readonly [Name in SettingName]: Name extends 'workers' | 'threads' ? number : ValueOf<Name>;
};

export const SETTING_NAMES = Object.keys(SETTINGS) as readonly SettingName[];

export function isSettingName(name: string): name is SettingName {
  return Object.hasOwn(SETTINGS, name);
}

/** A setting of Gunicorn that nunicorn does not honour yet. */
export interface NotYet {
  readonly flags: readonly string[];
  /** How many values its flag takes; `optional`: none or one, as `--proxy-protocol [MODE]`. */
  readonly takes: 'value' | 'nothing' | 'optional';
  /** Gunicorn's default: a configuration file that spells it out asks for nothing. */
  readonly default?: DefaultValue;
}

function value(flags: string, byDefault: DefaultValue): NotYet {
  return { flags: flags.split(' '), takes: 'value', default: byDefault };
}
function nothing(flags: string, byDefault: DefaultValue = false): NotYet {
  return { flags: flags.split(' '), takes: 'nothing', default: byDefault };
}
function fileOnly(byDefault: DefaultValue): NotYet {
  return { flags: [], takes: 'value', default: byDefault };
}
const otherHook: NotYet = { flags: [], takes: 'value' };

/** Gunicorn's other settings. They are refused where they would change something, never ignored. */
export const NOT_YET: Readonly<Record<string, NotYet>> = {
  reload: nothing('--reload'),
  reload_engine: value('--reload-engine', 'auto'),
  reload_extra_files: value('--reload-extra-file', []),
  reuse_port: nothing('--reuse-port'),
  daemon: nothing('-D --daemon'),
  worker_tmp_dir: value('--worker-tmp-dir', null),
  initgroups: nothing('--initgroups'),
  disable_redirect_access_to_syslog: nothing('--disable-redirect-access-to-syslog'),
  capture_output: nothing('--capture-output'),
  logger_class: value('--logger-class', 'gunicorn.glogging.Logger'),
  logconfig: value('--log-config', null),
  logconfig_dict: fileOnly({}),
  logconfig_json: value('--log-config-json', null),
  syslog_addr: value('--log-syslog-to', 'udp://localhost:514'),
  syslog: nothing('--log-syslog'),
  syslog_prefix: value('--log-syslog-prefix', null),
  syslog_facility: value('--log-syslog-facility', 'user'),
  enable_stdio_inheritance: nothing('-R --enable-stdio-inheritance'),
  statsd_host: value('--statsd-host', null),
  dogstatsd_tags: value('--dogstatsd-tags', ''),
  statsd_prefix: value('--statsd-prefix', ''),
  enable_backlog_metric: nothing('--enable-backlog-metric'),
  control_socket: value('--control-socket', null),
  control_socket_mode: value('--control-socket-mode', 0o600),
  on_starting: otherHook,
  on_reload: otherHook,
  when_ready: otherHook,
  pre_fork: otherHook,
  pre_exec: otherHook,
  child_exit: otherHook,
  nworkers_changed: otherHook,
  on_exit: otherHook,
};

/** The value is what Gunicorn does anyway, or "none": a configuration that spells it out needs nothing from nunicorn. */
export function asksForNothing(notYet: NotYet, raw: unknown): boolean {
  if (raw === null) return true;
  const byDefault = notYet.default;
  if (byDefault === undefined) return false;
  if (byDefault === null) return raw === '';
  // On the command line a number is text.
  if (typeof byDefault === 'object') return JSON.stringify(raw) === JSON.stringify(byDefault);
  return String(raw) === String(byDefault) || (raw === false && byDefault === 'off');
}
