/** How long health checks, status and scrapes take while every worker holds the interpreter's lock in C. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlClient } from '../../src/control/client.ts';
import type { Requests } from '../../src/metrics/status.ts';
import { median } from '../../src/size/statistics.ts';
import { runToEnd } from '../programs.ts';
import { ROOT } from '../servers.ts';
import { start } from './servers.ts';

const WORKERS = 2;
const WAITING = 20;
const TIMES = 100;
/** Each starts a Node. */
const COMMANDS = 9;
const LIMIT_MS = 100;

export async function stuck(): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'stuck-'));
  const socket = join(folder, 'ctl');
  const args = ['-w', `${WORKERS}`, '--admin-bind', 'ADMIN', '--control-socket', socket];
  const { port, admin, program } = await start('hold_lock:application', { args });
  const ask = (path: string): Promise<unknown> => fetch(`http://127.0.0.1:${port}${path}`).catch(() => {});
  const asked = Array.from({ length: WORKERS }, () => ask('/hold-lock'));
  const read = async (path: string): Promise<unknown> => {
    const response = await fetch(`http://127.0.0.1:${admin}${path}`);
    const text = await response.text();
    if (response.status !== 200) throw new Error(`${path}: ${response.status}`);
    return path === '/requests' ? JSON.parse(text) : text;
  };
  try {
    for (let running = 0; running < WORKERS; await sleep(50)) {
      const { requests } = (await read('/requests')) as Requests;
      running = requests.filter(({ phase, path }) => phase === 'running' && path === '/hold-lock').length;
    }
    for (let i = 0; i < WAITING; i++) asked.push(ask('/'));
    const control = await ControlClient.open(socket);
    const rows: string[] = [];
    for (const path of ['/livez', '/readyz', '/status', '/requests', '/metrics'])
      rows.push(await row(`\`${path}\``, TIMES, () => read(path)));
    rows.push(await row('`show requests` at the control socket', TIMES, () => control.send('show requests')));
    control.close();
    const command = [process.execPath, join(ROOT, 'bin', 'nunicorn.js'), 'ctl', '-s', socket, 'show', 'requests'];
    const once = (): Promise<unknown> => runToEnd(command, { cores: undefined, timeoutMs: 10_000 });
    rows.push(await row('`nunicorn ctl show requests`, with the start of Node', COMMANDS, once));
    return page(rows);
  } finally {
    await program.stop();
    await Promise.all(asked);
    rmSync(folder, { recursive: true });
  }
}

async function row(what: string, times: number, work: () => Promise<unknown>): Promise<string> {
  const took: number[] = [];
  for (let turn = 0; turn < times; turn++) {
    const began = performance.now();
    await work();
    took.push(performance.now() - began);
  }
  return `| ${what} | ${median(took).toFixed(1)} | ${Math.max(...took).toFixed(1)} |`;
}

function page(rows: readonly string[]): string[] {
  return [
    '## While every worker holds the interpreter lock in C',
    '',
    `${WORKERS} workers, ${WAITING} requests wait. Milliseconds of ${TIMES} times (the command: ${COMMANDS}), one after the other. The limit for the median is`,
    `${LIMIT_MS} ms.`,
    '',
    '| | median | most |',
    '| --- | --- | --- |',
    ...rows,
    '',
  ];
}
