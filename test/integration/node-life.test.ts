// What the master does for the workers of any app, with Node apps of each kind.
import { strict as assert } from 'node:assert';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { finishing, Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const skip = !NUNICORN_RUNS;
const APP = './node/listener.cjs';
const KINDS: readonly (readonly string[])[] = [
  ['-k', 'async'],
  ['-k', 'async', '--threads', '2'],
  ['-k', 'gthread', '--threads', '2'],
];

for (const kind of KINDS) {
  describe(kind.join(' '), { skip }, () => {
    it('a worker that keeps 1 MB a request is replaced and no request is lost', async () => {
      const limits = ['--memory-limit', '250', '--min-worker-lifetime', '0'];
      await withServer({ app: APP, args: [...kind, ...limits] }, async (server) => {
        const before = server.workers();
        const load = new Load({ address: server.address, clients: 1, keepAlive: true, path: '/keep?1000000' });
        await server.waitForLog(/is replaced: it uses more than --memory-limit/, { ms: 60_000 });
        await until(() => before.every((pid) => !server.workers().includes(pid)), 'the worker to go', 30_000);
        assert.deepEqual([...(await load.stop()).keys()], ['200'], load.describe());
      });
    });

    it('SIGTERM finishes what waits in the listening queue', async () => {
      await withServer({ app: APP, args: kind }, async (server) => {
        await server.answersListeningQueue(server.workers(), 'SIGTERM');
        assert.deepEqual(await server.exit(), { code: 0, signal: null });
      });
    });

    it('SIGTERM finishes a request whose head has begun to come', async () => {
      await withServer({ app: APP, args: kind }, async (server) => {
        const begun = await server.connect();
        await begun.send('GET / HTTP/1.1\r\nHo');
        const idle = await server.connect();
        await server.get(); // both were accepted before it
        server.kill('SIGTERM');
        assert.equal(await idle.end(), 'fin');
        await begun.send('st: test\r\n\r\n');
        assert.equal((await begun.response()).status, 200);
        for (const connection of [idle, begun]) connection.close();
        assert.deepEqual(await server.exit(), { code: 0, signal: null });
      });
    });

    it('an app ends itself by SIGTERM, if it finds nobody else who listens, whatever else it runs', async () => {
      const app = `const listening = () => {
  if (process.listenerCount('SIGTERM') > 1) return;
  process.off('SIGTERM', listening);
  process.kill(process.pid, 'SIGTERM');
};
process.on('SIGTERM', listening);
setInterval(() => {}, 1000);
module.exports = (_, response) => response.end('hello');
`;
      const files = { 'app.cjs': app };
      const args = [...kind, '--graceful-timeout', '300', '--access-logfile', '{home}/access.log'];
      await withServer({ app: './app.cjs', chdir: '{home}', files, args }, async (server) => {
        await server.get('/asked');
        server.kill('SIGTERM');
        assert.deepEqual(await server.exit(), { code: 0, signal: null });
        assert.match(readFileSync(join(server.home, 'access.log'), 'utf8'), /GET \/asked /);
      });
    });

    it('what the app hears as uncaught is its own, and it finds nobody else who listens', async () => {
      const app = `let waiting;
const heard = () => waiting.end(String(process.listenerCount('uncaughtException')));
process.on('uncaughtException', heard);
module.exports = (request, response) => {
  waiting = response;
  if (request.url === '/last') process.off('uncaughtException', heard);
  if (request.url === '/') response.end('hello');
  else setTimeout(() => { throw new Error('thrown'); });
};
`;
      await withServer({ app: './app.cjs', chdir: '{home}', files: { 'app.cjs': app }, args: kind }, async (server) => {
        for (let time = 1; time <= 3; time++) assert.equal((await server.get('/throw')).text(), '1');
        assert.doesNotMatch(server.log, /Uncaught/);
        assert.equal((await server.get('/last', '', 20_000)).status, 502);
        assert.match(server.log, /Uncaught error in the application.*\nError: thrown/);
      });
    });

    it('an app that fails at its own end has ended', async () => {
      const app = `process.on('SIGTERM', async () => { throw new Error('no goodbye'); });
setInterval(() => {}, 1000);
module.exports = (_, response) => response.end('hello');
`;
      const args = [...kind, '--graceful-timeout', '300'];
      await withServer({ app: './app.cjs', chdir: '{home}', files: { 'app.cjs': app }, args }, async (server) => {
        server.kill('SIGTERM');
        assert.deepEqual(await server.exit(), { code: 0, signal: null });
        assert.match(server.log, /Uncaught error in the application.*\nError: no goodbye/);
      });
    });

    it('--wait-ready: of an app that never says that it is ready the log says that it is imported', async () => {
      const options = { app: APP, args: [...kind, '--wait-ready', '--boot-timeout', '5'] };
      await finishing(await Server.spawn(options), async (server) => {
        assert.equal((await server.exit()).code, 3);
        assert.match(
          server.log,
          /it hangs while making itself ready \(spawned, connected .*, app imported after [^,]*\)/,
        );
      });
    });

    it('exit handlers of the app run', async () => {
      const app = `const { threadId } = require('node:worker_threads');
const { writeFileSync } = require('node:fs');
process.on('exit', (code) => writeFileSync('exited-' + threadId, String(code)));
module.exports = (_, response) => response.end('hello');
`;
      await withServer({ app: './app.cjs', chdir: '{home}', files: { 'app.cjs': app }, args: kind }, async (server) => {
        await server.stop();
        const marks = kind.includes('--threads') ? ['exited-1', 'exited-2'] : ['exited-0'];
        for (const mark of marks) assert.equal(readFileSync(join(server.home, mark), 'utf8'), '0');
      });
    });

    it('TTIN and TTOU add a worker and take one away, and no request is lost', async () => {
      await withServer({ app: APP, args: kind }, async (server) => {
        const load = new Load({ address: server.address, clients: 4, keepAlive: false });
        for (const [signal, count] of [
          ['SIGTTIN', 2],
          ['SIGTTOU', 1],
        ] as const) {
          server.kill(signal);
          await until(() => server.workers().length === count, `${count} workers`, 30_000);
          await load.more(50);
        }
        assert.deepEqual([...(await load.stop()).keys()], ['200'], load.describe());
      });
    });

    it('USR1 to all processes opens the access log anew, and no debugger', async () => {
      await withServer({ app: APP, args: [...kind, '--access-logfile', '{home}/access.log'] }, async (server) => {
        const file = join(server.home, 'access.log');
        const lines = (): string => (existsSync(file) ? readFileSync(file, 'utf8') : '');
        await server.get('/first');
        await until(() => lines().includes('"GET /first '), 'the first line');
        renameSync(file, `${file}.1`);
        const workers = server.workers();
        for (const { pid } of server.processes()) process.kill(pid, 'SIGUSR1');
        await until(async () => {
          await server.get('/second');
          return lines().includes('"GET /second ');
        }, 'a line in the new file');
        assert.ok(!lines().includes('/first'));
        assert.deepEqual(server.workers(), workers);
        assert.doesNotMatch(server.output, /Debugger listening/);
      });
    });
  });
}
