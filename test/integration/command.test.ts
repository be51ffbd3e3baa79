// The command itself, without serving: what it prints, and its exit codes beside those of gunicorn.
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { KINDS } from '../helpers/matrix.ts';
import { FIXTURES, NUNICORN, ROOT, VENV, VENV_BIN } from '../helpers/paths.ts';
import type { Kind } from '../helpers/server.ts';

const LIMIT_MS = 60_000;

interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const LOGGING = `[loggers]
keys=root
[handlers]
keys=file
[formatters]
keys=
[logger_root]
level=INFO
handlers=file
[handler_file]
class=FileHandler
args=("FILE",)
`;

let folder = '';
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'nt-command-'));
  writeFileSync(
    join(folder, 'good.py'),
    'import os\nprint("loaded", os.environ.get("MODE"))\ndef app(environ, start_response): return []\n',
  );
  writeFileSync(join(folder, 'bad.py'), 'raise RuntimeError("broken on purpose")\n');
  writeFileSync(join(folder, 'leaves.py'), 'import sys\nsys.exit(7)\n');
  writeFileSync(join(folder, 'good.conf.py'), 'workers = 3\nraw_env = ["MODE=configured"]\n');
  writeFileSync(join(folder, 'bad.conf.py'), 'workers = 3\nthreads = "many"\n');
  for (const [name, path] of [
    ['good.ini', 'made.log'],
    ['bad.ini', 'missing/x'],
  ] as const) {
    writeFileSync(join(folder, name), LOGGING.replace('FILE', join(folder, path)));
  }
});
after(() => rmSync(folder, { recursive: true }));

function run(kind: Kind, args: readonly string[], env: Record<string, string> = {}): Ran {
  const [command, first] = kind === 'gunicorn' ? [join(VENV_BIN, 'gunicorn'), []] : [process.execPath, [NUNICORN]];
  const { status, stdout, stderr } = spawnSync(command, [...first, ...args], {
    cwd: folder,
    encoding: 'utf8',
    timeout: LIMIT_MS,
    env: {
      PATH: `${VENV_BIN}:${process.env.PATH}`,
      VIRTUAL_ENV: VENV,
      HOME: folder,
      PYTHONDONTWRITEBYTECODE: '1',
      ...env,
    },
  });
  return { code: status, stdout, stderr };
}

for (const kind of ['nunicorn', 'gunicorn'] satisfies Kind[]) {
  if (!KINDS.includes(kind)) continue;
  describe(`${kind} --check-config`, () => {
    it('ends with 0 when the application can be loaded', () => {
      const { code, stdout } = run(kind, ['--check-config', 'good:app']);
      assert.deepEqual([code, stdout], [0, 'loaded None\n']);
    });

    it('ends with 1 and the traceback when it cannot', () => {
      const { code, stderr } = run(kind, ['--check-config', 'bad:app']);
      assert.equal(code, 1, stderr);
      assert.match(stderr, /Error while loading the application:[\s\S]*bad\.py[\s\S]*broken on purpose/);
    });

    it('ends with 1 when the module has no such application', () => {
      const { code, stderr } = run(kind, ['--check-config', 'good:other']);
      assert.equal(code, 1, stderr);
      assert.match(stderr, /Failed to find attribute 'other' in 'good'/);
    });

    it('ends with 1 when the configuration file holds a wrong value', () => {
      const { code, stderr } = run(kind, ['--check-config', '-c', 'bad.conf.py', 'good:app']);
      assert.equal(code, 1);
      assert.match(stderr, /[Ii]nvalid value for threads: /);
    });

    it('is implied by --print-config', () => {
      const { code, stdout } = run(kind, ['--print-config', '-c', 'good.conf.py', '--threads', '2', 'good:app']);
      assert.equal(code, 0);
      assert.match(stdout, /^workers\s+= 3\b/m);
      assert.match(stdout, /^threads\s+= 2\b/m);
      assert.equal(run(kind, ['--print-config', 'bad:app']).code, 1);
    });
  });

  describe(`${kind} that is misunderstood`, () => {
    it('ends with 2 on an unknown flag', () => assert.equal(run(kind, ['--no-such-flag', 'good:app']).code, 2));
    it('ends with 1 without an application', () => {
      const { code, stderr } = run(kind, ['--workers', '2']);
      assert.equal(code, 1);
      assert.match(stderr, /\nError: No application module specified\./);
    });
    it('ends with 0 after --version and --help', () => {
      assert.match(run(kind, ['--version']).stdout, new RegExp(`^${kind} \\(version \\d+\\.\\d+\\.\\d+\\)\n$`));
      const help = run(kind, ['--help']);
      assert.equal(help.code, 0);
      assert.match(help.stdout, /--workers INT/);
    });
  });
}

