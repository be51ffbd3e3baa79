// The frames of the bridge: golden bytes shared with the Python tests, every way to cut a stream, and garbage.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ANSWER,
  AnswerDecoder,
  type AnswerHandler,
  DATA,
  END,
  ERROR,
  FrameError,
  HEAD,
  HEADER_BYTES,
  HINTS,
  MAX_FRAME_BYTES,
  type RequestFrame,
  writeRequests,
} from '../../src/bridge/frames.ts';
import { ROOT } from '../helpers/paths.ts';

type Event =
  | readonly ['answer', id: number, status: number, head: string, bodyHex: string, appUs: number | null]
  | readonly ['head', id: number, status: number, head: string]
  | readonly ['data', id: number, bodyHex: string]
  | readonly ['end', id: number, cut: boolean, appUs: number]
  | readonly ['error', id: number, appUs: number]
  | readonly ['hints', id: number, head: string]
  | readonly ['environ', id: number, head: string]
  | readonly ['last', id: number]
  | readonly ['extend', id: number, ms: number]
  | readonly ['ready'];

interface Golden {
  readonly requests: readonly {
    readonly name: string;
    readonly id: number;
    readonly flags: number;
    readonly environ: readonly (readonly [string, string])[];
    readonly body: string | null;
    readonly bytes: readonly string[];
  }[];
  readonly answers: readonly {
    readonly name: string;
    readonly id: number;
    readonly events: readonly Event[];
    readonly bytes: readonly string[];
  }[];
}

const golden = JSON.parse(readFileSync(join(ROOT, 'test', 'golden', 'frames.json'), 'utf8')) as Golden;
const hex = (parts: readonly string[]): Buffer => Buffer.from(parts.join(''), 'hex');

/** Hands `chunks` to a decoder. Pieces of a body that came apart are put together again. */
function decode(chunks: Iterable<Buffer>): { events: Event[]; betweenFrames: boolean } {
  const events: Event[] = [];
  const decoder = new AnswerDecoder({
    answer: (id, status, head, buffer, start, end, appUs) => {
      assert.ok(start <= end && end <= buffer.length);
      events.push(['answer', id, status, head, buffer.toString('hex', start, end), appUs]);
    },
    head: (id, status, head) => events.push(['head', id, status, head]),
    data: (id, buffer, start, end) => {
      assert.ok(start <= end && end <= buffer.length);
      events.push(['data', id, buffer.toString('hex', start, end)]);
    },
    end: (id, cut, appUs) => events.push(['end', id, cut, appUs]),
    error: (id, appUs) => events.push(['error', id, appUs]),
    hints: (id, head) => events.push(['hints', id, head]),
    environ: (id, head) => events.push(['environ', id, head]),
    last: (id) => events.push(['last', id]),
    extend: (id, ms) => events.push(['extend', id, ms]),
    ready: () => events.push(['ready']),
  });
  for (const chunk of chunks) decoder.push(chunk);
  return { events: joinData(events), betweenFrames: decoder.betweenFrames };
}

/** Where one piece of a body ends and the next begins has no meaning. */
function joinData(events: readonly Event[]): Event[] {
  const joined: Event[] = [];
  for (const event of events) {
    const last = joined.at(-1);
    if (event[0] !== 'data') joined.push(event);
    else if (last?.[0] === 'data' && last[1] === event[1])
      joined[joined.length - 1] = ['data', event[1], last[2] + event[2]];
    else if (event[2] !== '') joined.push(event);
  }
  return joined;
}

function* cutAt(bytes: Buffer, positions: readonly number[]): Generator<Buffer> {
  let start = 0;
  for (const end of [...positions, bytes.length]) {
    // A copy, as the buffer that is read into is used again: what the decoder keeps must be its own.
    const chunk = Buffer.from(bytes.subarray(start, end));
    yield chunk;
    chunk.fill(0xee);
    start = end;
  }
}

// ---- golden bytes

