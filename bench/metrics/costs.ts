/**
 * What counting costs a request in the front, seen three ways. Profiled: which share of a front's time is spent in the files that
 * count, while it works at full speed; a share of one process is hardly disturbed by what else runs on the machine. Alone: the
 * calls that a request makes, in a loop. In whole servers: two run side by side and get full speed in turns, for a second each,
 * in several pairs, since no two processes of a program are equally fast.
 */
import { createSocket } from 'node:dgram';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cpuNsOf, type Process, readTree } from '../../src/size/proc.ts';
import { mean, median, quantile, resample } from '../../src/size/statistics.ts';
import { fullSpeed } from '../loads.ts';
import { runToEnd } from '../programs.ts';
import { ROOT } from '../servers.ts';
import { type Running, start, targetOf } from './servers.ts';

const CONNECTIONS = 32;
const LIMIT_US = 1;
/** Front and worker on one core, the load on another: nothing wanders. */
const CORES = availableParallelism() > 1 ? { server: '1', load: '0' } : { server: '0', load: '0' };

interface Rounds {
  readonly pairs: number;
  /** Of a second each, for each server of a pair. */
  readonly slices: number;
}

interface Side {
  readonly running: Running;
  readonly front: readonly Process[];
  readonly scraped: boolean;
  readonly us: number[];
}

/** Processor time of the front for each request, in microseconds, of each pair: the median of its slices. */
interface Pair {
  readonly without: number;
  readonly counting: number;
}

export async function costs(rounds: Rounds): Promise<string[]> {
  const list = await pairs('--admin-bind', ['--admin-bind', 'ADMIN'], true, rounds);
  const same = await pairs('the same twice', [], false, rounds);
  const [share, alone] = [await profiledShare(rounds.slices), await callsAlone()];
  const us = share * median(list.map(({ counting }) => counting));
  return [
    '## What counting costs',
    '',
    ...table({ '`--admin-bind`, scraped each second': list, 'the same twice, for the noise': same }, rounds),
    `Profiled at full speed, a front spends ${(share * 100).toFixed(1)} % of its time in what counts and reports: ${us.toFixed(2)} µs for each request. Alone, in a`,
    `loop, what a request adds to counters takes ${alone.toFixed(2)} µs. The limit for counting is ${LIMIT_US} µs.`,
    '',
  ];
}

export async function statsdCosts(rounds: Rounds): Promise<string[]> {
  const sink = createSocket('udp4');
  sink.bind(0, '127.0.0.1');
  await new Promise((bound) => sink.once('listening', bound));
  try {
    const args = ['--statsd-host', `127.0.0.1:${sink.address().port}`];
    const list = await pairs('--statsd-host', args, false, rounds);
    return ['## What statsd costs', '', ...table({ '`--statsd-host`': list }, rounds)];
  } finally {
    sink.close();
  }
}

function table(rows: Readonly<Record<string, readonly Pair[]>>, { pairs, slices }: Rounds): string[] {
  return [
    `Processor time of the front for each request in µs, hello world, ${CONNECTIONS} connections at full speed. ${pairs} pairs of servers, each`,
    `loaded in turns, ${slices} times a second each; of a pair the median. Difference: mean over the pairs, and in which interval it is`,
    'with 95 % (bootstrap over the pairs).',
    '',
    '| | without | with | difference |',
    '| --- | --- | --- | --- |',
    ...Object.entries(rows).map(([name, list]) => tableRow(name, list)),
    '',
  ];
}

function tableRow(name: string, list: readonly Pair[]): string {
  const differences = list.map(({ without, counting }) => counting - without);
  const means = Array.from({ length: 4000 }, () => mean(resample(differences, Math.random)));
  const [low, high] = [quantile(means, 0.025), quantile(means, 0.975)];
  const cells = [
    median(list.map(({ without }) => without)).toFixed(2),
    median(list.map(({ counting }) => counting)).toFixed(2),
    `${mean(differences).toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`,
  ];
  return `| ${name} | ${cells.join(' | ')} |`;
}

