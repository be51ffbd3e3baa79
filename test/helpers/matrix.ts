import { after, before, describe, it } from 'node:test';
import { type Kind, Server, type ServerOptions } from './server.ts';

export type Check = (server: Server) => Promise<void>;

export interface Scenario {
  /** The same for nunicorn and gunicorn. */
  (name: string, check: Check): void;
  /** Where nunicorn differs on purpose: `gunicorn` says what gunicorn does instead. Runs against nunicorn only. */
  readonly differs: (name: string, gunicorn: string, check: Check) => void;
}

interface Variant {
  readonly kind: Kind;
  readonly threads: number;
}

const VARIANTS: readonly Variant[] = [
  { kind: 'nunicorn', threads: 1 },
  { kind: 'nunicorn', threads: 4 },
  { kind: 'gunicorn', threads: 4 },
];

/** Which servers to run against: NUNICORN_TEST_SERVERS=gunicorn checks the tests themselves. */
export const KINDS: readonly string[] = (process.env.NUNICORN_TEST_SERVERS ?? 'nunicorn,gunicorn').split(',');

/**
 * Declares scenarios that are run against nunicorn with one thread, nunicorn with several, and the real gunicorn: what
 * holds for all three is proven to be gunicorn's behaviour, the rest is listed as a difference. One server per variant
 * serves all scenarios, so that each also proves that the one before did no harm.
 */
export function matrix(
  options: Omit<ServerOptions, 'kind'>,
  declare: (scenario: Scenario, variant: Variant) => void,
): void {
  for (const variant of VARIANTS.filter(({ kind }) => KINDS.includes(kind))) {
    if (options.threads !== undefined && options.threads !== variant.threads) continue;
    describe(`${variant.kind}, ${variant.threads} thread(s)`, () => {
      let server: Server | undefined;
      before(async () => {
        server = await Server.start({ ...options, ...variant });
      });
      after(async () => {
        try {
          await server?.stop();
        } finally {
          server?.destroy();
        }
      });
      const run = (name: string, check: Check): void => {
        it(name, async () => {
          if (!server) throw new Error('no server');
          const from = server.log.length;
          try {
            await check(server);
          } catch (error) {
            if (error instanceof Error)
              error.message += `\n--- log since the start of this test\n${server.log.slice(from)}`;
            throw error;
          }
        });
      };
      const scenario: Scenario = Object.assign(run, {
        differs: (name: string, gunicorn: string, check: Check): void => {
          if (variant.kind === 'nunicorn') run(name, check);
          else it(name, { skip: `a difference: ${gunicorn}` });
        },
      });
      declare(scenario, variant);
    });
  }
}

/** Whether nunicorn itself is to be tested. */
export const NUNICORN_RUNS = KINDS.includes('nunicorn');
