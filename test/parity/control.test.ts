// Gunicorn's own gunicornc against both servers: the fields of each answer, and what a command does.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { until } from '../helpers/deadline.ts';
import { VENV_BIN } from '../helpers/paths.ts';
import type { Server } from '../helpers/server.ts';
import { normalise, onNewServers, type Scenario, type Transcript } from './parity.ts';

const run = promisify(execFile);
const OPTIONS = { app: 'wsgi_matrix:application', workers: 2, args: ['--control-socket', '{home}/app.ctl'] };

async function ask(server: Server, command: string): Promise<Record<string, unknown>> {
  const { stdout } = await run(join(VENV_BIN, 'gunicornc'), ['-s', join(server.home, 'app.ctl'), '-j', '-c', command], {
    timeout: 30_000,
  });
  return JSON.parse(stdout) as Record<string, unknown>;
}

/** Names and kinds of what is in an answer; further fields are allowed where Gunicorn's client shows none. */
function shape(answer: Record<string, unknown>, only: readonly string[]): Transcript {
  return only.map((name) => {
    const value = answer[name];
    return `${name}: ${Array.isArray(value) ? 'list' : value === null ? 'null' : typeof value}`;
  });
}

function scenario(name: string, run_: (server: Server) => Promise<Transcript>): Scenario {
  return {
    name,
    options: OPTIONS,
    run: async (server) => {
      await server.ready();
      // Gunicorn's comes after its first answers.
      await server.waitForLog(/Control socket listening/);
      return (await run_(server)).map((line) => normalise(line, server));
    },
  };
}

async function workers(server: Server, count: number): Promise<void> {
  await until(
    () => server.workers().length === count,
    () => `${count} workers\n${server.output}`,
    30_000,
  );
}

onNewServers('control', OPTIONS, [
  scenario('log line of the socket', async (server) => {
    return server.log.split('\n').filter((line) => line.includes('Control socket'));
  }),
  scenario('show workers', async (server) => {
    const answer = await ask(server, 'show workers');
    const [first] = answer.workers as Record<string, unknown>[];
    return [`count: ${answer.count}`, ...shape(first ?? {}, ['pid', 'age', 'booted', 'aborted'])];
  }),
  scenario('show stats', async (server) => {
    const answer = await ask(server, 'show stats');
    const exact = ['workers_current', 'workers_target', 'workers_spawned', 'workers_killed', 'reloads'];
    return [
      ...exact.map((name) => `${name}: ${answer[name]}`),
      ...shape(answer, ['uptime', 'pid', 'dirty_arbiter_pid']),
    ];
  }),
  scenario('show all', async (server) => {
    const answer = await ask(server, 'show all');
    return [
      `web_worker_count: ${answer.web_worker_count}`,
      ...shape(answer, ['arbiter', 'web_workers', 'dirty_arbiter', 'dirty_workers']),
    ];
  }),
  scenario('show listeners', async (server) => {
    const answer = await ask(server, 'show listeners');
    const [first] = answer.listeners as Record<string, unknown>[];
    return [`count: ${answer.count}`, `address: ${first?.address}`, `type: ${first?.type}`];
  }),
  scenario('show config', async (server) => {
    const answer = await ask(server, 'show config');
    return ['workers', 'threads', 'timeout', 'graceful_timeout', 'keepalive'].map((name) => `${name}: ${answer[name]}`);
  }),
  scenario('show dirty', async (server) => [JSON.stringify(await ask(server, 'show dirty'))]),
  scenario('worker add and remove', async (server) => {
    const lines = [JSON.stringify(await ask(server, 'worker add 1'))];
    await workers(server, 3);
    lines.push(JSON.stringify(await ask(server, 'worker remove 2')));
    await workers(server, 1);
    return lines;
  }),
  scenario('worker kill', async (server) => {
    const [pid] = server.workers();
    const answer = await ask(server, `worker kill ${pid}`);
    await until(() => !server.workers().includes(pid ?? 0), 'its end');
    await workers(server, 2);
    return [`success: ${answer.success}`, `killed: ${answer.killed === pid}`];
  }),
  scenario('worker kill of nobody', async (server) => [JSON.stringify(await ask(server, 'worker kill 1'))]),
  scenario('reload', async (server) => {
    const before = server.workers();
    const answer = await ask(server, 'reload');
    await until(
      () => server.workers().length === 2 && server.workers().every((pid) => !before.includes(pid)),
      () => `new workers\n${server.output}`,
      30_000,
    );
    return [JSON.stringify(answer)];
  }),
  scenario('shutdown', async (server) => {
    const answer = await ask(server, 'shutdown quick');
    return [JSON.stringify(answer), `exit code ${(await server.exit(40_000)).code}`];
  }),
]);
