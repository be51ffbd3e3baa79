// --admin-bind: what the server counts, and what it says of itself while everything else is stuck.
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { METRICS } from '../../src/metrics/table.ts';
import { Admin, wentBack } from '../helpers/admin.ts';
import { until } from '../helpers/deadline.ts';
import { Connection, exchange, type Response } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { VENV_BIN } from '../helpers/paths.ts';
import { freePort } from '../helpers/ports.ts';
import { isAlive } from '../helpers/processes.ts';
import { finishing, Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const APP = 'pathology.faults:application';
const skip = !NUNICORN_RUNS;
/** That of the official prometheus_client: it takes valid OpenMetrics only. Prints the names of the families. */
const STRICT_PARSER = `
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
print(json.dumps([family.name for family in text_string_to_metric_families(sys.stdin.read())]))
`;
const ANSWERED = 'nunicorn_requests_total{code_class="2xx",outcome="answered"}';

const SLOW_APP = `
import os, time
while not os.path.exists(os.path.expanduser("~/open")):
    time.sleep(0.01)
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
`;

async function send(server: Server, path: string): Promise<Connection> {
  const connection = await server.connect();
  await connection.send(`GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
  return connection;
}

it('an upload that its client breaks off is counted once, as left, and is no invalid request', { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, args: [...admin.args, '--log-level', 'debug'] }, async (server) => {
    const halves = ['POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello', 'POST / HTTP/1.1\r\nHo'];
    for (const half of halves) {
      const connection = await server.connect();
      await connection.send(half);
      connection.halfClose();
      await connection.end();
      connection.close();
    }
    await until(
      () => server.log.match(/\[DEBUG\] Ignored premature client disconnection/g)?.length === halves.length,
      () => server.log,
    );
    assert.doesNotMatch(server.log, /Invalid request/);
    await admin.reaches('nunicorn_requests_total{code_class="none",outcome="client_left"}', 1);
    const refused = (await admin.scrape()).get('nunicorn_requests_total{code_class="4xx",outcome="refused"}') ?? 0;
    assert.equal(refused, 0);
  });
});

it('a request whose body is no HTTP is counted once, as refused, and has a line in the access log', {
  skip,
}, async () => {
  const admin = await Admin.choose();
  const args = [...admin.args, '--access-logfile', '-', '--access-logformat', '%(m)s %(U)s %(s)s %(b)s'];
  await withServer({ app: APP, args }, async (server) => {
    const connection = await server.connect();
    await connection.send(
      'POST /upload HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n',
    );
    const { status, body } = await connection.response();
    assert.equal(status, 400);
    connection.close();
    await admin.reaches('nunicorn_client_connections', 0);
    const metrics = await admin.scrape();
    assert.equal(metrics.get('nunicorn_requests_total{code_class="4xx",outcome="refused"}'), 1);
    assert.equal(metrics.get('nunicorn_requests_total{code_class="none",outcome="client_left"}') ?? 0, 0);
    assert.equal(metrics.get('nunicorn_client_disconnects_total'), 0);
    await until(
      () => server.output.includes(`POST /upload 400 ${body.length}\n`),
      () => server.output,
    );
  });
});

it('every request is counted once, by what became of it', { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, args: [...admin.args, '--max-queue', '1'] }, async (server) => {
    const before = (await admin.scrape()).get(ANSWERED) ?? 0;
    for (let i = 0; i < 7; i++) await server.get('/');
    await admin.reaches(ANSWERED, before + 7);
    await server.seenByFront(); // two requests without Host
    await admin.reaches('nunicorn_requests_total{code_class="4xx",outcome="refused"}', 2);
    const held = await send(server, '/hold?a');
    await server.marked('a.started');
    const waiting = await send(server, '/');
    await admin.reaches('nunicorn_queue_depth', 1);
    assert.equal((await server.get('/')).status, 503);
    await admin.reaches('nunicorn_queue_rejected_total{reason="full"}', 1);
    waiting.close();
    await admin.reaches('nunicorn_client_disconnects_total', 1);
    await admin.reaches('nunicorn_requests_total{code_class="none",outcome="client_left"}', 1);
    server.mark('a.open');
    await held.response();
    held.close();
    await admin.reaches(ANSWERED, before + 8);
    const dead = await server.get('/os-exit');
    assert.equal(dead.status, 502);
    await admin.reaches('nunicorn_requests_total{code_class="5xx",outcome="worker_lost"}', 1);
    await admin.reaches('nunicorn_worker_exits_total{reason="crash"}', 1);
    await admin.reaches('nunicorn_worker_spawns_total{reason="crash"}', 1);
  });
});

it('promtool finds nothing to say about what is exposed', { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, args: [...admin.args, '--enable-backlog-metric'], workers: 2 }, async (server) => {
    await server.get('/');
    const response = await admin.get('/metrics');
    assert.equal(response.header('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
    const checked = spawnSync('promtool', ['check', 'metrics'], { input: response.text(), encoding: 'utf8' });
    assert.equal(checked.status, 0, `${checked.error}${checked.stdout}${checked.stderr}`);
    const openmetrics = await admin.get('/metrics', 'Accept: application/openmetrics-text\r\n');
    assert.match(openmetrics.header('content-type') ?? '', /^application\/openmetrics-text/);
    assert(openmetrics.text().endsWith('# EOF\n'));
    const python = join(VENV_BIN, 'python');
    const parsed = spawnSync(python, ['-c', STRICT_PARSER], { input: openmetrics.text(), encoding: 'utf8' });
    assert.equal(parsed.status, 0, parsed.stderr);
    const families = (JSON.parse(parsed.stdout) as string[]).filter((name) => name.startsWith('nunicorn_'));
    assert(families.length > 30);
    for (const name of families) assert(name in METRICS || `${name}_total` in METRICS, name);
    assert.equal((await admin.scrape()).get('nunicorn_backlog'), 0);
  });
});

it('a server is started and ready when its first worker is', { skip }, async () => {
  const admin = await Admin.choose();
  const files = { 'slow.py': SLOW_APP };
  const server = await Server.spawn({ app: 'slow:application', chdir: '{home}', files, args: admin.args });
  await finishing(server, async () => {
    await until(() => admin.get('/livez').catch(() => null), 'the admin server');
    assert.equal((await admin.get('/livez')).status, 200);
    for (const path of ['/startupz', '/readyz']) {
      const answer = await admin.get(path);
      assert.equal(answer.status, 503);
      assert.match(answer.text(), /no worker/);
    }
    server.mark('open');
    await server.ready();
    for (const path of ['/startupz', '/readyz']) assert.equal((await admin.get(path)).status, 200);
  });
});

it('a server whose threads are all busy is ready, and one that stops is not', { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, args: [...admin.args, '--max-queue', '1'] }, async (server) => {
    assert.equal((await admin.get('/startupz')).status, 200);
    const held = await send(server, '/hold?a');
    await server.marked('a.started');
    const waiting = await send(server, '/');
    await admin.reaches('nunicorn_queue_depth', 1);
    assert.equal((await admin.get('/readyz')).status, 200);
    assert.equal((await admin.get('/livez')).status, 200);
    server.kill('SIGTERM');
    await until(async () => (await admin.get('/readyz')).status === 503, 'not to be ready');
    const answer = JSON.parse((await admin.get('/readyz')).text());
    assert.deepEqual(answer, {
      status: 'failed',
      reasons: ['the server is shutting down', ...answer.reasons.slice(1)],
    });
    assert.equal((await admin.get('/livez')).status, 200);
    server.mark('a.open');
    assert.equal((await held.response()).status, 200);
    assert.equal((await waiting.response()).status, 200);
    for (const connection of [held, waiting]) connection.close();
  });
});

it('says what runs where, while every worker holds the interpreter lock', { skip }, async () => {
  const admin = await Admin.choose();
  const app = { app: APP, args: [...admin.args, '--graceful-timeout', '1'], workers: 2 };
  await withServer(app, async (server) => {
    const stuck = [await send(server, '/gil-poll?1'), await send(server, '/gil-poll?2')];
    const waiting = await send(server, '/mark?never');
    const listed = await until(async () => {
      const { requests } = await admin.requests();
      return requests.length === 3 && requests.filter(({ phase }) => phase === 'running').length === 2 && requests;
    }, 'three requests');
    const running = listed.filter(({ phase }) => phase === 'running');
    assert.deepEqual(running.map(({ worker }) => worker).sort(), [1, 2]);
    for (const { method, path, thread, running: seconds, age } of running) {
      assert.deepEqual([method, path, thread], ['GET', '/gil-poll', 1]);
      assert(seconds !== null && seconds <= age);
    }
    const queued = listed.find(({ phase }) => phase === 'queued');
    assert.deepEqual([queued?.path, queued?.worker, queued?.thread], ['/mark', null, null]);
    const status = await admin.status();
    assert.deepEqual(
      status.workers.map(({ number, state, slots }) => [number, state, slots]),
      [
        [1, 'ready', ['busy']],
        [2, 'ready', ['busy']],
      ],
    );
    assert.equal(status.queue.depth, 1);
    assert.equal((await admin.get('/readyz')).status, 200);
    for (const connection of [waiting, ...stuck]) connection.close();
    server.kill('SIGINT');
  });
});

it('counters never go back: recycling, reload, killed workers, a killed front', { skip }, async () => {
  const admin = await Admin.choose();
  const args = [...admin.args, '--max-requests', '20', '--min-worker-lifetime', '0'];
  await withServer({ app: APP, args, workers: 2, threads: 2 }, async (server) => {
    const load = new Load({ address: server.address, clients: 3, keepAlive: false });
    let last = await admin.scrape();
    const workers = new Set<string>();
    const look = async (): Promise<number> => {
      const next = await admin.scrape();
      assert.deepEqual(wentBack(last, next), []);
      last = next;
      for (const name of next.keys()) workers.add(/worker="([^"]*)"/.exec(name)?.[1] ?? '1');
      return next.get('nunicorn_worker_exits_total{reason="max_requests"}') ?? 0;
    };
    await until(async () => (await look()) >= 4, 'four recycled workers');
    const exits = last.get('nunicorn_worker_exits_total{reason="reload"}') ?? 0;
    server.kill('SIGHUP');
    await until(async () => {
      await look();
      return (last.get('nunicorn_worker_exits_total{reason="reload"}') ?? 0) > exits;
    }, 'a reload');
    const [front] = server.fronts();
    assert(front !== undefined);
    const answered = last.get(ANSWERED) ?? 0;
    process.kill(front, 'SIGKILL');
    await until(async () => {
      await look();
      return last.get('nunicorn_front_restarts_total') === 1 && (last.get(ANSWERED) ?? 0) > answered + 10;
    }, 'the next front to answer');
    assert.deepEqual([...workers].sort(), ['1', '2'], 'the numbers of workers, whatever their process');
    await load.stop();
  });
});

it('a front that is killed takes along no more than it has answered since its last report', { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, args: admin.args, workers: 2 }, async (server) => {
    const ask = async (times: number): Promise<void> => {
      for (let i = 0; i < times; i++) assert.equal((await server.get('/')).status, 200);
    };
    let last = await admin.scrape();
    const look = async (): Promise<number> => {
      const next = await admin.scrape();
      assert.deepEqual(wentBack(last, next), []);
      last = next;
      return next.get(ANSWERED) ?? 0;
    };
    for (let deaths = 1; deaths <= 3; deaths++) {
      const before = await look();
      await ask(20);
      // A scrape has the front report, so that all of these are counted by the master now.
      await until(async () => (await look()) === before + 20, '20 requests to be counted');
      const [front] = server.fronts();
      assert(front !== undefined);
      await ask(15);
      process.kill(front, 'SIGKILL');
      await until(async () => {
        await look();
        return last.get('nunicorn_front_restarts_total') === deaths;
      }, 'another front');
      const kept = await look();
      assert(kept >= before + 20 && kept <= before + 35, `${kept} of ${before} + 20 + 15 are counted`);
      await ask(10);
      await until(async () => (await look()) >= kept + 10, 'requests to the next front to be counted');
      assert.equal(await look(), kept + 10);
    }
  });
});

it('USR2: the new master goes on counting where the old one ends, at the same address', { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, args: admin.args, workers: 2 }, async (server) => {
    const ask = async (times: number): Promise<void> => {
      for (let i = 0; i < times; i++) assert.equal((await server.get('/')).status, 200);
    };
    await ask(10);
    const counted = (await admin.scrape()).get(ANSWERED) ?? 0;
    assert(counted >= 10);
    const from = server.log.length;
    server.kill('SIGUSR2');
    await server.waitForLog(/Started: all workers are ready/, { from });
    const next = Number(/new master is pid (\d+)/.exec(server.log)?.[1]);
    await ask(10);
    server.kill('SIGTERM');
    await admin.answersFrom(next);
    await ask(10);
    await until(() => !isAlive(server.pid), 'the end of the old master');
    await admin.reaches(ANSWERED, counted + 20);
    process.kill(next, 'SIGTERM');
    await until(() => !isAlive(next), 'the end of the new master');
  });
});

it('USR2 and back, twice: what a new master has counted stays counted', { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, args: admin.args }, async (server) => {
    let asked = (await admin.scrape()).get(ANSWERED) ?? 0;
    const ask = async (): Promise<void> => {
      for (let i = 0; i < 5; i++) assert.equal((await server.get('/')).status, 200);
      asked += 5;
    };
    await ask();
    await admin.reaches(ANSWERED, asked);
    for (const restsMeanwhile of [true, false]) {
      const workers = server.workers();
      const from = server.log.length;
      server.kill('SIGUSR2');
      await server.waitForLog(/Started: all workers are ready/, { from });
      const next = Number(/new master is pid (\d+)/.exec(server.log.slice(from))?.[1]);
      if (restsMeanwhile) {
        server.kill('SIGWINCH');
        await admin.answersFrom(next);
        await until(() => !workers.some(isAlive), 'the old workers to go');
      }
      await ask();
      if (restsMeanwhile) {
        await admin.reaches(ANSWERED, asked);
        const reloadFrom = server.log.length;
        server.kill('SIGHUP');
        await server.waitForLog(/Reloaded: all workers are ready/, { from: reloadFrom });
        await ask();
      }
      process.kill(next, 'SIGTERM');
      await until(() => !isAlive(next), 'the end of the new master');
      await admin.answersFrom(server.pid);
      await admin.reaches(ANSWERED, asked);
    }
    await ask();
    await admin.reaches(ANSWERED, asked);
  });
});

it('with a token only those who have it are answered; only GET and HEAD are', { skip }, async () => {
  const port = await freePort();
  const env = { NUNICORN_ADMIN_TOKEN: 's3cret' };
  await withServer({ app: APP, args: ['--admin-bind', `0.0.0.0:${port}`], env }, async () => {
    const ask = async (text: string): Promise<number> => {
      const connection = await Connection.open({ host: '127.0.0.1', port });
      await connection.send(text);
      const { status } = await connection.response();
      connection.close();
      return status;
    };
    assert.equal(await ask('GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n'), 401);
    assert.equal(await ask('GET /livez HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer nonsense\r\n\r\n'), 401);
    assert.equal(await ask('GET /livez HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer s3cret\r\n\r\n'), 200);
    assert.equal(await ask('POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n'), 405);
    assert.equal(await ask('GET /toString HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer s3cret\r\n\r\n'), 404);
  });
});

it('at a Unix socket only its owner asks; with --preload the mold is seen too', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'admin-'));
  const path = join(folder, 'admin.sock');
  try {
    await withServer({ app: APP, args: ['--admin-bind', `unix:${path}`, '--preload'], workers: 2 }, async (server) => {
      assert.equal(statSync(path).mode & 0o777, 0o600);
      const ask = (what: string): Promise<Response> =>
        exchange({ path }, `GET ${what} HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n`);
      assert.equal((await ask('/readyz')).status, 200);
      assert.match((await ask('/metrics')).text(), /^nunicorn_process_rss_bytes\{process="mold"\} [1-9]/m);
      server.kill('SIGTERM');
      await server.exit();
      assert.deepEqual(readdirSync(folder), []);
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('the Unix socket of a server that was killed is not in the way of the next one', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'admin-'));
  const path = join(folder, 'admin.sock');
  const options = { app: APP, args: ['--admin-bind', `unix:${path}`] };
  try {
    const first = await Server.start(options);
    try {
      for (const { pid } of first.processes()) process.kill(pid, 'SIGKILL');
      await first.exit();
    } finally {
      first.destroy();
    }
    assert.ok(statSync(path).isSocket());
    await withServer(options, async () => {
      const answer = await exchange({ path }, 'GET /livez HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n');
      assert.equal(answer.status, 200);
      const second = await Server.spawn({ app: APP, args: options.args });
      try {
        assert.equal((await second.exit()).code, 1);
        assert.match(
          second.log,
          /Can't listen at unix:.* \(--admin-bind\): another process listens there \(EADDRINUSE\)/,
        );
      } finally {
        second.destroy();
      }
    });
    writeFileSync(path, 'mine');
    const third = await Server.spawn({ app: APP, args: options.args });
    try {
      assert.equal((await third.exit()).code, 1);
      assert.match(third.log, /there is a file that is no socket/);
    } finally {
      third.destroy();
    }
    assert.equal(readFileSync(path, 'utf8'), 'mine');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('a browser is not led to it by a foreign name', { skip }, async () => {
  const admin = await Admin.choose();
  await withServer({ app: APP, args: admin.args }, async () => {
    const connection = await Connection.open({ host: '127.0.0.1', port: admin.port });
    await connection.send('GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n');
    assert.equal((await connection.response()).status, 403);
    connection.close();
  });
});

it('an address that others can reach is refused without a token; one in use too', { skip }, async () => {
  const open = await Server.spawn({ app: APP, args: ['--admin-bind', '0.0.0.0:0'] });
  assert.equal((await open.exit()).code, 1);
  assert.match(open.log, /--admin-bind 0\.0\.0\.0:0 is refused: other machines can reach it.*--admin-token/);
  const nowhere = await Server.spawn({ app: APP, args: ['--admin-bind', '127.0.0.1'] });
  assert.equal((await nowhere.exit()).code, 1);
  assert.match(nowhere.log, /a port is needed, such as 127\.0\.0\.1:9464/);
  const admin = await Admin.choose();
  await withServer({ app: APP, args: admin.args }, async () => {
    const second = await Server.spawn({ app: APP, args: admin.args });
    assert.equal((await second.exit()).code, 1);
    assert.match(
      second.log,
      /Can't listen at 127\.0\.0\.1:\d+ \(--admin-bind\): another process listens there \(EADDRINUSE\)/,
    );
  });
});
