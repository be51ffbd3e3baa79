// The lines of `nunicorn top` in terminals of several widths.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { topView } from '../../src/control/top-view.ts';
import type { Status } from '../../src/metrics/status.ts';

const TIMES = { mean: 12.3, p50: 12.3, p90: 98.7, p99: 98.7 };
const MEMORY = { rss: 99e9, pss: null };
const STATUS = {
  server: {
    version: '0.1.0',
    app: 'project.wsgi',
    pid: 4194303,
    state: 'running',
    uptime: 1e6,
    listeners: ['127.0.0.1:8000'],
    memory: MEMORY,
    moldMemory: { rss: null, pss: null },
  },
  recent: {
    utilization: 1,
    requestsPerSecond: 9999.9,
    errorRatio: 0.123,
    latency: TIMES,
    queueTime: TIMES,
    appTime: TIMES,
    perRequest: { cpu: 12.345, gilWait: 12.345, cpuWait: 12.345, io: 75.321 },
  },
  queue: { depth: 2048, limit: 2048 },
  totals: { requests: 12345678, clientDisconnects: 1234 },
  workers: [
    {
      number: 1,
      pid: 4194303,
      state: 'draining',
      stuck: false,
      age: 1e6,
      requests: 123456789,
      memory: MEMORY,
      slots: ['idle', 'busy', 'reserved', 'draining', 'stuck', 'lost'],
    },
  ],
  fronts: [],
  events: [],
} as unknown as Status;

function plain(columns: number, colors: boolean): string[] {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return topView(STATUS, { columns, rows: 24, colors }).map((line) => line.replace(/\x1b\[[\d;]*m/g, ''));
}

test('in 80 columns no figure is cut, and what the characters of the threads mean is there', () => {
  for (const colors of [false, true]) {
    const lines = plain(80, colors);
    assert.ok(lines.includes('ms/request  processor 12345  GIL 12345  no processor 12345  I/O and sleep 75321'));
    assert.ok(lines.includes('threads: . idle  # busy  - reserved  ~ draining  ! stuck  ? lost'));
    assert.deepEqual(
      lines.filter((line) => line.endsWith('>')),
      [],
    );
  }
});

test('one is no plural, and who left is no rest', () => {
  for (const [count, clients, connections] of [
    [0, '0 clients left early', '0 connections '],
    [1, '1 client left early', '1 connection '],
    [2, '2 clients left early', '2 connections '],
  ] as const) {
    const totals = { requests: 9, clientDisconnects: count };
    const fronts = [{ number: 1, pid: 4711, connections: count, memory: MEMORY }];
    const lines = topView({ ...STATUS, totals, fronts } as unknown as Status, { columns: 80, rows: 24, colors: false });
    assert.ok(lines.some((line) => line.endsWith(`9 in all   ${clients}`)));
    assert.ok(lines.some((line) => line.startsWith('front 1') && line.includes(`   ${connections}`)));
  }
});

test('a line that is cut says so, and is as wide as the terminal', () => {
  for (const colors of [false, true]) {
    const whole = plain(200, colors);
    const lines = plain(60, colors);
    for (const [at, line] of lines.entries()) {
      const full = whole[at] ?? '';
      assert.equal(line, full.length > 60 ? `${full.slice(0, 59)}>` : full);
    }
    assert.ok(lines.some((line) => line.endsWith('>')));
  }
});
