// The commands of guides that people follow, run as they stand there with `gunicorn` replaced by `nunicorn`.
import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, it } from 'node:test';
import { isSettingName } from '../../src/settings/table.ts';
import { until } from '../helpers/deadline.ts';
import { get } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { FIXTURES, NUNICORN, VENV, VENV_BIN } from '../helpers/paths.ts';
import { freePort, isListening } from '../helpers/ports.ts';
import { killIfAlive, processesOf } from '../helpers/processes.ts';

interface Serves {
  readonly kind: 'serves';
  readonly workers: number | '2 x processors + 1';
  readonly threads: number;
  /** It is told to log less than its start. */
  readonly quiet?: true;
  /** The file that its log goes to. */
  readonly log?: string;
  /** The file of its access log. */
  readonly access?: string;
  readonly title?: string;
  readonly warnings?: readonly string[];
}

type Expected = Serves | { readonly kind: 'refused'; readonly message: string } | { readonly kind: 'checks' };

interface GuideCommand {
  /** Where it stands in the guide. */
  readonly line: number;
  readonly run: string;
  /** What the guide leaves open, and what stands there now. */
  readonly filled?: string;
  readonly note?: string;
  /** Files that belong to it. */
  readonly config?: Readonly<Record<string, string>>;
  /** Settings that have to exist before it can run. */
  readonly needs?: readonly string[];
  readonly expect: Expected;
}

interface Guide {
  readonly title: string;
  readonly url?: string;
  readonly commands: readonly GuideCommand[];
}

const GUIDES = JSON.parse(readFileSync(join(FIXTURES, 'guide-commands.json'), 'utf8')) as readonly Guide[];
const APP = `def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "6")])
    return [b"served"]

application = app
`;
const MODULES = ['myapp.py', 'wsgi.py', ...['your_project', 'foodie', 'myproject'].map((name) => `${name}/wsgi.py`)];
const START_MS = 60_000;
const STOP_MS = 40_000;

/** A shell that runs one command of a guide in a project of its own. */
class Run {
  readonly folder = mkdtempSync(join(tmpdir(), 'nt-guide-'));
  readonly port: number;
  output = '';
  readonly #child: ChildProcess;
  readonly #marker: string;
  readonly #known = new Set<number>();

