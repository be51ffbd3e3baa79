/** What `nunicorn top` shows, as lines of text: a pure function of a server's status and the size of the terminal. */
import type { Percentiles, PerRequest, SlotState, Status, WorkerStatus } from '../metrics/status.ts';
import { plural } from '../plural.ts';
import { duration } from './format.ts';

export interface View {
  /** Infinity: lines are as long as they are. */
  readonly columns: number;
  readonly rows: number;
  readonly colors: boolean;
}

type Color = 'bold' | 'dim' | 'green' | 'yellow' | 'red' | 'reverse';
const CODES: Readonly<Record<Color, number>> = { bold: 1, dim: 2, green: 32, yellow: 33, red: 31, reverse: 7 };

/** A character for each thread, so that they can be told apart without colours. */
const SLOTS: Readonly<Record<SlotState, { readonly mark: string; readonly color: Color }>> = {
  idle: { mark: '.', color: 'dim' },
  busy: { mark: '#', color: 'green' },
  reserved: { mark: '-', color: 'green' },
  draining: { mark: '~', color: 'yellow' },
  stuck: { mark: '!', color: 'red' },
  lost: { mark: '?', color: 'red' },
};
const BAR_CELLS = 20;

/** @returns at most `rows` lines, none wider than `columns` */
export function topView(status: Status, { columns, rows, colors }: View): string[] {
  const paint = (text: string, ...with_: readonly Color[]): string =>
    colors && text !== '' ? `\x1b[${with_.map((color) => CODES[color]).join(';')}m${text}\x1b[0m` : text;
  const { server, recent, queue, totals } = status;
  const load = Math.round(recent.utilization * 100);
  const filled = Math.min(BAR_CELLS, Math.round(recent.utilization * BAR_CELLS));
  const loadColor: Color = load > 90 ? 'red' : load > 70 ? 'yellow' : 'green';
  const errors = (recent.errorRatio * 100).toFixed(recent.errorRatio > 0 && recent.errorRatio < 0.1 ? 2 : 0);
  const lines: string[] = [
    `${paint('nunicorn', 'bold')} ${server.version}  ${server.app}  pid ${server.pid}  ${server.state}  up ${duration(server.uptime)}`,
    server.listeners.join('  '),
    '',
    `threads  [${paint('#'.repeat(filled), loadColor)}${' '.repeat(BAR_CELLS - filled)}] ${String(load).padStart(3)} % busy` +
      `   queue ${queue.depth}/${queue.limit === 0 ? 'any' : queue.limit}`,
    `requests ${recent.requestsPerSecond.toFixed(1)}/s   errors ${paint(`${errors} %`, recent.errorRatio > 0 ? 'red' : 'dim')}` +
      `   ${totals.requests} in all   ${plural(totals.clientDisconnects, 'client')} left early`,
    '',
    `${'ms'.padEnd(10)}${['mean', 'p50', 'p90', 'p99'].map((name) => name.padStart(9)).join('')}`,
    percentileLine('whole', recent.latency),
    percentileLine('in queue', recent.queueTime),
    percentileLine('in app', recent.appTime),
    ...(recent.perRequest === null ? [] : ['', partsLine(recent.perRequest)]),
    '',
    paint(LEGEND, 'dim'),
    colors ? paint(WORKER_HEAD.padEnd(columns), 'reverse') : WORKER_HEAD,
    ...status.workers.map((worker) => workerLine(worker, (mark, color) => paint(mark, color))),
    '',
    `master    pid ${server.pid}   ${megabytes(server.memory.pss ?? server.memory.rss)} MB`,
    ...(server.moldMemory.rss === null
      ? []
      : [`mold      ${megabytes(server.moldMemory.pss ?? server.moldMemory.rss)} MB`]),
    ...status.fronts.map(
      (front) =>
        `front ${front.number}   pid ${front.pid ?? '-'}   ${plural(front.connections, 'connection')}   ${megabytes(front.memory.pss ?? front.memory.rss)} MB`,
    ),
  ];
  const room = rows - lines.length - 2;
  if (room > 1 && status.events.length > 0) {
    lines.push('', paint('last changes', 'dim'));
    for (const event of status.events.slice(0, room - 1)) {
      const ago = duration(Math.max(0, Date.now() / 1000 - event.at));
      lines.push(
        `  worker ${event.worker} ${event.kind === 'exit' ? 'left' : event.kind === 'spawn' ? 'started' : 'ready'}: ${event.reason}, ${ago} ago`,
      );
    }
  }
  return lines.slice(0, rows).map((line) => cut(line, columns));
}

const MARKS = Object.entries(SLOTS).map(([state, { mark }]) => `${mark} ${state}`);
const LEGEND = `threads: ${MARKS.join('  ')}`;
const WORKER_HEAD = 'WORKER      PID  STATE     UPTIME       REQUESTS      MB  THREADS';

function workerLine(worker: WorkerStatus, paint: (mark: string, color: Color) => string): string {
  const threads = worker.slots.map((state) => paint(SLOTS[state].mark, SLOTS[state].color)).join('');
  const state = worker.stuck ? 'stuck' : worker.state;
  const cells = [
    String(worker.number).padStart(6),
    String(worker.pid ?? '-').padStart(8),
    state.padEnd(8),
    duration(worker.age).padEnd(11),
    String(worker.requests).padStart(9),
    megabytes(worker.memory.pss ?? worker.memory.rss).padStart(6),
    threads,
  ];
  return cells.join('  ').replace(/^(.{6}) {2}/, '$1 ');
}

function percentileLine(name: string, times: Percentiles | null): string {
  if (times === null) return `${name.padEnd(10)}${'-'.padStart(9)}`;
  const shown = [times.mean, times.p50, times.p90, times.p99].map((seconds) => milliseconds(seconds).padStart(9));
  return `${name.padEnd(10)}${shown.join('')}`;
}

/** What a thread's time goes into, for each request. 80 columns with numbers of five digits. */
function partsLine({ cpu, gilWait, cpuWait, io }: PerRequest): string {
  const parts = { processor: cpu, GIL: gilWait, 'no processor': cpuWait, 'I/O and sleep': io };
  const shown = Object.entries(parts).map(([name, seconds]) =>
    seconds === null ? '' : `  ${name} ${milliseconds(seconds)}`,
  );
  return `ms/request${shown.join('')}`;
}

function milliseconds(seconds: number): string {
  const ms = seconds * 1000;
  return ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0);
}

function megabytes(bytes: number | null): string {
  return bytes === null ? '-' : (bytes / 1024 / 1024).toFixed(0);
}

const CUT = '>';

/** To so many columns; escape sequences take none. What is cut ends in a mark: half a number is another number. */
function cut(line: string, columns: number): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  const parts = line.split(/(\x1b\[[\d;]*m)/);
  const isCode = (at: number): boolean => at % 2 === 1;
  const width = parts.reduce((sum, part, at) => sum + (isCode(at) ? 0 : part.length), 0);
  if (width <= columns) return line;
  let room = Math.max(0, columns - CUT.length);
  const kept = parts.map((part, at) => {
    if (isCode(at)) return part;
    const piece = part.slice(0, room);
    room -= piece.length;
    return piece;
  });
  return kept.join('') + CUT;
}
