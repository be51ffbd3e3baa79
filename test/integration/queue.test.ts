// More requests than threads: the rest waits in one bounded queue, in the front.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import type { Connection } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { type Server, withServer } from '../helpers/server.ts';

const APP = 'pathology.faults:application';
const skip = !NUNICORN_RUNS;

/** A request that keeps its thread until `server.mark(NAME.open)`. */
async function hold(server: Server, name: string): Promise<Connection> {
  const connection = await send(server, `/hold?${name}`);
  await server.marked(`${name}.started`);
  return connection;
}

async function send(server: Server, path: string): Promise<Connection> {
  const connection = await server.connect();
  await connection.send(`GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
  return connection;
}

it('a request that has to wait is served when a thread is free', { skip }, async () => {
  await withServer({ app: APP }, async (server) => {
    const first = await hold(server, 'a');
    const waiting = await Promise.all(Array.from({ length: 10 }, () => send(server, '/')));
    server.mark('a.open');
    assert.equal((await first.response()).text(), 'held');
    for (const connection of waiting) assert.equal((await connection.response()).text(), 'ok');
    for (const connection of [first, ...waiting]) connection.close();
  });
});

it('requests run on as many threads as there are, over all workers', { skip }, async () => {
  await withServer({ app: APP, workers: 2, threads: 2 }, async (server) => {
    // Each waits until the others have started too: no thread may be left out.
    const names = ['a', 'b', 'c', 'd'];
    const held = await Promise.all(names.map((name) => hold(server, name)));
    for (const name of names) server.mark(`${name}.open`);
    for (const connection of held) {
      assert.equal((await connection.response()).text(), 'held');
      connection.close();
    }
  });
});

it('one busy worker does not keep a request waiting while another is idle', { skip }, async () => {
  await withServer({ app: APP, workers: 2 }, async (server) => {
    const held = await hold(server, 'a');
    for (let i = 0; i < 20; i++) assert.equal((await server.get('/')).text(), 'ok');
    server.mark('a.open');
    await held.response();
    held.close();
  });
});

it('a full queue is a 503 with Retry-After at once', { skip }, async () => {
  await withServer({ app: APP, args: ['--max-queue', '1'] }, async (server) => {
    const held = await hold(server, 'a');
    const waiting = await Promise.all(Array.from({ length: 4 }, () => send(server, '/')));
    // One of the four waits, the others are refused; which one is the kernel's choice.
    const answers = waiting.map(async (connection) => {
      const response = await connection.response();
      connection.close();
      return response;
    });
    const refused: number[] = [];
    const settled = answers.map((answer) =>
      answer.then((response) => {
        if (response.status !== 503) return;
        assert.match(response.header('retry-after') ?? '', /^\d+$/);
        assert.match(response.text(), /<html>/i);
        refused.push(response.status);
        if (refused.length === 3) server.mark('a.open');
      }),
    );
    await Promise.all(settled);
    const statuses = (await Promise.all(answers)).map(({ status }) => status).sort();
    assert.deepEqual(statuses, [200, 503, 503, 503]);
    assert.equal((await held.response()).text(), 'held');
    held.close();
    assert.equal((await server.get('/')).text(), 'ok');
  });
});

it('a request that waits longer than --queue-timeout is a 504 and never runs', { skip }, async () => {
  await withServer({ app: APP, args: ['--queue-timeout', '1'] }, async (server) => {
    const held = await hold(server, 'a');
    const late = await send(server, '/mark?late');
    assert.equal((await late.response()).status, 504);
    late.close();
    server.mark('a.open');
    assert.equal((await held.response()).text(), 'held');
    held.close();
    assert.equal((await server.get('/')).text(), 'ok');
    assert.equal(server.hasMark('late'), false, 'the request ran after its client had been told 504');
  });
});

it('a queued request whose client has left is never run', { skip }, async () => {
  await withServer({ app: APP }, async (server) => {
    const held = await hold(server, 'a');
    for (const how of ['fin', 'reset'] as const) {
      const leaving = await send(server, `/mark?left-${how}`);
      const body = await server.connect();
      await body.send(`POST /mark?left-body-${how} HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello`);
      for (const connection of [leaving, body]) {
        if (how === 'fin') connection.close();
        else connection.reset();
      }
    }
    // Comes after the four in the queue, and after their ends at the front.
    const last = await send(server, '/mark?last');
    await server.seenByFront();
    server.mark('a.open');
    assert.equal((await held.response()).text(), 'held');
    await last.response();
    assert.equal(server.hasMark('last'), true);
    for (const name of ['left-fin', 'left-reset', 'left-body-fin', 'left-body-reset']) {
      assert.equal(server.hasMark(name), false, name);
    }
    held.close();
    last.close();
  });
});

it('a running request whose client has left finishes and frees its thread', { skip }, async () => {
  await withServer({ app: APP }, async (server) => {
    const held = await hold(server, 'a');
    held.reset();
    server.mark('a.open');
    await server.marked('a.finished');
    assert.equal((await server.get('/')).text(), 'ok');
  });
});
