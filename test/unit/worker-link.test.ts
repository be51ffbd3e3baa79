// The front's side of the bridge, against a server that plays the worker.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, mkdtempSync, openSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { AnswerHandler } from '../../src/bridge/frames.ts';
import { type LinkHandler, openBegun, WorkerLink } from '../../src/bridge/worker-link.ts';

const TOKEN = '00112233445566778899aabbccddeeff';
const GREETING_BYTES = 20;

/** A connection that the link made, by its greeting; for a thread its pipes as well. */
class Peer {
  /** What is written comes to the link. */
  output: Socket;
  private readonly socket: Socket;
  private requests: Socket | null = null;
  private received = Buffer.alloc(0);
  private wake: (() => void) | null = null;

  constructor(socket: Socket) {
    this.socket = socket;
    this.output = socket;
    this.hear(socket);
  }

  /** Makes pipes, has the link open them, and goes on with them. */
  async offer(number: number): Promise<void> {
    const base = `${path()}.${number}`;
    const names = [`${base}.requests`, `${base}.answers`];
    execFileSync('mkfifo', names);
    const [requests = 0, held = 0] = names.map((name) => openSync(name, constants.O_RDWR | constants.O_NONBLOCK));
    const answers = openSync(names[1] ?? '', constants.O_WRONLY | constants.O_NONBLOCK);
    this.socket.write(base);
    await this.take(1);
    closeSync(held);
    for (const name of names) unlinkSync(name);
    this.output = new Socket({ fd: answers, readable: false, writable: true });
    this.requests = new Socket({ fd: requests, readable: true, writable: false });
    this.output.on('error', () => {});
    this.hear(this.requests);
  }

  /** As a process does that ends. */
  end(): void {
    this.socket.destroy();
    this.requests?.destroy();
    if (this.output !== this.socket) this.output.destroy();
  }

  private hear(input: Socket): void {
    input.on('error', () => {});
    input.on('data', (piece: Buffer) => {
      this.received = Buffer.concat([this.received, piece]);
      this.wake?.();
    });
  }

  async take(bytes: number): Promise<Buffer> {
    await this.until(() => this.received.length >= bytes);
    const taken = this.received.subarray(0, bytes);
    this.received = this.received.subarray(bytes);
    return taken;
  }

  async takeLine(): Promise<unknown> {
    await this.until(() => this.received.includes('\n'));
    const line = await this.take(this.received.indexOf('\n') + 1);
    return JSON.parse(line.toString());
  }

  get leftBytes(): number {
    return this.received.length;
  }

  private async until(done: () => boolean): Promise<void> {
    while (!done()) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }
}

/** Calls that somebody waits for. */
class Calls {
  private readonly seen: unknown[][] = [];
  private wake: (() => void) | null = null;

  note(...call: unknown[]): void {
    this.seen.push(call);
    this.wake?.();
  }

  async next(): Promise<unknown[]> {
    while (this.seen.length === 0) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    return this.seen.shift() ?? [];
  }

  get waiting(): readonly unknown[][] {
    return this.seen;
  }
}

let folder = '';
let server: Server;
let link: WorkerLink | null = null;
let peers: Peer[] = [];
let allPeers: Peer[] = [];
let offers = 0;
let newPeer: (() => void) | null = null;
const path = (): string => join(folder, 'worker.sock');

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nunicorn-link-'));
  peers = [];
  allPeers = [];
  server = createServer((socket) => {
    const peer = new Peer(socket);
    peers.push(peer);
    allPeers.push(peer);
    newPeer?.();
  }).listen(path());
  await once(server, 'listening');
  writeFileSync(join(folder, 'begun'), Buffer.alloc(64));
});
afterEach(async () => {
  link?.close();
  link = null;
  for (const peer of allPeers) peer.end();
  server.close();
  await once(server, 'close');
  rmSync(folder, { recursive: true });
});