const REQUESTS = golden.requests.map(({ id, flags, environ, body }) => ({
  id,
  flags,
  block: environ.flat().join('\0'),
  body: body === null ? null : Buffer.from(body, 'hex'),
}));

function written(frames: readonly RequestFrame[]): Buffer {
  const pipe = new PassThrough();
  writeRequests(frames, pipe);
  assert.equal(pipe.writableCorked, 0);
  const pieces: Buffer[] = [];
  for (let piece = pipe.read(); piece !== null; piece = pipe.read()) pieces.push(piece);
  return Buffer.concat(pieces);
}

for (const [at, { name, bytes }] of golden.requests.entries()) {
  test(`golden request: ${name}`, () => {
    assert.equal(written(REQUESTS.slice(at, at + 1)).toString('hex'), hex(bytes).toString('hex'));
  });
}

for (const { name, events, bytes } of golden.answers) {
  test(`golden answer: ${name}`, () => {
    assert.deepEqual(decode([hex(bytes)]), { events: joinData(events), betweenFrames: true });
  });

  test(`golden answer in two pieces, wherever it is cut: ${name}`, () => {
    const whole = hex(bytes);
    for (let at = 1; at < whole.length; at++) {
      assert.deepEqual(decode(cutAt(whole, [at])), { events: joinData(events), betweenFrames: true }, `cut at ${at}`);
    }
  });
}

const ALL = Buffer.concat(golden.answers.map((answer) => hex(answer.bytes)));
const ALL_EVENTS = joinData(golden.answers.flatMap((answer) => answer.events));

test('golden answers byte by byte', () => {
  const positions = Array.from(ALL.keys()).slice(1);
  assert.deepEqual(decode(cutAt(ALL, positions)), { events: ALL_EVENTS, betweenFrames: true });
});

test('several requests are written behind each other', () => {
  assert.deepEqual(written(REQUESTS), Buffer.concat(golden.requests.map(({ bytes }) => hex(bytes))));
});

// ---- every chunking of every stream

interface Part {
  readonly kind: number;
  readonly id: number;
  readonly status: number;
  readonly flag: boolean;
  readonly head: Buffer;
  readonly body: Buffer;
  readonly appUs: number;
}

function header(kind: number, lengthBytes: number, headBytes: number, part?: Part): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.writeUInt32LE(lengthBytes, 0);
  bytes[4] = kind;
  bytes[5] = part?.flag ? 1 : 0;
  bytes.writeUInt16LE(part?.status ?? 0, 6);
  bytes.writeUInt32LE(part?.id ?? 1, 8);
  bytes.writeUInt32LE(headBytes, 12);
  bytes.writeUInt32LE(part?.appUs ?? 0, 16);
  return bytes;
}

function encodePart(part: Part): Buffer {
  return Buffer.concat([
    header(part.kind, part.head.length + part.body.length, part.head.length, part),
    part.head,
    part.body,
  ]);
}

function eventsOf({ kind, id, status, flag, head, body, appUs }: Part): Event[] {
  const headText = head.toString('latin1');
  const bodyHex = body.toString('hex');
  if (kind === ANSWER) return [['answer', id, status, headText, bodyHex, appUs]];
  if (kind === HEAD && flag) return [['answer', id, status, headText, bodyHex, null]];
  if (kind === HEAD)
    return [
      ['head', id, status, headText],
      ['data', id, bodyHex],
    ];
  if (kind === DATA) return [['data', id, bodyHex], ...(flag ? [['last', id] as const] : [])];
  if (kind === END) return [['end', id, flag, appUs]];
  if (kind === ERROR) return [['error', id, appUs]];
  return [['hints', id, headText]];
}

