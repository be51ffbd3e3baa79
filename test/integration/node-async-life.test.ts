// The life of the workers of a Node app under -k async: reload, recycling, readiness, the end.
import { strict as assert } from 'node:assert';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { isListening } from '../helpers/ports.ts';
import { finishing, Server, type ServerOptions, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const skip = !NUNICORN_RUNS;
const APP = './node/listener.cjs';

describe('life of the workers', { skip }, () => {
  it('HUP under load loses nothing', async () => {
    await withServer({ app: APP, workers: 2 }, async (server) => {
      const before = server.workers();
      const loads = [true, false].map(
        (keepAlive) => new Load({ address: server.address, clients: 4, path: '/cpu', keepAlive }),
      );
      for (let time = 1; time <= 3; time++) {
        server.kill('SIGHUP');
        await until(() => server.log.split('Booting worker').length > 2 * (time + 1), 'new workers', 20_000);
        await until(() => server.workers().length === 2, 'two workers', 20_000);
      }
      for (const load of loads) assert.deepEqual([...(await load.stop()).keys()], ['200']);
      assert.deepEqual(
        server.workers().filter((pid) => before.includes(pid)),
        [],
      );
    });
  });

  it('--max-requests replaces workers and loses nothing', async () => {
    await withServer({ app: APP, workers: 2, args: ['--max-requests', '50'] }, async (server) => {
      const load = new Load({ address: server.address, clients: 4, keepAlive: true });
      await until(() => server.log.split('Booting worker').length > 6, 'workers after the first ones', 30_000);
      assert.deepEqual([...(await load.stop()).keys()], ['200']);
      assert.match(server.log, /is replaced: it has answered --max-requests requests/);
    });
  });

  it('TERM waits for what runs and lets idle connections go', async () => {
    await withServer({ app: APP }, async (server) => {
      const idle = await server.connect();
      await idle.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
      const running = server.get('/hold', '', 20_000);
      await server.marked('held');
      server.kill('SIGTERM');
      await idle.end();
      server.mark('go-on');
      assert.equal((await running).text(), 'went on');
      assert.equal((await server.exit()).code, 0);
    });
  });

  it('--wait-ready: not before the app says so; onShutdown runs at the end', async () => {
    const options: ServerOptions = { app: './node/hooks.mjs', args: ['--wait-ready'] };
    await finishing(await Server.spawn(options), async (server) => {
      await server.marked('imported');
      assert.doesNotMatch(server.log, /Listening at/);
      await sleep(300); // it would listen at once
      assert.equal(await isListening(server.address), false);
      server.mark('be-ready');
      await server.ready();
      await server.stop();
      assert.ok(server.hasMark('shut-down'));
    });
  });

  for (const [what, happens, log] of [
    ['fails', "throw new Error('no database')", /Exception in worker process\nError: no database/],
    ['closes its server', 'server.close()', /The application has closed its server before it was ready/],
  ] as const) {
    it(`--wait-ready: a program that listens and ${what} before it is ready has not booted`, async () => {
      const app = `const server = require('node:http').createServer().listen(1, () => setTimeout(() => { ${happens}; }, 100));`;
      const options = { app: './app.cjs', chdir: '{home}', files: { 'app.cjs': app }, args: ['--wait-ready'] };
      await finishing(await Server.spawn(options), async (server) => {
        assert.deepEqual(await server.exit(), { code: 3, signal: null });
        assert.match(server.log, log);
      });
    });
  }
  it('--wait-ready of an app that never says so: exit 3, and the log says what is missing', async () => {
    const args = ['--wait-ready', '--boot-timeout', '2'];
    const server = await Server.spawn({ app: './node/hooks.mjs', args });
    await finishing(server, async () => {
      assert.deepEqual(await server.exit(), { code: 3, signal: null }, server.output);
      assert.match(
        server.log,
        /did not boot within 2 s .*\n\(--wait-ready: a worker is ready when its app calls ready\(\)/,
      );
    });
  });

  it('HUP and SIGTERM while a worker is not ready yet: what it has begun is answered', async () => {
    const app = `import { existsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
createServer((_, response) => {
  writeFileSync('running', '');
  const timer = setInterval(() => {
    if (!existsSync('go-on')) return;
    clearInterval(timer);
    response.end('went on');
  }, 10);
}).listen(1);
`;
    for (const signal of ['SIGHUP', 'SIGTERM'] as const) {
      const files = { 'app.mjs': app };
      const options: ServerOptions = { app: './app.mjs', chdir: '{home}', files, args: ['--wait-ready'] };
      await finishing(await Server.spawn(options), async (server) => {
        const connection = await until(async () => await server.connect().catch(() => null), 'a connection');
        await connection.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
        await server.marked('running');
        server.kill(signal);
        await server.waitForLog(signal === 'SIGHUP' ? /Hang up: Master[\s\S]*Booting worker/ : /Handling signal: term/);
        server.mark('go-on');
        assert.equal((await connection.response()).text(), 'went on');
        connection.close();
      });
    }
  });

  it('--stagger boots one worker after the other', async () => {
    const options: ServerOptions = { app: './node/hooks.mjs', workers: 3, args: ['--wait-ready', '--stagger'] };
    await finishing(await Server.spawn(options), async (server) => {
      await server.marked('imported');
      await until(() => server.workers().length === 1, 'the first worker, alone');
      server.mark('be-ready');
      await server.ready();
    });
  });
});