/** The next connection, with what it says of itself. */
async function accept(): Promise<{ peer: Peer; token: string; kind: number; slot: number }> {
  while (peers.length === 0) {
    await new Promise<void>((resolve) => {
      newPeer = resolve;
    });
  }
  const peer = peers.shift();
  assert.ok(peer);
  const greeting = await peer.take(GREETING_BYTES);
  const kind = greeting.readUInt16LE(16);
  if (kind === 1) await peer.offer(++offers);
  return { peer, token: greeting.toString('hex', 0, 16), kind, slot: greeting.readUInt16LE(18) };
}

async function connected(threads: number) {
  const calls = new Calls();
  const answersOf = (slot: number): AnswerHandler => ({
    answer: (id, status, head, buffer, start, end) =>
      calls.note('answer', slot, id, status, head, buffer.toString('latin1', start, end)),
    head: (id, status, head) => calls.note('head', slot, id, status, head),
    data: (id, buffer, start, end) => calls.note('data', slot, id, buffer.toString('latin1', start, end)),
    end: (id, cut) => calls.note('end', slot, id, cut),
    error: (id) => calls.note('error', slot, id),
    hints: (id, head) => calls.note('hints', slot, id, head),
    environ: (id, head) => calls.note('environ', slot, id, head),
    last: (id) => calls.note('last', slot, id),
    extend: (id, us) => calls.note('extend', slot, id, us),
    ready: () => calls.note('ready', slot),
  });
  const lost = new Calls();
  const taken = new Calls();
  const handler: LinkHandler = {
    answersOf,
    piecesHandled: () => {},
    slotLost: (slot, defect) => lost.note(slot, ...(defect === null ? [] : [defect.message])),
    takenBack: (slot, ids) => taken.note(slot, [...ids]),
    stack: () => {},
  };
  const begun = openBegun(join(folder, 'begun'));
  assert.ok(typeof begun === 'number');
  const made = new WorkerLink(path(), begun, threads, TOKEN, handler);
  link = made;
  const slots: Peer[] = [];
  let control: Peer | null = null;
  const greetings: string[] = [];
  for (let count = 0; count <= threads; count++) {
    const { peer, token, kind, slot } = await accept();
    greetings.push(`${token} ${kind} ${slot}`);
    if (kind === 1) slots[slot] = peer;
    else control = peer;
  }
  const [first] = slots;
  assert.ok(control && first);
  return { link: made, slots, first, control, greetings, calls, lost, taken };
}

/** A frame of an answer. */
function frame(kind: number, id: number, head: string, body: string): Buffer {
  const bytes = Buffer.alloc(20);
  bytes.writeUInt32LE(head.length + body.length, 0);
  bytes[4] = kind;
  bytes.writeUInt16LE(200, 6);
  bytes.writeUInt32LE(id, 8);
  bytes.writeUInt32LE(head.length, 12);
  return Buffer.concat([bytes, Buffer.from(head + body, 'latin1')]);
}

const request = (id: number, body: string | null = null) => ({
  id,
  flags: 0,
  block: 'REQUEST_METHOD\0GET',
  body: body === null ? null : Buffer.from(body),
});

test('a connection for each thread and one for control, each with the token', { timeout: 10_000 }, async () => {
  const { greetings } = await connected(3);
  assert.deepEqual(greetings.sort(), [`${TOKEN} 1 0`, `${TOKEN} 1 1`, `${TOKEN} 1 2`, `${TOKEN} 2 0`]);
});

test('requests wait for flush, then go to their thread in order', { timeout: 10_000 }, async () => {
  const { link, slots, first } = await connected(2);
  link.send(0, request(1, 'body'));
  link.send(1, request(2));
  link.send(0, request(3));
  link.flush();
  link.flush();
  const bytes = await first.take(2 * 20 + 2 * 18 + 4);
  assert.deepEqual(
    [bytes.readUInt32LE(8), bytes.toString('latin1', 38, 42), bytes.readUInt32LE(42 + 8)],
    [1, 'body', 3],
  );
  assert.equal((await slots[1]?.take(38))?.readUInt32LE(8), 2);
  assert.equal(first.leftBytes, 0);
});

