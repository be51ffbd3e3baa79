// What README.md, docs/deploying.md and the examples tell the reader to run, run as it is written there.
import { strict as assert } from 'node:assert';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { it } from 'node:test';
import { until, withDeadline } from '../helpers/deadline.ts';
import { get } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { NUNICORN, PYTHON, ROOT, VENV } from '../helpers/paths.ts';
import { type Address, freePort, isListening } from '../helpers/ports.ts';
import { processesOf } from '../helpers/processes.ts';
import { withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;
const README = readFileSync(join(ROOT, 'README.md'), 'utf8');
const DEPLOYING = readFileSync(join(ROOT, 'docs', 'deploying.md'), 'utf8');
/** `npm start` installs and builds. */
const START_MS = 120_000;
const STOP_MS = 20_000;
/** Builds, packs, and fetches what the package depends on. */
const INSTALL_MS = 240_000;

/** The code blocks of a language, in order. */
function blocks(markdown: string, language: string): string[] {
  return [...markdown.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)]
    .filter((match) => match[1] === language)
    .map((match) => match[2] ?? '');
}

/** The one block, or the one line of a block, that holds `text`. */
function only(candidates: readonly string[], text: string): string {
  const found = candidates.filter((candidate) => candidate.includes(text));
  assert.equal(found.length, 1, `${found.length} places with "${text}"`);
  return found[0] ?? '';
}