const u32 = fc.integer({ min: 0, max: 0xffffffff });
const bytes = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength, size: 'max' }).map((array) => Buffer.from(array));
const part: fc.Arbitrary<Part> = fc
  .record({
    kind: fc.constantFrom(ANSWER, HEAD, DATA, END, ERROR, HINTS),
    id: u32,
    status: fc.integer({ min: 0, max: 0xffff }),
    flag: fc.boolean(),
    head: bytes(60),
    body: bytes(120),
    appUs: u32,
  })
  .map((any) => {
    const empty = Buffer.alloc(0);
    const { kind } = any;
    const head = kind === ANSWER || kind === HEAD || kind === HINTS ? any.head : empty;
    const body = kind === ANSWER || kind === HEAD || kind === DATA ? any.body : empty;
    return { ...any, head, body };
  });
const stream = fc.array(part, { minLength: 1, maxLength: 12 });

/** Positions to cut at, as fractions of the length, many of them close to each other. */
const fractions = fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 0, max: 25 })), {
  maxLength: 12,
});

test('every chunking of a stream gives the same events', () => {
  fc.assert(
    fc.property(stream, fractions, (parts, cuts) => {
      const whole = Buffer.concat(parts.map(encodePart));
      const expected = joinData(parts.flatMap(eventsOf));
      const positions = cuts
        .map(([fraction, more]) => Math.min(whole.length, Math.floor(fraction * whole.length) + more))
        .sort((a, b) => a - b);
      assert.deepEqual(decode(cutAt(whole, positions)), { events: expected, betweenFrames: true });
    }),
    { numRuns: 2000 },
  );
});

test('a stream cut short is not between frames, unless it is', () => {
  fc.assert(
    fc.property(stream, fc.nat(), (parts, seed) => {
      const frames = parts.map(encodePart);
      const whole = Buffer.concat(frames);
      const at = seed % (whole.length + 1);
      const boundaries = new Set([0]);
      let sum = 0;
      for (const frame of frames) {
        sum += frame.length;
        boundaries.add(sum);
      }
      assert.equal(decode([whole.subarray(0, at)]).betweenFrames, boundaries.has(at));
    }),
    { numRuns: 1000 },
  );
});

test('a body of several megabytes passes in pieces of 64 KiB', () => {
  const body = Buffer.alloc(5 * 1024 * 1024, 'abcdefghijk');
  const parts: Part[] = [HEAD, DATA, ANSWER].map((kind) => {
    const head = kind === DATA ? Buffer.alloc(0) : Buffer.from('OK');
    return { kind, id: 5, status: 200, flag: false, head, body, appUs: 1 };
  });
  const whole = Buffer.concat(parts.map(encodePart));
  const positions = Array.from({ length: Math.floor(whole.length / 65536) }, (_, index) => (index + 1) * 65536);
  assert.deepEqual(decode(cutAt(whole, positions)).events, joinData(parts.flatMap(eventsOf)));
});

// ---- what is no frame

/** Decodes and returns what was thrown, which may only be a FrameError. */
function refusal(chunks: Iterable<Buffer>): FrameError | null {
  try {
    decode(chunks);
    return null;
  } catch (error) {
    assert.ok(error instanceof FrameError, String(error));
    return error;
  }
}

test('garbage is refused with a FrameError or waited for, never worse', () => {
  let refused = 0;
  fc.assert(
    fc.property(bytes(200), fractions, (garbage, cuts) => {
      const positions = cuts.map(([fraction]) => Math.floor(fraction * garbage.length)).sort((a, b) => a - b);
      if (refusal(cutAt(garbage, positions)) !== null) refused++;
    }),
    { numRuns: 2000 },
  );
  assert.ok(refused > 200, `${refused} were refused`);
});

test('a valid stream with a few bytes changed gives events or a FrameError, the same in every chunking', () => {
  const changes = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(stream, changes, fractions, (parts, edits, cuts) => {
      const whole = Buffer.concat(parts.map(encodePart));
      for (const [at, value] of edits) whole[at % whole.length] = value;
      const positions = cuts.map(([fraction]) => Math.floor(fraction * whole.length)).sort((a, b) => a - b);
      assert.equal(refusal(cutAt(whole, positions))?.message, refusal([whole])?.message);
    }),
    { numRuns: 2000 },
  );
});