describe('nunicorn', { skip: !KINDS.includes('nunicorn') }, () => {
  it('loads the application in the environment that it would be served in', () => {
    const { code, stdout } = run('nunicorn', ['--check-config', '-c', 'good.conf.py', 'good:app']);
    assert.deepEqual([code, stdout], [0, 'loaded configured\n']);
    const moved = run('nunicorn', ['--check-config', '--chdir', FIXTURES, 'flask_app:app'], { PYTHONPATH: folder });
    assert.equal(moved.code, 0, moved.stderr);
  });

  it('takes an application that ends the process for one that cannot be loaded', () => {
    const { code, stderr } = run('nunicorn', ['--check-config', 'leaves:app']);
    assert.equal(code, 1);
    assert.match(stderr, /SystemExit: 7/);
  });

  it('says what is wrong, where, and what would be right', () => {
    assert.equal(
      run('nunicorn', ['-c', 'bad.conf.py', 'good:app']).stderr,
      "\nError: invalid value for threads: 'many': a whole number, 1 or more, or auto, is needed (from bad.conf.py:2)\n",
    );
  });

  it('checks a file that stands in the place of the application', () => {
    assert.deepEqual(run('nunicorn', ['--check-config', 'good.conf.py']), { code: 0, stdout: '', stderr: '' });
    assert.equal(run('nunicorn', ['--check-config', 'bad.conf.py']).code, 1);
  });

  it('--check-config ends with 1 for what would end the start, and writes nothing', () => {
    const missing = join(folder, 'missing', 'x');
    for (const [args, reason] of [
      [['--certfile', 'missing.pem'], /certfile: .*missing\.pem cannot be read: there is no such file/],
      [['--log-config', 'missing.ini'], /the configuration of logging \(.*missing\.ini\) cannot be used/],
      [['--log-config', 'bad.ini'], /bad\.ini\) cannot be used: .*missing\/x/],
      [['--logger-class', 'foo.Bar'], /logger_class 'foo\.Bar' cannot be imported/],
      [['--log-syslog', '--log-syslog-facility', 'foo'], /syslog_facility: unknown facility 'foo'/],
      [['--pid', missing], /pidfile: '.*x' cannot be written \(ENOENT: there is no folder .*\)/],
      [['--spool-dir', missing], /no folder can be made in .*missing/],
      [['--access-logfile', missing], /accesslog: '.*x' cannot be written \(ENOENT: there is no folder .*\)/],
      [['--error-logfile', missing], /errorlog: '.*x' cannot be written \(ENOENT: there is no folder .*\)/],
      [['--error-logfile', folder], /errorlog: '.*' is a folder/],
      [['--access-logfile', '-', '--access-logformat', '%(h'], /invalid access log format '%\(h'/],
    ] as const) {
      const { code, stderr } = run('nunicorn', ['--check-config', ...args, 'good:app']);
      assert.deepEqual([code, stderr.trim().split('\n').length], [1, 1], `${args.join(' ')}: ${stderr}`);
      assert.match(stderr, reason);
    }
    const before = readdirSync(folder);
    const logs = [
      '--access-logfile',
      'a.log',
      '--error-logfile',
      'e.log',
      '--capture-output',
      '--log-config',
      'good.ini',
    ];
    const { code, stderr } = run('nunicorn', ['--check-config', '--pid', 'pid', ...logs, 'good:app']);
    assert.deepEqual([code, stderr], [0, '']);
    assert.deepEqual(readdirSync(folder), before);
  });

  it('with --worker-tmp-dir and --spool-dir it needs no folder for temporary files, also for the logs of Python', () => {
    const folders = ['--worker-tmp-dir', folder, '--spool-dir', folder];
    const env = { TMPDIR: join(folder, 'missing') };
    const { code, stderr } = run(
      'nunicorn',
      ['--check-config', '--log-config', 'good.ini', ...folders, 'good:app'],
      env,
    );
    assert.deepEqual([code, stderr], [0, '']);
  });

  it('a start without a folder for bodies ends in one line, and leaves none for sockets', () => {
    const sockets = mkdtempSync(join(folder, 'sockets-'));
    const folders = ['--worker-tmp-dir', sockets, '--spool-dir', join(folder, 'missing')];
    const { code, stderr } = run('nunicorn', ['--bind', '127.0.0.1:0', ...folders, 'good:app']);
    assert.equal(code, 1);
    assert.match(stderr, /no folder can be made in .*missing \(ENOENT\): .*--spool-dir/);
    assert.deepEqual(readdirSync(sockets), []);
  });

  it('prints a completion script that the shell understands', () => {
    const { code, stdout } = run('nunicorn', ['completion', 'bash']);
    assert.equal(code, 0);
    assert.equal(spawnSync('bash', ['-n'], { input: stdout }).status, 0);
    for (const words of [[], ['tcsh'], ['bash', 'zsh']]) {
      const refused = run('nunicorn', ['completion', ...words]);
      assert.equal(refused.code, 2);
      assert.match(refused.stderr, /needs the name of a shell: bash, zsh, fish/);
    }
  });
});