async function inFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'nt-readme-'));
  try {
    await test(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Runs commands of a document in a shell until the server listens, calls `test` with what it wrote so far, and stops it as
 * Ctrl-C would. Where the document leaves the address to the default, `port` takes the place of 8000.
 */
async function running(
  commands: string,
  folder: string,
  port: number,
  test: (output: () => string) => Promise<void>,
): Promise<void> {
  const programs = join(folder, 'installed');
  mkdirSync(programs, { recursive: true });
  symlinkSync(NUNICORN, join(programs, 'nunicorn'));
  const marker = `NUNICORN_TEST_MARKER=readme-${process.pid}-${port}`;
  const child = spawn('bash', ['-ec', commands], {
    cwd: folder,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      VIRTUAL_ENV: '',
      PATH: `${programs}:${process.env.PATH}`,
      TMPDIR: folder,
      PYTHONDONTWRITEBYTECODE: '1',
      GUNICORN_CMD_ARGS: `--bind 127.0.0.1:${port}`,
      npm_config_prefer_offline: 'true',
      [marker.split('=')[0] as string]: marker.split('=')[1],
    },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (text) => {
      output += text;
    });
  }
  const exited = once(child, 'close');
  const { pid } = child;
  assert(pid !== undefined);
  const living = () => processesOf(pid, marker, new Set()).filter(({ state }) => state !== 'Z');
  try {
    await until(
      () => {
        assert.equal(child.exitCode, null, output);
        return output.includes(`Listening at: http://127.0.0.1:${port}`);
      },
      () => `the server to listen\n${output}`,
      START_MS,
    );
    await test(() => output);
    process.kill(-pid, 'SIGINT');
    await withDeadline(exited, () => `the end of the server\n${output}`, STOP_MS);
    await until(
      () => living().length === 0,
      () => `processes left: ${JSON.stringify(living())}`,
    );
  } finally {
    for (const { pid: left } of living()) {
      try {
        process.kill(left, 'SIGKILL');
      } catch {
        // It has just ended.
      }
    }
  }
}

async function text(port: number, path = '/'): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`);
  assert.equal(response.status, 200);
  return await response.text();
}

function copyOfRepository(folder: string): void {
  const left = new Set(['.git', '.test', 'dist']);
  cpSync(ROOT, folder, {
    recursive: true,
    verbatimSymlinks: true,
    preserveTimestamps: true,
    filter: (source) => !left.has(relative(ROOT, source)),
  });
}

it('npm start serves the example, and says where', { skip }, async () => {
  await inFolder(async (folder) => {
    copyOfRepository(folder);
    const port = await freePort();
    const commands = only(blocks(README, 'sh'), 'npm start');
    const curl = only(blocks(README, 'sh'), 'curl ');
    await running(commands, folder, port, async () => {
      const expected = only(blocks(README, ''), 'Hello from');
      const answer = execFileSync('bash', ['-c', curl.replace(':8000', `:${port}`)], { stdio: 'pipe' }).toString();
      assert.equal(answer, expected);
    });
  });
});

it('the package is installed as the README says, and serves without the clone', { skip }, async () => {
  await inFolder(async (folder) => {
    const [clone, prefix] = [join(folder, 'clone'), join(folder, 'prefix')];
    copyOfRepository(clone);
    execFileSync('bash', ['-ec', only(blocks(README, 'sh'), 'npm pack')], {
      cwd: clone,
      env: { ...process.env, npm_config_prefix: prefix, npm_config_prefer_offline: 'true' },
      stdio: 'pipe',
      timeout: INSTALL_MS,
    });
    rmSync(clone, { recursive: true });
    cpSync(join(ROOT, 'examples', 'hello.py'), join(folder, 'hello.py'));
    const port = await freePort();
    await running(`${join(prefix, 'bin', 'nunicorn')} hello`, folder, port, async () => {
      assert.match(await text(port), /^Hello from nunicorn/);
    });
  });
});

it('a Django project of one’s own', { skip }, async () => {
  await inFolder(async (folder) => {
    execFileSync(PYTHON, ['-m', 'django', 'startproject', 'my_project'], { cwd: folder });
    symlinkSync(VENV, join(folder, 'my_project', '.venv'));
    const port = await freePort();
    await running(only(blocks(README, 'sh'), 'cd my_project'), folder, port, async (output) => {
      assert.match(await text(port), /The install worked successfully/);
      assert.match(output(), /2 workers x 2 threads = 4 requests at a time/);
    });
  });
});

it('with the lines for wsgi.py a mistake in a Django project’s urls.py is found before it serves', {
  skip,
}, async () => {
  await inFolder(async (folder) => {
    execFileSync(PYTHON, ['-m', 'django', 'startproject', 'my_project', folder], { cwd: folder });
    const check = (): number | null => {
      const args = [NUNICORN, '--python', PYTHON, '--check-config', 'my_project.wsgi'];
      return spawnSync(process.execPath, args, { cwd: folder }).status;
    };
    appendFileSync(join(folder, 'my_project', 'wsgi.py'), only(blocks(DEPLOYING, 'python'), 'url_patterns'));
    assert.equal(check(), 0);
    appendFileSync(join(folder, 'my_project', 'urls.py'), 'import not_there\n');
    assert.equal(check(), 1);
  });
});

for (const [what, document, language, start] of [
  ['docker compose', README, 'yaml', 'command: '],
  ['systemd', README, 'ini', 'ExecStart='],
  ['docker compose, all of it', DEPLOYING, 'yaml', 'command: '],
  ['systemd, all of it', DEPLOYING, 'ini', 'ExecStart='],
] as const) {
  it(`the line for ${what}`, { skip }, async () => {
    await inFolder(async (folder) => {
      execFileSync(PYTHON, ['-m', 'django', 'startproject', 'my_project', folder], { cwd: folder });
      symlinkSync(VENV, join(folder, '.venv'));
      const port = await freePort();
      const line = only(blocks(document, language).join('').split('\n'), start);
      const command = line
        .slice(line.indexOf(start) + start.length)
        .replace('/usr/local/bin/', '')
        .replace(/(--bind) \S+/, `$1 127.0.0.1:${port}`)
        // Neither of the two hands its line to a shell.
        .replaceAll('*', '\\*');
      assert.match(command, /^nunicorn /);
      await running(command, folder, port, async () => {
        assert.match(await text(port), /The install worked successfully/);
      });
    });
  });
}

it('the examples: a configuration file and a stream', { skip }, async () => {
  await inFolder(async (folder) => {
    cpSync(join(ROOT, 'examples'), join(folder, 'examples'), { recursive: true });
    const file = readFileSync(join(folder, 'examples', 'gunicorn.conf.py'), 'utf8');
    const command = /`(nunicorn [^`]+)`/.exec(file)?.[1];
    assert.ok(command);
    const port = await freePort();
    await running(command, folder, port, async (output) => {
      assert.equal((await text(port, '/?1')).match(/^data: 0 at /gm)?.length, 1);
      await until(
        () => output().includes('a stream of 1 ticks has ended') && output().includes('"GET /?1 HTTP/1.1" 200'),
        () => `the stream in the logs\n${output()}`,
      );
    });
  });
});