async function pairs(name: string, args: readonly string[], scraped: boolean, rounds: Rounds): Promise<Pair[]> {
  const list: Pair[] = [];
  for (let round = 0; round < rounds.pairs; round++) {
    const [without, counting] = [await side([], false), await side(args, scraped)];
    for (let slice = 0; slice < rounds.slices; slice++)
      for (const one of slice % 2 === 0 ? [without, counting] : [counting, without]) one.us.push(await measure(one));
    for (const { running } of [without, counting]) await running.program.stop();
    const pair = { without: median(without.us), counting: median(counting.us) };
    console.error(
      `${round + 1}/${rounds.pairs} ${name}: ${pair.without.toFixed(2)} and ${pair.counting.toFixed(2)} us`,
    );
    list.push(pair);
  }
  return list;
}

async function side(args: readonly string[], scraped: boolean): Promise<Side> {
  const more = ['-w', '1', '--threads', '4', ...args];
  const running = await start('hello:application', { args: more, cores: CORES.server });
  await fullSpeed(targetOf(running.port, CORES.load), { connections: CONNECTIONS, seconds: 2 });
  const front = readTree(running.program.pid).filter(({ pid }) => titleOf(pid).includes(': front'));
  return { running, front, scraped, us: [] };
}

async function measure({ running, front, scraped }: Side): Promise<number> {
  const { port, admin } = running;
  const scrape = scraped ? sleep(500).then(() => fetch(`http://127.0.0.1:${admin}/metrics`)) : null;
  const before = cpuNsOf(front);
  const { requests } = await fullSpeed(targetOf(port, CORES.load), { connections: CONNECTIONS, seconds: 1 });
  const after = cpuNsOf(front);
  await (await scrape)?.arrayBuffer();
  return (after - before) / 1000 / requests;
}

function titleOf(pid: number): string {
  return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
}

interface Profile {
  readonly nodes: readonly ProfileNode[];
  readonly samples: readonly number[];
  /** Microseconds from the sample before. */
  readonly timeDeltas: readonly number[];
}

interface ProfileNode {
  readonly id: number;
  readonly callFrame: { readonly functionName: string; readonly url: string };
  readonly children?: readonly number[];
}

/** Of the time that a front works: spent in the files that count, and what they call. */
async function profiledShare(seconds: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'profile-'));
  const file = join(folder, 'front.json');
  const env = { NODE_OPTIONS: `--require ${join(ROOT, 'bench', 'metrics', 'profiled.cjs')}`, PROFILE: file };
  const args = ['-w', '1', '--threads', '4', '--admin-bind', 'ADMIN'];
  try {
    const { port, program } = await start('hello:application', { args, env, cores: CORES.server });
    await fullSpeed(targetOf(port, CORES.load), { connections: CONNECTIONS, seconds });
    await program.stop();
    return shareOfCounting(JSON.parse(readFileSync(file, 'utf8')) as Profile);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function shareOfCounting({ nodes, samples, timeDeltas }: Profile): number {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const self = new Map<number, number>();
  for (const [at, id] of samples.entries()) self.set(id, (self.get(id) ?? 0) + (timeDeltas[at] ?? 0));
  let working = 0;
  let counting = 0;
  const walk = ({ id, callFrame, children = [] }: ProfileNode, within: boolean): void => {
    const counts = within || /front-metrics|metrics\/counters/.test(callFrame.url);
    if (callFrame.functionName !== '(idle)') working += self.get(id) ?? 0;
    if (counts) counting += self.get(id) ?? 0;
    for (const child of children) {
      const node = byId.get(child);
      if (node !== undefined) walk(node, counts);
    }
  };
  const [root] = nodes;
  if (root !== undefined) walk(root, false);
  return counting / working;
}

/** In a process of its own, as a front is: what else this one has done would slow it down. */
async function callsAlone(): Promise<number> {
  const command = [process.execPath, new URL('calls.js', import.meta.url).pathname];
  return Number(await runToEnd(command, { cores: CORES.server, timeoutMs: 60_000 }));
}
