// Settings that mean something else, or nothing, to the other server.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { makeCertificates } from '../helpers/certificates.ts';
import { until } from '../helpers/deadline.ts';
import type { Server, ServerOptions } from '../helpers/server.ts';
import { logLines } from './operator.ts';
import { type Differs, onNewServers, type Scenario, type ScenarioOptions, type Transcript } from './parity.ts';

const APP = 'wsgi_matrix:application';

/** Whether it serves, with how many workers, or ends. */
async function outcome(server: Server): Promise<Transcript> {
  await until(
    async () => server.hasExited || (await server.get('/').catch(() => null))?.status === 200,
    () => `an answer or the end\n${server.output}`,
    40_000,
  );
  return [server.hasExited ? `exit code ${(await server.exit()).code}` : 'it serves'];
}

interface Case {
  readonly name: string;
  readonly app?: string;
  readonly args?: readonly string[];
  readonly files?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  readonly tls?: ServerOptions['tls'];
  readonly differs?: Differs;
}

function scenario({ name, app = APP, args, files, env, tls, differs }: Case): Scenario {
  const options = { app, ...(args && { args }), ...(files && { files }), ...(env && { env }), ...(tls && { tls }) };
  return { name, options, run: outcome, ...(differs && { differs }) };
}

const ASGI = `
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
`;
const SSL_CONTEXT = 'def ssl_context(config, default): return default()\n';
const MACHINE = "The host's processors are not the container's";

const folder = mkdtempSync(join(tmpdir(), 'parity-settings-'));
const { ca, cert, key } = makeCertificates(folder);
after(() => rmSync(folder, { recursive: true }));

