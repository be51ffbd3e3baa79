// --statsd-host: what Gunicorn sends for a scenario, nunicorn sends too.
import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { KINDS, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { freePort } from '../helpers/ports.ts';
import { type Kind, Server, withServer } from '../helpers/server.ts';

/** Why nothing can be sent to a Unix socket here: npm builds unix-dgram where it finds a compiler, and for one version of Node. */
function noUnixDgram(): string | false {
  try {
    createRequire(import.meta.resolve('hot-shots'))('unix-dgram');
    return false;
  } catch (error) {
    return `unix-dgram: ${(error as NodeJS.ErrnoException).code}`;
  }
}

/** A statsd server that keeps the lines it gets. */
class Listener {
  readonly socket: Socket;
  readonly lines: string[] = [];

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('message', (datagram) => this.lines.push(...datagram.toString('ascii').split('\n').filter(Boolean)));
  }

  static async open(): Promise<Listener> {
    const socket = createSocket('udp4');
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    return new Listener(socket);
  }

  get port(): number {
    return this.socket.address().port;
  }

  /** Each line without what differs from run to run. */
  shapes(): string[] {
    return this.lines
      .map((line) => line.replace(/(gunicorn\.request\.duration:)[\d.]+\|/, '$1N|'))
      .filter((line) => /gunicorn\.request|app\./.test(line));
  }

  count(shape: string): number {
    return this.shapes().filter((line) => line === shape).length;
  }
}