describe('the types of the package', { skip: !KINDS.includes('nunicorn') }, () => {
  const check = (source: string): Ran => {
    const project = mkdtempSync(join(folder, 'types-'));
    mkdirSync(join(project, 'node_modules'));
    symlinkSync(ROOT, join(project, 'node_modules', 'nunicorn'));
    writeFileSync(join(project, 'nunicorn.config.ts'), source);
    const { status, stdout, stderr } = spawnSync(
      join(ROOT, 'node_modules', '.bin', 'tsc'),
      ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2023', '--skipLibCheck', 'nunicorn.config.ts'],
      { cwd: project, encoding: 'utf8', timeout: LIMIT_MS },
    );
    return { code: status, stdout, stderr };
  };

  it('know every setting', () => {
    const { code, stdout } = check(
      `import { type Config, defineConfig } from 'nunicorn';
export const typed = { workers: 'auto', bind: ['127.0.0.1:8000'], accesslog: null } satisfies Config;
export default defineConfig({ workers: 2, bind: ':8000', worker_class: 'gthread', timeout: 60, preload_app: true });
`,
    );
    assert.equal(code, 0, stdout);
  });

  it('refuse a name that is none, and a value that does not fit', () => {
    for (const [settings, complaint] of [
      ['{ wrokers: 2 }', /'wrokers' does not exist/],
      ["{ worker_class: 'gevent' }", /'"gevent"' is not assignable/],
      ['{ preload_app: 3 }', /'number' is not assignable/],
    ] as const) {
      const { code, stdout } = check(
        `import { defineConfig } from 'nunicorn';\nexport default defineConfig(${settings});\n`,
      );
      assert.notEqual(code, 0);
      assert.match(stdout, complaint);
    }
  });
});

describe('nunicorn', () => {
  for (const word of ['ctl', 'top', 'size', 'advise']) {
    it(`${word} --help and -h show its help`, () => {
      for (const flag of ['--help', '-h']) {
        const { code, stdout } = run('nunicorn', [word, flag]);
        assert.equal(code, 0);
        assert.match(stdout, new RegExp(`^Usage: nunicorn ${word} `));
      }
    });
  }

  it('an option of a command without its value, or with none that there is, ends with 2 and one line', () => {
    for (const [args, reason] of [
      [['size', '--budget'], 'nunicorn size: --budget needs a value'],
      [['size', '--cpus', '--path', '/', 'good:app'], 'nunicorn size: --cpus needs a value'],
      [['size', '--compare', 'x', '--path', '/', 'good:app'], 'nunicorn size: Invalid values: Argument: compare'],
      [['top', '-s'], 'nunicorn top: -s needs a value'],
      [['top', '--interval'], 'nunicorn top: --interval needs a value'],
      [['advise', '--watch'], 'nunicorn advise: --watch needs a value'],
      [['advise', '--unknown'], 'nunicorn advise: Unknown argument: unknown'],
    ] as const) {
      const { code, stderr } = run('nunicorn', args);
      assert.equal(code, 2, stderr);
      assert.ok(stderr.startsWith(`\nError: ${reason}`), stderr);
      assert.equal(stderr.trim().split('\n').length, 1, stderr);
    }
  });

  it('a start that fails leaves neither folder nor process, whatever it had begun', () => {
    const long = join(folder, 'x'.repeat(100));
    mkdirSync(long);
    const args = ['--bind', '127.0.0.1:0', '--reload', '--reload-engine', 'poll', '--worker-tmp-dir'];
    const { code, stderr } = run('nunicorn', [...args, long, 'good:app']);
    assert.equal(code, 1);
    assert.match(stderr, /Error: the path .* is too long for the Unix sockets in it: --worker-tmp-dir/);
    assert.deepEqual(readdirSync(long), []);
    const missing = run('nunicorn', [...args, join(folder, 'missing'), 'good:app']);
    assert.equal(missing.code, 1);
    assert.match(missing.stderr, /Error: /);
    assert.doesNotMatch(missing.stderr, /node:internal|\.js:\d+/);
  });
});

it('a copy that has not been built says what to run', { skip: !KINDS.includes('nunicorn') }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'nt-'));
  try {
    for (const name of ['bin', 'package.json']) cpSync(join(ROOT, name), join(folder, name), { recursive: true });
    const { status, stderr } = spawnSync(process.execPath, [join(folder, 'bin/nunicorn.js'), '--version'], {
      encoding: 'utf8',
      timeout: LIMIT_MS,
    });
    assert.equal(status, 1);
    assert.equal(
      stderr,
      '\nError: this copy of nunicorn has not been built: run `npm install && npm run build` in its folder\n',
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});
