// What systemd is told from the start to the end. A Python stands for it: it has datagram sockets.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { isAlive } from '../helpers/processes.ts';
import type { Kind } from '../helpers/server.ts';
import { onNewServers, type ScenarioOptions } from './parity.ts';

const folder = mkdtempSync(join(tmpdir(), 'nt-'));
after(() => rmSync(folder, { recursive: true }));

/** Prints each message that comes to the socket, in one line. */
const MANAGER = `
import socket, sys
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(sys.argv[1])
print("bound", flush=True)
while True:
    print(notify.recv(4096).decode().replace("\\n", " "), flush=True)
`;

class Manager {
  readonly path: string;
  readonly messages: string[] = [];
  readonly process: ChildProcess;

  private constructor(path: string) {
    this.path = path;
    const child = spawn('python3', ['-c', MANAGER, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    createInterface({ input: child.stdout }).on('line', (line) => this.messages.push(line));
    this.process = child;
  }

  static async open(kind: Kind): Promise<Manager> {
    const manager = new Manager(join(folder, kind));
    await until(() => manager.messages.length > 0, 'the socket');
    manager.messages.length = 0;
    return manager;
  }

  /** What has come, and no more is kept. */
  take(): string[] {
    return this.messages.splice(0).map((message) => message.replace(/MONOTONIC_USEC=\d+/, 'MONOTONIC_USEC=N'));
  }

  has(pattern: RegExp): boolean {
    return this.messages.some((message) => pattern.test(message));
  }
}

const managers: Record<Kind, Manager> = {
  gunicorn: await Manager.open('gunicorn'),
  nunicorn: await Manager.open('nunicorn'),
};
after(() => {
  for (const { process: manager } of Object.values(managers)) manager.kill();
});

/** They share the two managers. */
const ONE_AFTER_THE_OTHER = 1;
const LONG_MS = 30_000;

/** `args`: see Server. */
function managed(...args: readonly string[]): ScenarioOptions {
  return { app: 'wsgi_matrix:application', args, env: (kind) => ({ NOTIFY_SOCKET: managers[kind].path }) };
}

onNewServers(
  'systemd',
  { app: 'wsgi_matrix:application' },
  [
    {
      name: 'start, HUP, SIGTERM',
      options: managed(),
      run: async (server) => {
        const manager = managers[server.kind];
        await server.ready();
        await until(() => manager.has(/READY=1/), 'READY', LONG_MS);
        const before = server.workers();
        server.kill('SIGHUP');
        await until(() => server.workers().length === 1 && !before.includes(server.workers()[0] ?? 0), 'HUP', LONG_MS);
        if (server.kind === 'nunicorn') await server.waitForLog(/Reloaded: /, { ms: LONG_MS });
        server.kill('SIGTERM');
        await server.exit(40_000);
        if (server.kind === 'nunicorn') await until(() => manager.has(/STOPPING=1/), 'STOPPING', LONG_MS);
        return manager.take();
      },
      differs: {
        nunicorn: 'hears when the workers are ready, of the reload and of the stop',
        gunicorn: 'hears once, before any worker is started',
        why: 'Who waits for READY wants to be served',
      },
    },
    {
      name: 'USR2, then the end of the old master',
      options: managed('--pid', '{home}/server.pid'),
      run: async (server) => {
        const manager = managers[server.kind];
        await server.ready();
        server.kill('SIGUSR2');
        const file = join(server.home, 'server.pid.2');
        await until(
          () => server.workers().length === 2 && existsSync(file),
          () => `the worker of the new master\n${server.output}`,
          LONG_MS,
        );
        const next = Number(readFileSync(file, 'utf8'));
        server.kill('SIGTERM');
        await server.exit(40_000);
        if (server.kind === 'nunicorn') await until(() => manager.has(/MAINPID=/), 'MAINPID', LONG_MS);
        process.kill(next, 'SIGTERM');
        await until(() => !isAlive(next), 'the end of the new master', 2 * LONG_MS);
        return [manager.take().some((message) => message.includes(`MAINPID=${next}`)) ? 'MAINPID' : 'no MAINPID'];
      },
      differs: {
        nunicorn: "the service's main process follows",
        gunicorn: 'systemd loses it',
        why: 'An upgrade is no failure',
      },
    },
  ],
  ONE_AFTER_THE_OTHER,
);
