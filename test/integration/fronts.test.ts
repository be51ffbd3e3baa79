// Several fronts: each has workers of its own, and none is left without.
import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '../helpers/deadline.ts';
import { Connection, get } from '../helpers/http.ts';
import { type Server, withServer } from '../helpers/server.ts';

const APP = 'wsgi_matrix:application';

/** As many connections at once that each front accepts some; all are answered. */
async function assertAllAnswered(server: Server): Promise<void> {
  const answers = await Promise.all(Array.from({ length: 60 }, () => get(server.address, '/')));
  assert.deepEqual(
    answers.map(({ status }) => status),
    answers.map(() => 200),
  );
}

async function become(list: () => readonly number[], count: number, server: Server): Promise<void> {
  await until(
    async () => list().length === count,
    () => `${count} of ${list().join()}\n${server.output}`,
  );
}

test('there are no more fronts than workers', async () => {
  await withServer({ app: APP, workers: 2, args: ['--fronts', '5'] }, async (server) => {
    assert.equal(server.fronts().length, 2);
    await assertAllAnswered(server);
  });
});

test('TTOU: a front goes before its last worker, and drops nobody', async () => {
  const args = ['--fronts', '2', '--queue-timeout', '2', '--keep-alive', '30'];
  await withServer({ app: APP, workers: 3, args }, async (server) => {
    await assertAllAnswered(server);
    const held = await Promise.all(Array.from({ length: 20 }, () => Connection.open(server.address)));
    let asked = true;
    const asking = (async () => {
      while (asked) await assertAllAnswered(server);
    })();
    server.kill('SIGTTOU');
    await become(() => server.workers(), 2, server);
    assert.equal(server.fronts().length, 2, 'each has a worker still');
    server.kill('SIGTTOU');
    await become(() => server.workers(), 1, server);
    await become(() => server.fronts(), 1, server);
    asked = false;
    await asking;
    await assertAllAnswered(server);
    for (const connection of held) connection.close();

    server.kill('SIGTTIN');
    await become(() => server.workers(), 2, server);
    assert.equal(server.fronts().length, 1);
    await assertAllAnswered(server);
  });
});

test('a front that dies comes back to its workers; the other one goes on', async () => {
  await withServer({ app: APP, workers: 3, args: ['--fronts', '2'] }, async (server) => {
    const workers = server.workers();
    const [first, second] = server.fronts();
    assert.ok(first && second);
    process.kill(second, 'SIGKILL');
    await until(
      async () => server.fronts().filter((pid) => pid !== second).length === 2,
      () => `two fronts\n${server.output}`,
    );
    assert.ok(server.fronts().includes(first));
    await assertAllAnswered(server);
    assert.deepEqual(server.workers().sort(), workers.sort());
  });
});

test('a reload that comes while a removed front has a client still waits for it, and comes to its end', async () => {
  const args = ['--fronts', '2', '--graceful-timeout', '60'];
  await withServer({ app: 'pathology.faults:application', workers: 2, args }, async (server) => {
    await server.waitForLog(/Started: all workers are ready/);
    const first = server.processes().find(({ title }) => title.includes(': front 1 '))?.pid;
    assert.ok(first);
    process.kill(first, 'SIGSTOP');
    const held = await Connection.open(server.address);
    await held.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
    await server.marked('a.started'); // in a worker of the second front
    const worker = server.processes().find(({ title }) => title.includes(': worker 2 '))?.pid;
    const descriptors = (): readonly string[] => readdirSync(`/proc/${worker}/fd`);
    const before = descriptors();
    process.kill(first, 'SIGCONT');
    server.kill('SIGTTOU');
    await server.waitForLog(/Handling signal: ttou/);
    server.kill('SIGHUP');
    await server.waitForLog(/Hang up: Master/);
    await become(() => server.fronts(), 3, server); // one is leaving
    await delay(1000);
    assert.deepEqual(descriptors(), before, 'the new front has not taken the worker of the one that is leaving');
    server.mark('a.open');
    assert.equal((await held.response()).text(), 'held');
    held.close();
    await server.waitForLog(/Reloaded: all workers are ready/);
    await become(() => server.fronts(), 2, server);
    await become(() => server.workers(), 2, server);
  });
});

test('a removed front goes after --graceful-timeout, whatever its clients do', async () => {
  const app = `def application(environ, start_response):
    start_response("200 OK", [])
    return [b"x" * 800_000]
`;
  const bind = ['unix:{home}/app.sock'];
  const options = { app: 'large:application', chdir: '{home}', files: { 'large.py': app }, bind, workers: 2 };
  await withServer({ ...options, args: ['--fronts', '2', '--graceful-timeout', '1'] }, async (server) => {
    const path = join(server.home, 'app.sock');
    await server.waitForLog(/Started: all workers are ready/);
    const [first, second] = [1, 2].map((number) =>
      server.processes().find(({ title }) => title.includes(`: front ${number} `)),
    );
    assert.ok(first && second);
    process.kill(first.pid, 'SIGSTOP');
    const sending = await Connection.open({ path });
    await sending.send('POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n');
    const reading = connect(path);
    reading.write('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
    await once(reading, 'readable'); // and is read no further
    process.kill(first.pid, 'SIGCONT');
    const trickle = setInterval(() => void sending.send('x'), 100);
    try {
      server.kill('SIGTTOU');
      assert.equal((await sending.response()).status, 503);
      await become(() => server.fronts(), 1, server);
      await become(() => server.workers(), 1, server);
    } finally {
      clearInterval(trickle);
      sending.close();
      reading.destroy();
    }
  });
});
