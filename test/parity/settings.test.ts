// Settings that mean something else, or nothing, to the other server.
import { until } from '../helpers/deadline.ts';
import type { Server } from '../helpers/server.ts';
import { type Differs, onNewServers, type Scenario, type Transcript } from './parity.ts';

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
  readonly differs?: Differs;
}

function scenario({ name, app = APP, args, files, env, differs }: Case): Scenario {
  const options = { app, ...(args && { args }), ...(files && { files }), ...(env && { env }) };
  return { name, options, run: outcome, ...(differs && { differs }) };
}

const MACHINE = "The host's processors are not the container's";

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
    name: 'ssl_context',
    args: ['-c', '{home}/gunicorn.conf.py'],
    files: { 'gunicorn.conf.py': 'def ssl_context(config, default): return default()\n' },
    differs: { nunicorn: 'is refused', gunicorn: 'is called where there is a certificate', why: "TLS is Node's" },
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
  scenario({
    name: '--worker-connections, --worker-class sync',
    args: ['--worker-connections', '10', '-k', 'sync'],
  }),
]);