test('answers come to the handler of their thread', { timeout: 10_000 }, async () => {
  const { slots, first, calls } = await connected(2);
  first.output.write(Buffer.concat([frame(3, 7, 'OK', 'first'), frame(5, 7, '', ''), frame(2, 8, 'OK', 'whole')]));
  assert.deepEqual(await calls.next(), ['head', 0, 7, 200, 'OK']);
  assert.deepEqual(await calls.next(), ['data', 0, 7, 'first']);
  assert.deepEqual(await calls.next(), ['end', 0, 7, false]);
  assert.deepEqual(await calls.next(), ['answer', 0, 8, 200, 'OK', 'whole']);
  slots[1]?.output.write(frame(6, 9, '', ''));
  assert.deepEqual(await calls.next(), ['error', 1, 9]);
});

test('threads whose frames come apart do not mix', { timeout: 10_000 }, async () => {
  const { slots, first, calls } = await connected(2);
  const [one, two] = [frame(2, 1, 'OK', 'a'.repeat(50)), frame(2, 2, 'OK', 'b'.repeat(50))];
  const second = slots[1];
  assert.ok(second);
  // Each piece is read before the next is written: a whole frame of the same thread goes first.
  first.output.write(Buffer.concat([frame(6, 10, '', ''), one.subarray(0, 30)]));
  assert.deepEqual(await calls.next(), ['error', 0, 10]);
  second.output.write(Buffer.concat([frame(6, 20, '', ''), two.subarray(0, 45)]));
  assert.deepEqual(await calls.next(), ['error', 1, 20]);
  first.output.write(one.subarray(30));
  assert.deepEqual(await calls.next(), ['answer', 0, 1, 200, 'OK', 'a'.repeat(50)]);
  second.output.write(two.subarray(45));
  assert.deepEqual(await calls.next(), ['answer', 1, 2, 200, 'OK', 'b'.repeat(50)]);
});

test('what is said on the control connection', { timeout: 10_000 }, async () => {
  const { link, control } = await connected(2);
  link.cancel(1, 0xffffffff);
  link.takeBack(0);
  assert.deepEqual(await control.takeLine(), { op: 'cancel', slot: 1, id: 0xffffffff });
  assert.deepEqual(await control.takeLine(), { op: 'take-back', slot: 0 });
});

test('what was taken back is heard, in lines that come apart and together', { timeout: 10_000 }, async () => {
  const { control, first, calls, taken } = await connected(1);
  control.output.write('{"op": "taken", "slot": 0, "ids": [1, 2]}\n{"op": "taken", "sl');
  assert.deepEqual(await taken.next(), [0, [1, 2]]);
  first.output.write(frame(6, 1, '', ''));
  await calls.next();
  control.output.write('ot": 0, "ids": []}\n');
  assert.deepEqual(await taken.next(), [0, []]);
});

test('a control connection that ends is made anew, and what was asked there asked again', {
  timeout: 10_000,
}, async () => {
  const { link, control, taken } = await connected(2);
  link.takeBack(0);
  await control.takeLine();
  control.output.write('{"op": "taken", "slot": 0, "ids": []}\n');
  await taken.next();
  control.end();
  link.takeBack(1);
  const { peer, token, kind } = await accept();
  assert.deepEqual([token, kind], [TOKEN, 2]);
  assert.deepEqual(await peer.takeLine(), { op: 'take-back', slot: 1 });
  peer.output.write('{"op": "taken", "slot": 1, "ids": [5]}\n');
  assert.deepEqual(await taken.next(), [1, [5]]);
});

test('a control connection on which something else comes is made anew', { timeout: 10_000 }, async () => {
  const { control } = await connected(1);
  control.output.write('no message\n');
  const { token, kind } = await accept();
  assert.deepEqual([token, kind], [TOKEN, 2]);
});