/** Puts server blocks of a document into a configuration that needs no rights, and runs nginx with it. */
async function withConfiguration(
  blocksOfIt: string,
  upstream: string,
  test: (address: Address) => Promise<void>,
): Promise<void> {
  await inFolder(async (folder) => {
    const port = await freePort();
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
    const configuration = join(folder, 'nginx.conf');
    writeFileSync(join(folder, 'style.css'), 'from nginx');
    writeFileSync(
      configuration,
      `daemon off; master_process off; pid ${folder}/nginx.pid; error_log ${folder}/error.log;
events {}
http {
access_log off;
${paths.map((name) => `${name}_temp_path ${folder}/${name};`).join('\n')}
${blocksOfIt
  .replace(/server (127\.0\.0\.1:8000|unix:\S+) /, `server ${upstream} `)
  .replace('listen 80;', `listen 127.0.0.1:${port};`)
  .replace('/srv/my_project/static/', `${folder}/`)}
}
`,
    );
    const args = ['-p', folder, '-e', join(folder, 'error.log'), '-c', configuration];
    const check = spawnSync('nginx', [...args, '-t'], { encoding: 'utf8' });
    assert.equal(check.status, 0, check.stderr);
    const address = { host: '127.0.0.1', port };
    const nginx: ChildProcess = spawn('nginx', args, { stdio: 'ignore' });
    const exited = once(nginx, 'exit');
    try {
      await until(() => isListening(address), 'nginx to listen');
      await test(address);
    } finally {
      nginx.kill('SIGTERM');
      await withDeadline(exited, 'the end of nginx');
    }
    assert.doesNotMatch(readFileSync(join(folder, 'error.log'), 'utf8'), /\[(warn|error|crit|alert|emerg)\]/);
  });
}

const [TCP = '', UNIX = ''] = blocks(DEPLOYING, 'nginx');
const SERVER = TCP.slice(TCP.indexOf('server {'));

for (const [what, configuration] of [
  ['README.md', only(blocks(README, 'nginx'), 'upstream')],
  ['docs/deploying.md, TCP', TCP],
  ['docs/deploying.md, Unix socket', `${UNIX}${SERVER}`],
] as const) {
  it(`nginx takes the configuration and serves with it: ${what}`, { skip }, async () => {
    await inFolder(async (folder) => {
      const unix = configuration.includes('unix:');
      const bind = unix ? `unix:${join(folder, 'app.sock')}` : `127.0.0.1:${await freePort()}`;
      await withServer({ app: 'wsgi_matrix:application', bind: [bind], workers: 1, threads: 2 }, async () => {
        await withConfiguration(configuration, bind, async (address) => {
          const ask = async (): Promise<Record<string, string>> =>
            JSON.parse((await get(address, '/environ', 'X-Forwarded-For: 192.0.2.1\r\n')).text());
          const first = await ask();
          assert.equal(first.SERVER_PROTOCOL, 'HTTP/1.1');
          assert.equal(first.HTTP_HOST, 'test');
          assert.equal(first.HTTP_X_FORWARDED_FOR, '192.0.2.1, 127.0.0.1');
          assert.equal(first.HTTP_X_FORWARDED_PROTO, 'http');
          // The same connection: nginx keeps it.
          if (!unix) assert.equal((await ask()).REMOTE_PORT, first.REMOTE_PORT);
          if (configuration.includes('/static/'))
            assert.equal((await get(address, '/static/style.css')).text(), 'from nginx');
        });
      });
    });
  });
}

/** The anchors of a document's headings, as GitHub makes them. */
function anchors(markdown: string): Set<string> {
  return new Set(
    [...markdown.replace(/^```[\s\S]*?^```$/gm, '').matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replace(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    ),
  );
}

it('links between the documents lead somewhere', { skip }, () => {
  const pages = readdirSync(join(ROOT, 'docs')).map((name) => join('docs', name));
  for (const name of ['README.md', 'SECURITY.md', 'CHANGELOG.md', join('bench', 'README.md'), ...pages]) {
    const document = readFileSync(join(ROOT, name), 'utf8').replace(/`[^`\n]*`/g, '');
    for (const [, target = ''] of document.matchAll(/\]\(([^)]+)\)/g)) {
      if (target.includes('://')) continue;
      const [file = '', anchor] = target.split('#');
      const path = file === '' ? join(ROOT, name) : join(ROOT, dirname(name), file);
      assert.ok(existsSync(path), `${name}: ${target}`);
      if (anchor !== undefined) assert.ok(anchors(readFileSync(path, 'utf8')).has(anchor), `${name}: ${target}`);
    }
  }
});