  /** The port and the folder that the guide names belong to somebody else here: free ones take their place. */
  constructor({ run, config = {} }: GuideCommand, port: number) {
    this.port = port;
    const here = (text: string): string =>
      text.replace(/:(?:8000|8080|5000|9999)\b/g, `:${port}`).replaceAll('=/app', `=${join(this.folder, 'app')}`);
    for (const module of [...MODULES, 'app/main/wsgi.py']) this.#write(module, APP);
    for (const [name, content] of Object.entries(config)) this.#write(name, here(content));
    mkdirSync(join(this.folder, 'installed'));
    mkdirSync(join(this.folder, 'temporary'));
    symlinkSync(NUNICORN, join(this.folder, 'installed', 'nunicorn'));
    this.#marker = `NUNICORN_TEST_MARKER=guide-${process.pid}-${port}`;
    const [marker = '', value] = this.#marker.split('=');
    // The address, where the command leaves it to the default.
    const defaultAddress =
      /(?:-b|--bind)\b/.test(run) || /bind =/.test(Object.values(config).join()) ? '' : `-b :${port}`;
    this.#child = spawn('bash', ['-c', here(run).replaceAll(/\bgunicorn(?= )/g, 'nunicorn')], {
      cwd: this.folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        PATH: `${join(this.folder, 'installed')}:${VENV_BIN}:${process.env.PATH}`,
        HOME: this.folder,
        LANG: 'C.UTF-8',
        VIRTUAL_ENV: VENV,
        TMPDIR: join(this.folder, 'temporary'),
        PYTHONDONTWRITEBYTECODE: '1',
        GUNICORN_CMD_ARGS: defaultAddress,
        [marker]: value,
      },
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on('data', (text) => {
        this.output += text;
      });
    }
  }

  #write(name: string, content: string): void {
    mkdirSync(dirname(join(this.folder, name)), { recursive: true });
    writeFileSync(join(this.folder, name), content);
  }

  living(): ReturnType<typeof processesOf> {
    const { pid } = this.#child;
    assert(pid !== undefined);
    return processesOf(pid, this.#marker, this.#known).filter(({ state }) => state !== 'Z' && state !== 'X');
  }

  titled(pattern: RegExp): number {
    return this.living().filter(({ title }) => pattern.test(title)).length;
  }

  async served(): Promise<void> {
    const address = { host: '127.0.0.1', port: this.port };
    await until(
      async () => {
        assert.equal(this.#failed(), false, this.output);
        return (await isListening(address)) && (await get(address, '/')).text() === 'served';
      },
      () => `an answer of the application\n${this.output}`,
      START_MS,
    );
  }

  #failed(): boolean {
    return this.#child.exitCode !== null && this.living().length === 0;
  }

  async exit(): Promise<number | null> {
    await until(
      () => this.#child.exitCode !== null,
      () => `the end of the command\n${this.output}`,
      START_MS,
    );
    return this.#child.exitCode;
  }

  async stop(): Promise<void> {
    const master = this.living().find(({ title }) => /^nunicorn: master/.test(title));
    assert(master, this.output);
    process.kill(master.pid, 'SIGTERM');
    await until(
      () => this.living().length === 0,
      () => `processes left: ${JSON.stringify(this.living())}\n${this.output}`,
      STOP_MS,
    );
  }

  destroy(): void {
    for (const { pid } of this.living()) killIfAlive(pid, 'SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }
}

async function check(run: Run, expect: Expected): Promise<void> {
  if (expect.kind === 'checks') {
    assert.equal(await run.exit(), 0, run.output);
    assert.equal(run.output, '');
    return;
  }
  if (expect.kind === 'refused') {
    assert.equal(await run.exit(), 1, run.output);
    assert.ok(run.output.includes(expect.message), run.output);
    assert.match(run.output, /^\nError: [^\n]*\n$/, 'one clear line');
    return;
  }
  await run.served();
  const processors = cpus().length;
  const workers = expect.workers === '2 x processors + 1' ? 2 * processors + 1 : expect.workers;
  await until(
    () => run.titled(/^nunicorn: worker /) === workers,
    () => `${workers} workers\n${run.output}`,
    START_MS,
  );
  const log = expect.log === undefined ? run.output : readFileSync(join(run.folder, expect.log), 'utf8');
  if (expect.quiet) assert.equal(log, '');
  else assert.match(log, new RegExp(` with ${workers} workers? x ${expect.threads} threads? `));
  if (expect.title !== undefined) assert.ok(run.titled(new RegExp(`^nunicorn: master \\[${expect.title}\\]`)) === 1);
  for (const warning of expect.warnings ?? []) assert.ok(run.output.includes(warning), run.output);
  await run.stop();
  if (expect.access !== undefined) {
    assert.match(readFileSync(join(run.folder, expect.access), 'utf8'), /"GET \/ HTTP\/1\.1" 200 6 /);
  }
}

describe('guides', { skip: !NUNICORN_RUNS }, () => {
  const tally = { served: 0, refused: 0, waiting: 0 };

  for (const { title, commands } of GUIDES) {
    describe(title, () => {
      for (const command of commands) {
        const { line, run: words, needs = [], expect } = command;
        const missing = needs.filter((name) => !isSettingName(name));
        const skip = missing.length > 0 ? `not yet: ${missing.join(', ')}` : false;
        if (skip !== false) tally.waiting += 1;
        it(`line ${line}: ${words.split('\n').at(-1)?.trim()} (${expect.kind})`, { skip }, async () => {
          const run = new Run(command, await freePort());
          try {
            await check(run, expect);
            tally[expect.kind === 'refused' ? 'refused' : 'served'] += 1;
          } finally {
            run.destroy();
          }
        });
      }
    });
  }

  after(() => {
    const all = GUIDES.reduce((sum, { commands }) => sum + commands.length, 0);
    console.log(
      `guides: ${tally.served} of ${all} commands run, ${tally.refused} name a worker class that gets its one line, ${tally.waiting} wait for a setting`,
    );
  });
});