test('a broken connection is told and made anew, and works', { timeout: 10_000 }, async () => {
  const { link, first, lost, calls } = await connected(2);
  first.end();
  assert.deepEqual(await lost.next(), [0]);
  const { peer, token, kind, slot } = await accept();
  assert.deepEqual([token, kind, slot], [TOKEN, 1, 0]);
  peer.output.write(frame(9, 0, '', ''));
  assert.deepEqual(await calls.next(), ['ready', 0]);
  link.send(0, request(5));
  link.flush();
  assert.equal((await peer.take(38)).readUInt32LE(8), 5);
  peer.output.write(frame(2, 5, 'OK', 'again'));
  assert.deepEqual(await calls.next(), ['answer', 0, 5, 200, 'OK', 'again']);
  assert.deepEqual(lost.waiting, []);
});

test('a worker that sends no frames is disconnected, and why is told', { timeout: 10_000 }, async () => {
  const { first, lost } = await connected(1);
  first.output.write(Buffer.alloc(20, 0xff));
  assert.deepEqual(await lost.next(), [0, 'a frame of unknown kind 255']);
});

test('what each thread began last is read from the shared file', { timeout: 10_000 }, async () => {
  const { link } = await connected(2);
  assert.deepEqual(link.begun(), [0, 0]);
  const words = Buffer.alloc(16);
  words.writeBigUInt64LE(0xffffffffn, 0);
  words.writeBigUInt64LE(7n, 8);
  writeFileSync(join(folder, 'begun'), words);
  assert.deepEqual(link.begun(), [0xffffffff, 7]);
});

test('all that a dead worker had sent is read before it is done with', { timeout: 10_000 }, async () => {
  const { link, first, slots, control, calls, lost } = await connected(2);
  link.pause(0);
  first.output.end(frame(2, 1, 'OK', 'last'));
  slots[1]?.end();
  control.output.end();
  let done = 0;
  await new Promise<void>((resolve) => {
    link.drainDead(5000, () => {
      done++;
      resolve();
    });
  });
  assert.deepEqual(calls.waiting, [['answer', 0, 1, 200, 'OK', 'last']]);
  assert.equal(done, 1);
  assert.deepEqual(lost.waiting, [], 'its end is known');
});

test('a front that stood still for longer than the limit reads it all the same', { timeout: 10_000 }, async () => {
  const { link, first, control, calls } = await connected(1);
  link.pause(0);
  first.output.end(frame(2, 1, 'OK', 'last'));
  control.output.end();
  await once(first.output, 'finish');
  await new Promise<void>((resolve) => {
    link.drainDead(1, resolve);
    const end = performance.now() + 20;
    while (performance.now() < end);
  });
  assert.deepEqual(calls.waiting, [['answer', 0, 1, 200, 'OK', 'last']]);
});

test('something else may hold the socket of a dead worker open: there is a limit', { timeout: 10_000 }, async () => {
  const { link } = await connected(1);
  let done = 0;
  await new Promise<void>((resolve) => {
    link.drainDead(1, () => {
      done++;
      resolve();
    });
  });
  assert.equal(done, 1);
});

test('an offer that cannot be taken is asked for anew', { timeout: 10_000 }, async () => {
  const handler: LinkHandler = {
    answersOf: () => ({}) as AnswerHandler,
    piecesHandled: () => {},
    slotLost: () => {},
    takenBack: () => {},
    stack: () => {},
  };
  const begun = openBegun(join(folder, 'begun'));
  assert.ok(typeof begun === 'number');
  link = new WorkerLink(path(), begun, 1, TOKEN, handler);
  const first = await new Promise<Peer>((resolve) => {
    newPeer = () => {
      const peer = peers.shift();
      if (peer !== undefined) resolve(peer);
    };
  });
  assert.equal((await first.take(GREETING_BYTES)).readUInt16LE(16), 1);
  first.output.write(`${path()}.0`); // of an offer that is withdrawn
  let again = await accept();
  if (again.kind !== 1) again = await accept();
  assert.deepEqual([again.token, again.kind, again.slot], [TOKEN, 1, 0]);
});