/** A statsd server at a Unix socket, which Node's own modules cannot be. */
class UnixListener {
  readonly lines: string[] = [];
  private readonly child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.child = child;
  }

  static async open(path: string): Promise<UnixListener> {
    const child = spawn('python3', ['-c', UNIX_LISTENER, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    const listener = new UnixListener(child);
    createInterface({ input: child.stdout }).on('line', (line) => listener.lines.push(line));
    await until(() => listener.lines.shift() === 'listens', 'the Unix socket');
    return listener;
  }

  /** Its socket is gone too. */
  async close(): Promise<void> {
    this.child.kill('SIGTERM');
    await once(this.child, 'exit');
  }
}

const UNIX_LISTENER = `
import os, signal, socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.bind(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
print("listens", flush=True)
try:
    while True:
        print(sock.recv(65536).decode("ascii").rstrip(), flush=True)
finally:
    os.unlink(sys.argv[1])
`;

/** `names`: what the names begin with then. */
async function scenario(kind: Kind, prefix: string, names: string): Promise<{ shapes: string[]; lines: string[] }> {
  const listener = await Listener.open();
  const args = [
    '--statsd-host',
    `127.0.0.1:${listener.port}`,
    '--statsd-prefix',
    prefix,
    '--dogstatsd-tags',
    'a:b,c:d',
  ];
  args.push('--enable-backlog-metric', '--config', join(FIXTURES, 'statsd_hooks.py'));
  try {
    await withServer({ kind, app: 'pathology.faults:application', args }, async (server) => {
      await until(
        () => listener.lines.some((line) => line.includes('gunicorn.request.status.200')),
        'the first request',
      );
      // The requests of the start are over.
      listener.lines.length = 0;
      for (let i = 0; i < 3; i++) await server.get('/pid');
      await server.get('/warn');
      await server.get('/nothing-here');
      await until(
        () =>
          listener.count(`${names}gunicorn.requests:1|c|@1.0|#a:b,c:d`) === 5 &&
          listener.lines.some((line) => line.startsWith(`${names}gunicorn.backlog`)) &&
          listener.count(`${names}app.pay:1.5|ms|#a:b,c:d`) === 1,
        () => `the scenario's lines\n${listener.lines.join('\n')}`,
      );
    });
    return { shapes: listener.shapes().sort(), lines: listener.lines };
  } finally {
    listener.socket.close();
  }
}

describe('statsd', () => {
  const prefixes = [
    ['shop', 'shop.'],
    ['shop.', 'shop.'],
    ['x', 'x'], // Gunicorn puts no point behind a single letter
  ] as const;
  for (const [prefix, names] of prefixes) {
    const skip = !NUNICORN_RUNS || !KINDS.includes('gunicorn');
    it(`gets the lines that Gunicorn sends with the prefix ${prefix}`, { skip }, async () => {
      const gunicorn = await scenario('gunicorn', prefix, names);
      const nunicorn = await scenario('nunicorn', prefix, names);
      assert.deepEqual(nunicorn.shapes, gunicorn.shapes);
      // How often these come differs; that they come, and of which type they are, does not.
      for (const line of gunicorn.lines) {
        const name = line.slice(0, line.indexOf(':'));
        const [, type] = line.split('|');
        const tags = line.slice(line.indexOf('|#'));
        const same = nunicorn.lines.find((other) => other.startsWith(`${name}:`));
        assert(same !== undefined, `${line} of Gunicorn`);
        assert.equal(same.split('|')[1], type, line);
        assert(same.endsWith(tags), `${same} and ${line}`);
      }
    });
  }

  it('gets metrics of nunicorn under the same prefix', { skip: !NUNICORN_RUNS }, async () => {
    const listener = await Listener.open();
    const args = ['--statsd-host', `127.0.0.1:${listener.port}`, '--statsd-prefix', 'shop.'];
    await withServer({ app: 'pathology.faults:application', args }, async (server) => {
      await server.get('/os-exit');
      await until(
        () =>
          [
            'nunicorn.worker.exits.crash:1|c|@1.0',
            'nunicorn.slots.idle:1|g',
            'gunicorn.workers:1|g',
            'gunicorn.log.error:1|c|@1.0',
          ].every((line) => listener.lines.includes(`shop.${line}`)),
        () => listener.lines.join('\n'),
      );
    });
    listener.socket.close();
  });

  const skip = !NUNICORN_RUNS || noUnixDgram();
  it('at a Unix socket gets the same lines, also when it comes late or again', { skip }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'statsd-'));
    const path = join(folder, 'statsd.sock');
    const args = ['--statsd-host', `unix://${path}`, '--statsd-prefix', 'shop', '--dogstatsd-tags', 'a:b'];
    try {
      await withServer({ app: 'pathology.faults:application', args }, async (server) => {
        await until(() => /statsd at unix:\/\/\S+ cannot be reached \(ENOENT\)/.test(server.log), 'the warning');
        for (let turn = 0; turn < 2; turn++) {
          const listener = await UnixListener.open(path);
          await until(
            async () => {
              assert.equal((await server.get('/pid')).status, 200);
              return [
                'shop.gunicorn.requests:1|c|@1.0|#a:b',
                'shop.gunicorn.request.status.200:1|c|@1.0|#a:b',
                // Gauges that do not change come every 10 s.
                ...(turn === 0 ? ['shop.gunicorn.workers:1|g|#a:b'] : []),
              ].every((line) => listener.lines.includes(line));
            },
            () => `lines of a request\n${listener.lines.join('\n')}\n${server.log}`,
          );
          assert(listener.lines.some((line) => /^shop\.gunicorn\.request\.duration:[\d.]+\|ms\|#a:b$/.test(line)));
          await listener.close();
        }
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  const refusals = [
    { problem: 'there is no unix-dgram', code: 'MODULE_NOT_FOUND', told: /unix-dgram.*it is not there: npm install/ },
    {
      problem: 'it is of another Node',
      code: 'ERR_DLOPEN_FAILED',
      told: /unix-dgram.*built for another version of Node/,
    },
  ];
  for (const { problem, code, told } of refusals) {
    it(`at a Unix socket is refused where ${problem}`, { skip: !NUNICORN_RUNS }, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'statsd-'));
      try {
        const without = join(folder, 'without.cjs');
        writeFileSync(
          without,
          `const Module = require('node:module');
const resolve = Module._resolveFilename;
Module._resolveFilename = function (name, ...rest) {
  if (name === 'unix-dgram') throw Object.assign(new Error('no unix-dgram'), { code: '${code}' });
  return resolve.call(this, name, ...rest);
};`,
        );
        const server = await Server.spawn({
          app: 'pathology.faults:application',
          args: ['--statsd-host', 'unix:///run/statsd.sock'],
          env: { NODE_OPTIONS: `--require ${without}` },
        });
        assert.equal((await server.exit()).code, 1);
        assert.match(server.log, /--statsd-host unix:\/\/\/run\/statsd\.sock: /);
        assert.match(server.log, told);
      } finally {
        rmSync(folder, { recursive: true });
      }
    });
  }

  it('that is not there costs nothing and is told of once', { skip }, async () => {
    const args = ['--statsd-host', 'unix:///nowhere/statsd.sock'];
    await withServer({ app: 'pathology.faults:application', args }, async (server) => {
      for (let i = 0; i < 20; i++) assert.equal((await server.get('/')).status, 200);
      await until(() => /statsd at unix:\/\/\/nowhere\/statsd\.sock cannot be reached/.test(server.log), 'the warning');
      const told = server.log.match(/cannot be reached/g)?.length ?? 0;
      assert(told <= 2, `once for each process: ${told}\n${server.log}`);
    });
    const unknown = ['--statsd-host', 'nowhere.invalid:8125'];
    await withServer({ app: 'pathology.faults:application', args: unknown }, async (server) => {
      await server.waitForLog(/statsd at nowhere\.invalid:8125 cannot be reached \(its name is not known\); /);
    });
    const nobody = ['--statsd-host', `127.0.0.1:${await freePort()}`];
    await withServer({ app: 'pathology.faults:application', args: nobody }, async (server) => {
      for (let i = 0; i < 20; i++) assert.equal((await server.get('/')).status, 200);
    });
  });
});
