/**
 * What counting costs a request in the front, seen three ways. Profiled: which share of a front's time is spent in the files that
 * count, while it works at full speed; a share of one process is hardly disturbed by what else runs on the machine. Alone: the
 * calls that a request makes, in a loop. In whole servers: some run side by side and get full speed in turns, for a second each,
 * in several rounds, since no two processes of a program are equally fast.
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
const WARM_UP_SECONDS = 1;
const PROFILED_SECONDS = 9;
/** Front and worker on one core, the load on another: nothing wanders. */
const CORES = availableParallelism() > 1 ? { server: '1', load: '0' } : { server: '0', load: '0' };

interface Rounds {
  /** Each with servers of its own. */
  readonly rounds: number;
  /** Of a second each, for each server of a round. */
  readonly slices: number;
}

const KINDS = ['without', 'again', 'counting', 'statsd'] as const;
type Kind = (typeof KINDS)[number];

interface Side {
  readonly kind: Kind;
  readonly running: Running;
  readonly front: readonly Process[];
  readonly us: number[];
}

/** Processor time of the front for each request, in microseconds: the median of its slices. */
type Round = Readonly<Record<Kind, number>>;

export async function costs(planned: Rounds): Promise<string[]> {
  const sink = createSocket('udp4');
  sink.bind(0, '127.0.0.1');
  await new Promise((bound) => sink.once('listening', bound));
  const rounds: Round[] = [];
  try {
    const args: Readonly<Record<Kind, readonly string[]>> = {
      without: [],
      again: [],
      counting: ['--admin-bind', 'ADMIN'],
      statsd: ['--statsd-host', `127.0.0.1:${sink.address().port}`],
    };
    for (let at = 0; at < planned.rounds; at++) {
      const round = await measureRound(args, planned.slices, at);
      const figures = KINDS.map((kind) => `${kind} ${round[kind].toFixed(2)}`).join(', ');
      console.error(`${at + 1}/${planned.rounds} us for each request: ${figures}`);
      rounds.push(round);
    }
  } finally {
    sink.close();
  }
  const [share, alone] = [await profiledShare(PROFILED_SECONDS), await callsAlone()];
  const us = share * median(rounds.map(({ counting }) => counting));
  return [
    '## What counting costs',
    '',
    `Processor time of the front for each request in µs, hello world, ${CONNECTIONS} connections at full speed. ${planned.rounds} rounds with servers of`,
    `their own, each of which is loaded in turns, ${planned.slices} times a second each; of a round the median. Difference to the server`,
    'without: mean over the rounds, and in which interval it is with 95 % (bootstrap over the rounds).',
    '',
    '| | µs | difference |',
    '| --- | --- | --- |',
    `| without | ${median(rounds.map(({ without }) => without)).toFixed(2)} | |`,
    tableRow('the same once more, for the noise', 'again', rounds),
    tableRow('`--admin-bind`, scraped each second', 'counting', rounds),
    tableRow('`--statsd-host`', 'statsd', rounds),
    '',
    `Profiled at full speed, a front spends ${(share * 100).toFixed(1)} % of its time in what counts and reports: ${us.toFixed(2)} µs for each request. Alone, in a`,
    `loop, what a request adds to counters takes ${alone.toFixed(2)} µs. The limit for counting is ${LIMIT_US} µs.`,
    '',
  ];
}

function tableRow(name: string, kind: Kind, rounds: readonly Round[]): string {
  const differences = rounds.map((round) => round[kind] - round.without);
  const means = Array.from({ length: 4000 }, () => mean(resample(differences, Math.random)));
  const [low, high] = [quantile(means, 0.025), quantile(means, 0.975)];
  const cells = [
    median(rounds.map((round) => round[kind])).toFixed(2),
    `${mean(differences).toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`,
  ];
  return `| ${name} | ${cells.join(' | ')} |`;
}

async function measureRound(
  args: Readonly<Record<Kind, readonly string[]>>,
  slices: number,
  round: number,
): Promise<Round> {
  const sides: Side[] = [];
  for (const kind of KINDS) sides.push(await side(kind, args[kind]));
  // None is always the first or behind the same one.
  for (let slice = 0; slice < slices; slice++)
    for (let turn = 0; turn < sides.length; turn++) {
      const one = sides[(turn * (slice % 2 === 0 ? 1 : 3) + round + slice) % sides.length];
      if (one !== undefined) one.us.push(await measure(one));
    }
  await Promise.all(sides.map(({ running }) => running.program.stop()));
  return Object.fromEntries(sides.map(({ kind, us }) => [kind, median(us)])) as Round;
}

async function side(kind: Kind, args: readonly string[]): Promise<Side> {
  const more = ['-w', '1', '--threads', '4', ...args];
  const running = await start('hello:application', { args: more, cores: CORES.server });
  await fullSpeed(targetOf(running.port, CORES.load), { connections: CONNECTIONS, seconds: WARM_UP_SECONDS });
  const front = readTree(running.program.pid).filter(({ pid }) => titleOf(pid).includes(': front'));
  return { kind, running, front, us: [] };
}

async function measure({ kind, running, front }: Side): Promise<number> {
  const { port, admin } = running;
  const scrape = kind === 'counting' ? sleep(500).then(() => fetch(`http://127.0.0.1:${admin}/metrics`)) : null;
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