onNewServers('settings', { app: APP }, [
  scenario({
    name: '--workers auto',
    args: ['--workers', 'auto'],
    differs: { nunicorn: 'as many as the machine, or the container, bears', gunicorn: 'is an error', why: MACHINE },
  }),
  scenario({
    name: '--threads auto',
    args: ['--threads', 'auto'],
    differs: { nunicorn: 'as many as the machine, or the container, bears', gunicorn: 'is an error', why: MACHINE },
  }),
  scenario({
    name: 'WEB_CONCURRENCY=auto',
    env: { WEB_CONCURRENCY: 'auto' },
    differs: { nunicorn: 'as many as the machine, or the container, bears', gunicorn: 'is an error', why: MACHINE },
  }),
  scenario({
    name: '--keepalive',
    args: ['--keepalive', '5'],
    differs: {
      nunicorn: 'is --keep-alive',
      gunicorn: 'an unknown flag',
      why: "Many guides write it, after the setting's name",
    },
  }),
  scenario({
    name: '--check-config FILE.py',
    app: '',
    args: ['--check-config', '{home}/any.conf.py'],
    files: { 'any.conf.py': 'workers = 2\n' },
    differs: {
      nunicorn: 'checks that file',
      gunicorn: 'takes it for an application',
      why: 'Guides write it; what else could be meant',
    },
  }),
  scenario({
    name: 'a file of logconfig_json that is not there',
    args: ['--log-config-json', '{home}/none.json'],
    differs: { nunicorn: 'ends the start', gunicorn: 'is ignored', why: 'It would be missed' },
  }),
  scenario({
    name: 'ssl_context, without a certificate',
    args: ['-c', '{home}/gunicorn.conf.py'],
    files: { 'gunicorn.conf.py': SSL_CONTEXT },
  }),
  scenario({
    name: 'ssl_context',
    args: ['-c', '{home}/gunicorn.conf.py', '--certfile', cert, '--keyfile', key],
    files: { 'gunicorn.conf.py': SSL_CONTEXT },
    tls: { ca: readFileSync(ca) },
    differs: { nunicorn: 'is refused', gunicorn: 'is called', why: "TLS is Node's" },
  }),
  scenario({
    name: 'HTTP/2',
    args: ['--http-protocols', 'h2'],
    differs: { nunicorn: 'is refused', gunicorn: 'serves', why: 'Not there yet' },
  }),
  {
    name: 'the Server header',
    run: async (server) => {
      await server.ready();
      return (await server.get('/')).lines.filter((text) => /^server:/i.test(text));
    },
    differs: { nunicorn: 'names nunicorn', gunicorn: 'names gunicorn', why: 'Each names itself' },
  },
  {
    name: 'the Server header, where the configuration file sets gunicorn.SERVER',
    options: {
      app: 'wsgi_matrix:application',
      args: ['-c', '{home}/gunicorn.conf.py'],
      files: { 'gunicorn.conf.py': 'import gunicorn\ngunicorn.SERVER = "hidden"\n' },
    },
    run: async (server) => {
      await server.ready();
      return (await server.get('/')).lines.filter((text) => /^server:/i.test(text));
    },
    differs: { nunicorn: 'names nunicorn', gunicorn: 'is what was set', why: "The header is the front's" },
  },
  scenario({
    name: '--pythonpath',
    app: 'beside:application',
    args: ['--pythonpath', '/no/such/folder,{home}'],
    files: { 'beside.py': 'from wsgi_matrix import application\n' },
  }),
  scenario({
    name: '--worker-connections, --worker-class sync',
    args: ['--worker-connections', '10', '-k', 'sync'],
  }),
  scenario({
    name: '-k asgi',
    app: 'asgi:application',
    args: ['-k', 'asgi', '--pythonpath', '{home}'],
    files: { 'asgi.py': ASGI },
    differs: {
      nunicorn: 'is refused, as gevent and tornado are',
      gunicorn: 'serves',
      why: "Connections are the front's: threads are for work that waits",
    },
  }),
  scenario({
    name: '--threads 0',
    args: ['--threads', '0'],
    differs: {
      nunicorn: 'is refused',
      gunicorn: 'serves as with 1',
      why: 'A number that does nothing is a mistake; gthread fails with it there too',
    },
  }),
  scenario({
    name: 'settings of its own',
    args: [
      ...['--fronts', '1', '--max-queue', '50', '--queue-timeout', '5', '--header-timeout', '5'],
      ...['--body-timeout', '5', '--response-timeout', '5', '--limit-request-body', '1000000'],
      ...['--spool-dir', '{home}', '--python', 'python3'],
    ],
    differs: { nunicorn: 'serves', gunicorn: 'knows none of them', why: 'What a front needs' },
  }),
  scenario({
    name: '--reload-engine inotify',
    args: ['--reload', '--reload-engine', 'inotify'],
    differs: { nunicorn: 'serves', gunicorn: 'needs the package inotify', why: 'Node brings it' },
  }),
  {
    name: 'a setting that has no effect',
    options: { app: APP, args: ['--worker-connections', '10'] },
    run: async (server) => [...(await outcome(server)), ...logLines(server, /worker-connections/)],
    differs: {
      nunicorn: 'says so in one line',
      gunicorn: 'serves without a word',
      why: 'Each of them says why it has none; the table in [settings.md](settings.md) has them',
    },
  },
  {
    name: '--print-config',
    options: { app: APP, args: ['--print-config', '-w', '2'], env: { WEB_CONCURRENCY: '3' } },
    run: async (server) => {
      const { code } = await server.exit(40_000);
      const found = server.stdout.split('\n').filter((text) => /^(workers|threads|preload_app) /.test(text));
      return [...found, `exit code ${code}`];
    },
    differs: {
      nunicorn: 'a configuration file, with the source of each value',
      gunicorn: 'a list',
      why: 'To be read and kept',
    },
  },
  {
    name: '--daemon, an app that cannot be imported',
    options: { app: 'no_such_module:application', args: ['--daemon'] },
    run: async (server) => [`exit code ${(await server.exit(40_000)).code}`],
    differs: {
      nunicorn: 'returns when the workers serve, or with the exit code and the reason',
      gunicorn: 'returns 0 at once',
      why: 'A script can tell whether it worked',
    },
  },
]);

/** The test's own folder is root's alone. */
const REACHABLE = ['--worker-tmp-dir', '/dev/shm'];
const USER_APP = 'user_app:application';
const skip = process.getuid?.() === 0 ? false : 'needs root';

function asDaemon(...more: readonly string[]): ScenarioOptions {
  return {
    app: USER_APP,
    args: (kind) => [
      '--user',
      'daemon',
      ...REACHABLE,
      ...(kind === 'nunicorn' ? ['--spool-dir', '/dev/shm'] : []),
      ...more,
    ],
  };
}

async function who(server: Server): Promise<Transcript> {
  await server.ready();
  return (await server.get('/')).text().split('\n');
}

onNewServers('users', { app: USER_APP }, [
  { name: '--user', skip, options: asDaemon('--group', 'daemon', '--initgroups'), run: who },
  {
    name: '--preload',
    skip,
    options: asDaemon('--group', 'daemon', '--initgroups', '--preload'),
    run: who,
    differs: {
      nunicorn: 'imports the app in a process of its own, after it has become the user',
      gunicorn: 'in the master, as root',
      why: 'The master never runs code of the app',
    },
  },
]);
