// --admin-bind of a Node app: its workers count and report as the fronts of a Python app do.
import { strict as assert } from 'node:assert';
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import type { Status } from '../../src/metrics/status.ts';
import { Admin, wentBack } from '../helpers/admin.ts';
import { until } from '../helpers/deadline.ts';
import type { Connection } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { NUNICORN } from '../helpers/paths.ts';
import { type Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const skip = !NUNICORN_RUNS;
const APP = './node/listener.cjs';
const ANSWERED = 'nunicorn_requests_total{code_class="2xx",outcome="answered"}';

const counted = (codeClass: string, outcome: string): string =>
  `nunicorn_requests_total{code_class="${codeClass}",outcome="${outcome}"}`;

async function send(server: Server, path: string): Promise<Connection> {
  const connection = await server.connect();
  await connection.send(`GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
  return connection;
}

for (const [kind, threads] of [
  ['async', 1],
  ['async', 2],
  ['gthread', 2],
] as const) {
  describe(`${kind}, ${threads} threads`, { skip }, () => {
    it('every request is counted once, by what became of it', async () => {
      const admin = await Admin.choose();
      await withServer({ app: APP, threads, args: [...admin.args, '-k', kind, '--timeout', '1'] }, async (server) => {
        assert.doesNotMatch(server.log, /admin_bind/);
        assert.equal((await admin.get('/readyz')).status, 200);
        const before = (await admin.scrape()).get(ANSWERED) ?? 0;
        for (let i = 0; i < 7; i++) assert.equal((await server.get('/')).status, 200);
        assert.equal((await server.get('/not-modified')).status, 304);
        assert.equal((await server.get('/throw')).status, 500);
        assert.equal((await server.get('/never')).status, 504);
        await admin.reaches(ANSWERED, before + 7);
        await admin.reaches(counted('3xx', 'answered'), 1);
        await admin.reaches(counted('5xx', 'app_error'), 1);
        await admin.reaches(counted('5xx', 'timeout'), 1);
        const invalid = await server.connect();
        await invalid.send('NOT HTTP\r\n\r\n');
        assert.equal((await invalid.response()).status, 400);
        await admin.reaches(counted('4xx', 'refused'), 1);
        const leaving = await send(server, '/stream');
        await leaving.readThrough('first\n');
        leaving.reset();
        await admin.reaches(counted('2xx', 'client_left'), 1);
        const scrape = await admin.scrape();
        assert.equal(scrape.get('nunicorn_client_disconnects_total'), 1);
        assert.ok((scrape.get('nunicorn_client_connections_accepted_total') ?? 0) >= 12);
        assert.ok((scrape.get('nunicorn_worker_requests_total{worker="1"}') ?? 0) >= before + 9);
        assert.ok((scrape.get('nunicorn_process_cpu_seconds_total{process="worker"}') ?? 0) > 0);
        assert.ok((scrape.get('nunicorn_worker_busy_seconds_total{worker="1"}') ?? 0) > 0);
      });
    });

    it('says what runs, and where', async () => {
      const admin = await Admin.choose();
      await withServer({ app: APP, threads, args: [...admin.args, '-k', kind] }, async (server) => {
        const held = await send(server, '/hold?secret');
        await server.marked('held');
        // A worker that does not report in time, on a busy machine, is named as silent.
        const requests = await until(async () => {
          const answer = await admin.requests();
          return answer.silentFronts.length === 0 && answer.requests;
        }, 'the worker to report');
        assert.equal(requests.length, 1);
        const [request] = requests;
        assert.deepEqual(
          [request?.method, request?.path, request?.client, request?.phase, request?.worker],
          ['GET', '/hold', '127.0.0.1', 'running', 1],
        );
        assert.ok(request?.thread === 1 || (threads === 2 && request?.thread === 2));
        const status = await admin.status();
        const slots = status.workers.map(({ slots }) => slots.toSorted());
        assert.deepEqual(slots, [threads === 1 ? ['busy'] : ['busy', 'idle']]);
        assert.deepEqual(
          [status.server.python, status.fronts.length, status.fronts[0]?.pid, status.fronts[0]?.connections],
          [null, 1, status.workers[0]?.pid, 1],
        );
        server.mark('go-on');
        assert.equal((await held.response()).status, 200);
        held.close();
        assert.deepEqual((await admin.requests()).requests, []);
      });
    });

    it('nunicorn ctl shows it, and a statsd server hears of each request', async () => {
      const statsd = createSocket('udp4');
      const lines: string[] = [];
      statsd.on('message', (datagram) => lines.push(...datagram.toString('latin1').split('\n')));
      statsd.bind(0, '127.0.0.1');
      await once(statsd, 'listening');
      const more = ['--control-socket', '{home}/app.ctl', '--statsd-host', `127.0.0.1:${statsd.address().port}`];
      try {
        await withServer({ app: APP, threads, args: [...more, '-k', kind] }, async (server) => {
          assert.equal((await server.get('/cookies')).status, 201);
          assert.equal((await server.get('/throw')).status, 500);
          const held = await send(server, '/hold');
          await server.marked('held');
          const words = [NUNICORN, 'ctl', '-s', join(server.home, 'app.ctl'), 'show', 'requests'];
          // A worker that does not report in time, on a busy machine, is left out.
          await until(async () => {
            const { stdout } = await promisify(execFile)(process.execPath, words, { timeout: 30_000 });
            return /GET.*\/hold/.test(stdout);
          }, 'the request in the list');
          server.mark('go-on');
          assert.equal((await held.response()).status, 200);
          held.close();
          const count = (line: string): number => lines.filter((one) => one === line).length;
          await until(
            () =>
              count('gunicorn.request.status.201:1|c|@1.0') === 1 &&
              count('gunicorn.request.status.500:1|c|@1.0') === 1 &&
              count('gunicorn.log.error:1|c|@1.0') >= 1 &&
              count('gunicorn.workers:1|g') >= 1,
            () => `the lines of these requests\n${lines.join('\n')}`,
          );
        });
      } finally {
        statsd.close();
      }
    });

    it('a computing handler is seen in processor time and utilisation', {
      skip: process.platform !== 'linux',
    }, async () => {
      const admin = await Admin.choose();
      await withServer({ app: APP, threads, args: [...admin.args, '-k', kind] }, async (server) => {
        for (let i = 0; i < 20; i++) await server.get('/cpu'); // 20 ms each
        const scrape = await admin.scrape();
        const cpu = scrape.get('nunicorn_cpu_seconds_total{worker="1"}') ?? 0;
        const wait = scrape.get('nunicorn_cpu_wait_seconds_total{worker="1"}') ?? 0;
        assert.ok(cpu + wait >= 0.35, `${cpu} s with a processor and ${wait} s without, of 0.4`);
        assert.ok((scrape.get('nunicorn_worker_busy_seconds_total{worker="1"}') ?? 0) >= 0.35);
        const { perRequest } = (await admin.status()).recent;
        assert.ok(perRequest !== null && perRequest.cpu > 0 && perRequest.gilWait === null);
      });
    });

    it('counters never go back and workers keep their numbers: recycling, reload, a killed worker', async () => {
      const admin = await Admin.choose();
      const args = [...admin.args, '-k', kind, '--max-requests', '30', '--min-worker-lifetime', '0'];
      await withServer({ app: APP, args, threads, workers: 2 }, async (server) => {
        const load = new Load({ address: server.address, clients: 3, keepAlive: false });
        let last = await admin.scrape();
        const workers = new Set<string>();
        const look = async (): Promise<void> => {
          const next = await admin.scrape();
          assert.deepEqual(wentBack(last, next), []);
          last = next;
          for (const name of next.keys()) workers.add(/worker="([^"]*)"/.exec(name)?.[1] ?? '1');
        };
        const exits = (reason: string): number => last.get(`nunicorn_worker_exits_total{reason="${reason}"}`) ?? 0;
        // Under gthread it is threads that are recycled.
        await until(
          async () => {
            await look();
            return threads === 1 ? exits('max_requests') >= 3 : (last.get(ANSWERED) ?? 0) > 200;
          },
          () => `recycled workers; ${exits('max_requests')} so far`,
        );
        server.kill('SIGHUP');
        await until(
          async () => {
            await look();
            return exits('reload') >= 2;
          },
          'a reload',
          60_000,
        );
        await load.stop();
        // Without load nobody is leaving anyway: the worker that is killed is one that serves.
        const serving = async (): Promise<(number | null)[]> => {
          let workers: Status['workers'] = [];
          await until(async () => {
            workers = (await admin.status()).workers;
            return workers.length === 2 && workers.every(({ state }) => state === 'ready');
          }, 'two workers that serve');
          return workers.map(({ pid }) => pid);
        };
        const [killed] = await serving();
        assert.ok(typeof killed === 'number');
        process.kill(killed, 'SIGKILL');
        await until(async () => {
          await look();
          return exits('crash') + exits('signal') >= 1;
        }, 'the death to be counted');
        await serving();
        const answered = last.get(ANSWERED) ?? 0;
        for (let i = 0; i < 10; i++) assert.equal((await server.get('/')).status, 200);
        await admin.reaches(ANSWERED, answered + 10);
        await look();
        assert.deepEqual([...workers].sort(), ['1', '2']);
      });
    });
  });
}

it('what a worker has answered until it is replaced is counted to the last request', { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, workers: 1, args: admin.args }, async (server) => {
    const before = (await admin.scrape()).get(ANSWERED) ?? 0;
    for (let round = 1; round <= 3; round++) {
      for (let i = 0; i < 5; i++) assert.equal((await server.get('/')).status, 200);
      const from = server.log.length;
      server.kill('SIGHUP');
      await server.waitForLog(/Reloaded: all workers are ready/, { from });
    }
    await admin.reaches('nunicorn_worker_exits_total{reason="reload"}', 3);
    assert.equal((await admin.scrape()).get(ANSWERED), before + 15);
  });
});
