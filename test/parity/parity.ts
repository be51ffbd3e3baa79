/**
 * The comparison with the real gunicorn: a scenario is run against both servers, each run gives a transcript (lines of
 * what a client or an operator sees), and the two are equal, or the scenario says why they differ. Then both transcripts
 * are on record in docs/differences.md, and the scenario fails when either of them changes.
 */
import { strict as assert } from 'node:assert';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ROOT } from '../helpers/paths.ts';
import { type Kind, Server, type ServerOptions } from '../helpers/server.ts';
import { type Difference, RECORDS, readDifferences } from './differences.ts';

/** What makes two transcripts differ on purpose: each side in a few words, and the reason. */
export interface Differs {
  readonly nunicorn: string;
  readonly gunicorn: string;
  readonly why: string;
}

export type Transcript = readonly string[];

const RECORDING = process.env.NUNICORN_PARITY_RECORD === '1';
const KINDS: readonly Kind[] = ['gunicorn', 'nunicorn'];
const recorded = readDifferences(readFileSync(join(ROOT, 'docs', 'differences.md'), 'utf8'));

/** Both transcripts, compared with each other or with the record. */
function settle(topic: string, name: string, seen: Record<Kind, Transcript>, differs: Differs | undefined): void {
  const title = `${topic}: ${name}`;
  const lines = (transcript: Transcript): Transcript => transcript.flatMap((line) => line.split('\n'));
  const transcripts = { gunicorn: lines(seen.gunicorn), nunicorn: lines(seen.nunicorn) };
  if (differs === undefined) {
    assert.deepEqual(
      transcripts.nunicorn,
      transcripts.gunicorn,
      `${title}: nunicorn (actual) is not as gunicorn (expected)`,
    );
    return;
  }
  assert.notDeepEqual(
    transcripts.nunicorn,
    transcripts.gunicorn,
    `${title}: the difference is gone, take it off the list`,
  );
  const difference: Difference = { topic, name, ...differs, transcripts };
  if (RECORDING) {
    mkdirSync(RECORDS, { recursive: true });
    writeFileSync(join(RECORDS, `${encodeURIComponent(title)}.json`), JSON.stringify(difference));
    return;
  }
  const known = recorded.get(title);
  assert.ok(
    known,
    `${title} is not in docs/differences.md: npm run parity -- --record\n${JSON.stringify(transcripts, null, 2)}`,
  );
  assert.deepEqual(
    { ...known },
    difference,
    `${title} is not as in docs/differences.md; if that is right: npm run parity -- --record`,
  );
}

/** Times, pids, ports, versions and names: what differs from run to run, or says no more than whose it is. */
export function normalise(text: string, server: Server | null = null): string {
  let result = text;
  if (server !== null) {
    result = result.replaceAll(server.temporary, 'TMP').replaceAll(server.home, 'HOME');
    for (const bind of server.binds)
      result = result.replaceAll(bind, 'BIND').replaceAll(bind.replace(/^.*:/, ':'), ':PORT');
  }
  return result
    .replace(/\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\]/g, '[TIME]')
    .replace(/\[\d\d\/[A-Z][a-z]{2}\/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]/g, '[TIME]')
    .replace(/[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT/g, 'DATE')
    .replace(/\[\d+\] \[/g, '[PID] [')
    .replace(/\(pid: ?\d+\)|\(\d+\)/g, '(PID)')
    .replace(/pid: \d+/g, 'pid: PID')
    .replace(/[gn]unicorn(\/| )\d+\.\d+\.\d+/g, 'SERVER$1VERSION')
    .replace(/[gn]unicorn/g, 'SERVER');
}

/** Scenarios on servers of their own that run at a time: most of their time they wait. */
const AT_A_TIME = 2;

/** Arguments, environment and addresses may be others for each kind of server. */
export type ScenarioOptions = Omit<ServerOptions, 'kind' | 'args' | 'env' | 'bind'> & {
  readonly bind?: ServerOptions['bind'] | ((kind: Kind) => readonly string[]);
  readonly args?: ServerOptions['args'] | ((kind: Kind) => readonly string[]);
  readonly env?: ServerOptions['env'] | ((kind: Kind) => Readonly<Record<string, string>>);
};

function of<T extends object>(given: T | ((kind: Kind) => T), kind: Kind): T {
  return typeof given === 'function' ? given(kind) : given;
}

export interface Scenario {
  readonly name: string;
  readonly options?: ScenarioOptions;
  readonly run: (server: Server) => Promise<Transcript>;
  readonly differs?: Differs;
  /** Why it cannot be run here. */
  readonly skip?: string | false;
}

/** A scenario whose server is ready when it begins. */
export function onceReady(each: Scenario & Required<Pick<Scenario, 'options'>>): Scenario {
  return {
    ...each,
    run: async (server) => {
      await server.ready();
      return each.run(server);
    },
  };
}

/** Scenarios on one pair of servers, one after the other: what a client sees. */
export function onOneServer(topic: string, options: Omit<ServerOptions, 'kind'>, scenarios: readonly Scenario[]): void {
  describe(topic, () => {
    const servers: Server[] = [];
    before(async () => {
      servers.push(...(await Promise.all(KINDS.map((kind) => Server.start({ ...options, kind })))));
    });
    after(async () => {
      try {
        for (const server of servers) await server.stop();
      } finally {
        for (const server of servers) server.destroy();
      }
    });
    for (const scenario of scenarios) {
      it(scenario.name, async () => {
        const [gunicorn, nunicorn] = await Promise.all(servers.map((server) => scenario.run(server)));
        assert(gunicorn && nunicorn);
        settle(topic, scenario.name, { gunicorn, nunicorn }, scenario.differs);
      });
    }
  });
}

/**
 * A scenario on servers of its own: what an operator sees. `run` gets a server that was spawned and not waited for.
 *
 * @param atATime 1 where scenarios share something
 */
export function onNewServers(
  topic: string,
  options: Omit<ServerOptions, 'kind'>,
  scenarios: readonly Scenario[],
  atATime = AT_A_TIME,
): void {
  describe(topic, { concurrency: atATime }, () => {
    for (const scenario of scenarios) {
      it(scenario.name, { skip: scenario.skip ?? false }, async () => {
        const one = async (kind: Kind): Promise<Transcript> => {
          const { args, env, bind, ...rest } = { ...options, ...scenario.options };
          const own = {
            ...(args && { args: of(args, kind) }),
            ...(env && { env: of(env, kind) }),
            ...(bind && { bind: of(bind, kind) }),
          };
          const server = await Server.spawn({ ...rest, ...own, kind });
          try {
            const transcript = await scenario.run(server);
            if (!server.hasExited) server.kill('SIGTERM');
            await server.exit(40_000);
            server.noDefects();
            return transcript;
          } catch (error) {
            if (error instanceof Error) error.message += `\n--- ${kind}\n${server.output}`;
            throw error;
          } finally {
            server.destroy();
          }
        };
        const [gunicorn, nunicorn] = await Promise.all([one('gunicorn'), one('nunicorn')]);
        settle(topic, scenario.name, { gunicorn, nunicorn }, scenario.differs);
      });
    }
  });
}
