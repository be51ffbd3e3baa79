/** Answers of the control socket as text for a terminal. */
import { escapeControls, escapeJson } from '../log/escape.ts';
import type { Requests } from '../metrics/status.ts';

type Row = readonly (string | number | boolean | null | undefined)[];

/** Columns as wide as their widest cell; numbers to the right. */
function table(head: readonly string[], rows: readonly Row[]): string {
  const cells = rows.map((row) => row.map((cell) => (cell === null || cell === undefined ? '-' : String(cell))));
  const isNumber = head.map((_, at) => rows.every((row) => typeof row[at] === 'number' || row[at] == null));
  const widths = head.map((title, at) => Math.max(title.length, ...cells.map((row) => (row[at] ?? '').length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, at) => (isNumber[at] ? cell.padStart(widths[at] ?? 0) : cell.padEnd(widths[at] ?? 0)))
      .join('  ')
      .trimEnd();
  return [line(head), ...cells.map(line)].join('\n');
}

interface ShownWorker {
  readonly number: number;
  readonly pid: number;
  readonly state: string;
  readonly aborted: boolean;
  readonly reason: string;
  readonly uptime: number;
  readonly requests: number;
}

function workersTable(workers: readonly ShownWorker[]): string {
  if (workers.length === 0) return 'No workers';
  return table(
    ['WORKER', 'PID', 'STATE', 'UPTIME', 'REQUESTS', 'STARTED FOR'],
    workers.map((worker) => [
      worker.number,
      worker.pid,
      worker.aborted ? `${worker.state}, stuck` : worker.state,
      duration(worker.uptime),
      worker.requests,
      worker.reason,
    ]),
  );
}

export function duration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)}s`;
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 86_400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60];
  const text = parts.map((part, at) => `${part}${'dhms'[at]}`);
  return text.slice(parts.findIndex((part) => part > 0)).join(' ');
}

/** By the words of the command; what is not here is shown as JSON. */
const FORMATS: Readonly<Record<string, (data: never) => string>> = {
  'show workers': ({ workers }: { workers: readonly ShownWorker[] }) => workersTable(workers),
  'show all': (data: { arbiter: { pid: number }; web_workers: readonly ShownWorker[] }) =>
    `Master: pid ${data.arbiter.pid}\n\n${workersTable(data.web_workers)}`,
  'show boot': ({ workers }: { workers: readonly (ShownWorker & { boot_seconds: number })[] }) =>
    table(
      ['WORKER', 'PID', 'STATE', 'BOOT', 'STARTED FOR'],
      workers.map(({ number, pid, state, boot_seconds: boot, reason }) => [
        number,
        pid,
        state,
        state === 'starting' ? `${duration(boot)} so far` : duration(boot),
        reason,
      ]),
    ),
  'show requests': ({ requests, silentFronts }: Requests) =>
    [
      requests.length === 0
        ? 'No requests'
        : table(
            ['AGE', 'PHASE', 'WORKER', 'THREAD', 'CLIENT', 'REQUEST'],
            requests.map((one) => [
              duration(one.age),
              one.phase,
              one.worker,
              one.thread,
              one.client,
              `${one.method} ${one.path}`,
            ]),
          ),
      ...silentFronts.map((number) => `Front ${number} did not answer: its requests are missing here`),
    ].join('\n'),
  'show stats': (data: Readonly<Record<string, number | null>>) =>
    [
      `Uptime:           ${duration(data.uptime ?? 0)}`,
      `PID:              ${data.pid}`,
      `Workers current:  ${data.workers_current}`,
      `Workers target:   ${data.workers_target}`,
      `Workers spawned:  ${data.workers_spawned}`,
      `Workers killed:   ${data.workers_killed}`,
      `Reloads:          ${data.reloads}`,
    ].join('\n'),
  'show listeners': ({ listeners }: { listeners: readonly { address: string; type: string; fd: number }[] }) =>
    table(
      ['ADDRESS', 'TYPE', 'FD'],
      listeners.map(({ address, type, fd }) => [address, type, fd]),
    ),
  'show config': (data: Readonly<Record<string, unknown>>) =>
    Object.entries(data)
      .map(([name, value]) => `${name}: ${Array.isArray(value) ? value.join(', ') : value}`)
      .join('\n'),
  'show dirty': () => 'nunicorn has no dirty arbiter',
  backtrace: ({ stacks }: { stacks: string }) => stacks.trimEnd(),
  help: ({ commands }: { commands: Readonly<Record<string, string>> }) => {
    const width = Math.max(...Object.keys(commands).map((command) => command.length));
    return Object.entries(commands)
      .map(([command, help]) => `  ${command.padEnd(width)}  ${help}`)
      .join('\n');
  },
};

export function asJson(data: unknown): string {
  return escapeJson(JSON.stringify(data, null, 2));
}

/** The answer to `command`, a line as typed. */
export function formatAnswer(command: string, data: unknown): string {
  const words = command.trim().toLowerCase().replace(/\s+/g, ' ');
  const found = Object.keys(FORMATS).find((own) => words === own || words.startsWith(`${own} `));
  const format = found === undefined ? undefined : FORMATS[found];
  return escapeControls(format === undefined ? asJson(data) : format(data as never));
}
