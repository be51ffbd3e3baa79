// Where a setting comes from: defaults of the environment, configuration file, GUNICORN_CMD_ARGS, command line.
import { until } from '../helpers/deadline.ts';
import type { Server, ServerOptions } from '../helpers/server.ts';
import { ends } from './operator.ts';
import { type Differs, onNewServers, type Scenario, type Transcript } from './parity.ts';

interface Case {
  readonly name: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly files?: Readonly<Record<string, string>>;
  readonly args?: readonly string[];
  readonly app?: string;
  readonly chdir?: string;
  readonly differs?: Differs;
}

/** How many workers come up, and what the app sees of its environment. */
async function serves(server: Server, expected: number): Promise<Transcript> {
  await until(
    () => server.workers().length >= expected,
    () => `${expected} workers\n${server.output}`,
    30_000,
  );
  await until(async () => (await server.get('/').catch(() => null))?.status === 200, 'the first 200');
  const text = (await server.get('/')).text();
  return [`${server.workers().length} workers`, ...text.split('\n').filter((line) => !/^(cwd|path)=/.test(line))];
}

function workers(expected: number, { name, app = 'environment:application', differs, ...rest }: Case): Scenario {
  return {
    name,
    options: { app, ...rest } satisfies ServerOptions,
    run: (server) => serves(server, expected),
    ...(differs && { differs }),
  };
}

function refused({ name, app = 'environment:application', differs, ...rest }: Case): Scenario {
  return {
    name,
    options: { app, ...rest } satisfies ServerOptions,
    run: (server) => ends(server, /^never$/),
    ...(differs && { differs }),
  };
}

const FILE = 'gunicorn.conf.py';

onNewServers('precedence', { app: 'environment:application' }, [
  workers(1, { name: 'the default' }),
  workers(2, { name: 'WEB_CONCURRENCY', env: { WEB_CONCURRENCY: '2' } }),
  workers(2, {
    name: 'the file before WEB_CONCURRENCY',
    env: { WEB_CONCURRENCY: '3' },
    files: { [FILE]: 'workers = 2\n' },
  }),
  workers(2, {
    name: 'GUNICORN_CMD_ARGS before the file',
    env: { GUNICORN_CMD_ARGS: '--workers=2' },
    files: { [FILE]: 'workers = 3\n' },
  }),
  workers(2, {
    name: 'the command line before GUNICORN_CMD_ARGS',
    env: { GUNICORN_CMD_ARGS: '--workers=3' },
    args: ['-w', '2'],
  }),
  workers(2, {
    name: '-c before the default file',
    files: { [FILE]: 'workers = 3\n', 'other.py': 'workers = 2\n' },
    args: ['-c', '{home}/other.py'],
  }),
  workers(2, { name: '-c file:', files: { 'other.py': 'workers = 2\n' }, args: ['-c', 'file:{home}/other.py'] }),
  workers(2, {
    name: '-c python:',
    files: { 'confmodule.py': 'workers = 2\n' },
    args: ['-c', 'python:confmodule'],
    env: { PYTHONPATH: '{home}' },
  }),
  workers(2, {
    name: '-c in GUNICORN_CMD_ARGS',
    files: { 'other.py': 'workers = 2\n' },
    env: { GUNICORN_CMD_ARGS: '-c {home}/other.py' },
  }),
  workers(2, {
    name: 'the file computes',
    files: {
      [FILE]:
        'import multiprocessing, os\nworkers = min(2, multiprocessing.cpu_count() * 2 + 1)\nraw_env = ["PARITY=" + os.environ["WANTED"]]\n',
    },
    env: { WANTED: 'seen' },
  }),
  workers(1, { name: 'unknown names in the file', files: { [FILE]: 'workerz = 5\nmy_helper = 3\n' } }),
  workers(1, { name: 'names in upper case in the file', files: { [FILE]: 'WORKERS = 2\n' } }),
  workers(1, { name: 'None in the file', files: { [FILE]: 'user = None\naccesslog = None\n' } }),
  workers(1, {
    name: 'a list from the command line replaces that of the file',
    files: { [FILE]: 'raw_env = ["PARITY=a", "PARITY_TWO=b"]\n' },
    args: ['-e', 'PARITY=c'],
  }),
  workers(2, { name: 'a number as text in the file', files: { [FILE]: 'workers = "2"\n' } }),
  workers(2, { name: 'a hexadecimal number in the file', files: { [FILE]: 'workers = "0x2"\n' } }),
  workers(1, { name: 'wsgi_app of the file', app: '', files: { [FILE]: 'wsgi_app = "environment:application"\n' } }),
  {
    name: 'nunicorn.config.json beside gunicorn.conf.py',
    options: {
      app: 'environment:application',
      files: { [FILE]: 'workers = 1\n', 'nunicorn.config.json': '{ "workers": 2 }\n' },
    },
    run: async (server) => (await serves(server, server.kind === 'nunicorn' ? 2 : 1)).slice(0, 1),
    differs: { nunicorn: 'is read instead', gunicorn: 'does not know it', why: 'A file of its own' },
  },
  workers(1, {
    name: 'the app of the command line before wsgi_app',
    files: { [FILE]: 'wsgi_app = "no_such:application"\n' },
  }),
  workers(2, { name: '-w2', args: ['-w2'] }),
  workers(2, { name: '--workers=2', args: ['--workers=2'] }),
  workers(2, { name: 'an unambiguous beginning of a flag', args: ['--preloa', '--workers=2'] }),
  workers(1, { name: 'a flag twice', args: ['-w', '3', '-w', '1'] }),
  refused({ name: 'a wrong value in the file', files: { [FILE]: 'workers = "many"\n' } }),
  refused({ name: 'a negative number in the file', files: { [FILE]: 'workers = -1\n' } }),
  refused({ name: 'a syntax error in the file', files: { [FILE]: 'workers = = 2\n' } }),
  refused({ name: 'an exception in the file', files: { [FILE]: '1 / 0\n' } }),
  refused({ name: 'an unknown flag in GUNICORN_CMD_ARGS', env: { GUNICORN_CMD_ARGS: '--no-such-flag' } }),
  refused({ name: 'raw_env without =', args: ['-e', 'NOTHING'] }),
]);