const IMPOSSIBLE: readonly (readonly [string, Buffer])[] = [
  ['an ANSWER longer than the limit', header(ANSWER, MAX_FRAME_BYTES + 1, 0)],
  ['an END longer than the limit', header(END, 0xffffffff, 0)],
  ['an ANSWER whose head is longer than itself', header(ANSWER, 10, 11)],
  ['a DATA whose head is longer than itself', header(DATA, 10, 11)],
  ['a HEAD whose head is longer than the limit', header(HEAD, 0xffffffff, MAX_FRAME_BYTES + 1)],
  ['kind 0', header(0, 0, 0)],
  ['a request', header(1, 0, 0)],
  ['a request with a payload that never comes', header(1, MAX_FRAME_BYTES, 0)],
  ['kind 12', header(12, 0, 0)],
  ['kind 255', header(255, 1000, 0)],
];

for (const [name, bad] of IMPOSSIBLE) {
  test(`refused as soon as its header is there: ${name}`, () => {
    const everyByte = Array.from(bad.keys()).slice(1);
    assert.ok(refusal([bad]), 'in one piece');
    assert.ok(refusal(cutAt(bad, everyByte)), 'byte by byte');
    assert.ok(refusal([Buffer.concat([ALL, bad])]), 'behind others');
    assert.equal(refusal([bad.subarray(0, HEADER_BYTES - 1)]), null, 'not before');
  });
}

test('a DATA may be longer than the limit of other frames, and is not kept', () => {
  const piece = Buffer.alloc(1024 * 1024, 'x');
  let bytesSeen = 0;
  const fail = (): never => assert.fail('not a DATA');
  const decoder = new AnswerDecoder({
    answer: fail,
    head: fail,
    data: (_id, buffer, start, end) => {
      assert.equal(buffer, piece);
      bytesSeen += end - start;
    },
    end: fail,
    error: fail,
    hints: fail,
    environ: fail,
    last: fail,
    extend: fail,
    ready: fail,
  });
  decoder.push(header(DATA, MAX_FRAME_BYTES + piece.length, 0));
  for (let sent = 0; sent < MAX_FRAME_BYTES + piece.length; sent += piece.length) decoder.push(piece);
  assert.equal(bytesSeen, MAX_FRAME_BYTES + piece.length);
  assert.ok(decoder.betweenFrames);
});

const ignore = (): void => {};
const IGNORED: AnswerHandler = {
  answer: ignore,
  head: ignore,
  data: ignore,
  end: ignore,
  error: ignore,
  hints: ignore,
  environ: ignore,
  last: ignore,
  extend: ignore,
  ready: ignore,
};

test('the largest ANSWER', () => {
  const body = Buffer.alloc(MAX_FRAME_BYTES, 1);
  let seen = 0;
  const decoder = new AnswerDecoder({
    ...IGNORED,
    answer: (_id, _status, _head, _buffer, start, end) => {
      seen = end - start;
    },
  });
  decoder.push(header(ANSWER, MAX_FRAME_BYTES, 0));
  decoder.push(body);
  assert.equal(seen, MAX_FRAME_BYTES);
});

test('a head is told whether a piece of the body comes with it', () => {
  const follows: boolean[] = [];
  const decoder = new AnswerDecoder({
    ...IGNORED,
    head: (_id, _status, _head, dataFollows) => follows.push(dataFollows),
  });
  for (const body of ['', 'piece']) {
    const part = {
      kind: HEAD,
      id: 1,
      status: 200,
      flag: false,
      head: Buffer.from('OK'),
      body: Buffer.from(body),
      appUs: 0,
    };
    decoder.push(encodePart(part).subarray(0, HEADER_BYTES + 2)); // the piece may come later
    decoder.push(encodePart(part).subarray(HEADER_BYTES + 2));
  }
  assert.deepEqual(follows, [false, true]);
});
