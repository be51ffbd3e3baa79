import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { NunicornError } from '../../src/errors.ts';
import { parseCommandLine, versionText } from '../../src/settings/command-line.ts';
import { completionScript } from '../../src/settings/completion.ts';
import { SETTINGS_DOC, settingsDocument } from '../../src/settings/docs.ts';
import { helpText } from '../../src/settings/help.ts';
import { defaultFronts, type LoadedSettings, loadSettings } from '../../src/settings/load.ts';
import { nearest } from '../../src/settings/nearest.ts';
import { printedSettings } from '../../src/settings/print.ts';
import { SECTIONS, type Setting } from '../../src/settings/setting.ts';
import { shellWords } from '../../src/settings/shell-words.ts';
import { SETTING_NAMES, SETTINGS } from '../../src/settings/table.ts';

let cwd = '';
beforeEach(() => {
  cwd = mkdtempSync(join(tmpdir(), 'nunicorn-settings-'));
});
afterEach(() => rmSync(cwd, { recursive: true }));

const PATH = process.env.PATH ?? '';

function load(argv: readonly string[], env: Record<string, string> = {}): Promise<LoadedSettings> {
  return loadSettings(argv, { PATH, ...env }, cwd);
}

function configFile(content: string, name = 'gunicorn.conf.py'): void {
  writeFileSync(join(cwd, name), content);
}

async function refused(promise: Promise<unknown>, exitCode: number, message: RegExp): Promise<void> {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof NunicornError, String(error));
    assert.match(error.message, message);
    assert.equal(error.exitCode, exitCode);
    return true;
  });
}

describe('defaults', () => {
  test("are Gunicorn's", async () => {
    const { settings, sources, app, warnings } = await load(['app:app']);
    assert.deepEqual(settings.bind, ['127.0.0.1:8000']);
    assert.equal(settings.workers, 1);
    assert.equal(settings.threads, 1);
    assert.equal(settings.worker_class, 'sync');
    assert.equal(settings.timeout, 30);
    assert.equal(settings.keepalive, 2);
    assert.equal(settings.accesslog, null);
    assert.equal(settings.errorlog, '-');
    assert.equal(settings.umask, 0);
    assert.deepEqual(settings.forwarded_allow_ips, ['127.0.0.1', '::1']);
    assert.equal(settings.chdir, cwd);
    assert.equal(settings.proc_name, 'app:app');
    assert.equal(settings.fronts, 1);
    assert.equal(app, 'app:app');
    assert.deepEqual(sources.get('workers'), { kind: 'default' });
    assert.deepEqual(warnings, []);
  });

  test('come from PORT, WEB_CONCURRENCY and FORWARDED_ALLOW_IPS where these are set', async () => {
    const { settings, sources } = await load(['app'], {
      PORT: '5000',
      WEB_CONCURRENCY: '3',
      FORWARDED_ALLOW_IPS: '10.0.0.0/8, fd00::/8',
    });
    assert.deepEqual(settings.bind, ['0.0.0.0:5000']);
    assert.equal(settings.workers, 3);
    assert.deepEqual(settings.forwarded_allow_ips, ['10.0.0.0/8', 'fd00::/8']);
    assert.deepEqual(sources.get('workers'), { kind: 'environment', variable: 'WEB_CONCURRENCY' });
  });

  test('that are wrong name the variable', async () => {
    await refused(load(['app'], { WEB_CONCURRENCY: 'many' }), 1, /'many'.*WEB_CONCURRENCY/);
    await refused(load(['app'], { PORT: 'x' }), 1, /variable PORT/);
  });

  test('can be auto: numbers for this machine, with one line that says why', async () => {
    for (const { settings, notices } of [
      await load(['-w', 'auto', '--threads', 'auto', 'app']),
      await load(['--threads', 'Auto', 'app'], { WEB_CONCURRENCY: 'auto' }),
    ]) {
      assert.ok(settings.workers >= 1 && settings.threads >= 1);
      assert.equal(notices.length, 1);
      assert.match(notices[0] ?? '', /^auto: \d+ workers? with \d threads? each, because there are /);
    }
    assert.deepEqual((await load(['app'])).notices, []);
  });

  test('of fronts grow with the workers', async () => {
    assert.deepEqual([0, 1, 8, 9, 16, 17].map(defaultFronts), [1, 1, 1, 2, 2, 3]);
    assert.equal((await load(['app', '-w', '9'])).settings.fronts, 2);
    assert.equal((await load(['app', '-w', '9', '--fronts', '1'])).settings.fronts, 1);
  });
});

describe('precedence', () => {
  test('command line over variables over file over environment default', async () => {
    const env = {
      WEB_CONCURRENCY: '7',
      GUNICORN_CMD_ARGS: '--workers=8 --threads 4 --timeout 44',
      NUNICORN_CMD_ARGS: '--threads 5',
    };
    configFile('workers = 3\nthreads = 3\ntimeout = 33\nbacklog = 33\n');
    const { settings, sources } = await load(['-w', '2', 'app'], env);
    assert.equal(settings.workers, 2);
    assert.equal(settings.threads, 5);
    assert.equal(settings.timeout, 44);
    assert.equal(settings.backlog, 33);
    assert.deepEqual(sources.get('workers'), { kind: 'command line' });
    assert.deepEqual(sources.get('threads'), { kind: 'environment', variable: 'NUNICORN_CMD_ARGS' });
    assert.deepEqual(sources.get('backlog'), { kind: 'file', location: './gunicorn.conf.py', line: 4 });
    assert.equal((await load(['app'], { WEB_CONCURRENCY: '7' })).settings.workers, 3);
  });

  test('a list replaces a list', async () => {
    configFile('bind = ["127.0.0.1:1", "127.0.0.1:2"]');
    assert.deepEqual((await load(['app'])).settings.bind, ['127.0.0.1:1', '127.0.0.1:2']);
    assert.deepEqual((await load(['-b', ':3', '--bind=:4', 'app'])).settings.bind, [':3', ':4']);
  });

  test('the command line names another file; then gunicorn.conf.py is not read', async () => {
    configFile('workers = 3\nthreads = 3');
    configFile('workers = 4', 'other.py');
    configFile('workers = 5', 'third.py');
    for (const location of ['other.py', './other.py', 'file:other.py', join(cwd, 'other.py'), 'python:other']) {
      const { settings } = await load(['-c', location, 'app'], { GUNICORN_CMD_ARGS: '-c third.py' });
      assert.deepEqual([settings.workers, settings.threads], [4, 1], location);
    }
    assert.equal((await load(['app'], { GUNICORN_CMD_ARGS: '-c third.py' })).settings.workers, 5);
  });

  test('the application of the command line comes before wsgi_app', async () => {
    configFile('wsgi_app = "file:app"');
    assert.equal((await load([])).app, 'file:app');
    assert.equal((await load(['line:app'])).app, 'line:app');
  });
});

describe('the command line', () => {
  const FORMS: readonly (readonly string[])[] = [
    ['-w2'],
    ['-w', '2'],
    ['-w=2'],
    ['--workers', '2'],
    ['--workers=2'],
    ['--workers', '0x2'],
    ['--workers=02'],
    ['--workers', '1', '-w2'],
    ['-w', ' 2 '],
  ];
  for (const form of FORMS) {
    test(`understands ${form.join(' ')}`, async () => {
      assert.equal((await load([...form, 'app'])).settings.workers, 2);
      assert.equal((await load(['app', ...form])).settings.workers, 2);
    });
  }

  test('understands unambiguous beginnings of a flag', async () => {
    const { settings } = await load(['--grace', '9', '--thr=3', '--prel', '--max-q=7', '--bin', ':1', 'app']);
    assert.deepEqual(
      [settings.graceful_timeout, settings.threads, settings.preload_app, settings.max_queue, settings.bind],
      [9, 3, true, 7, [':1']],
    );
  });

  test('refuses an ambiguous beginning, naming the candidates', async () => {
    await refused(load(['--work', '2', 'app']), 2, /--work is ambiguous.*--workers, --worker-class/);
  });

  test("completes to Gunicorn's flag first: what is unambiguous there stays so", async () => {
    assert.equal((await load(['--header', 'refuse', 'app'])).settings.header_map, 'refuse');
    assert.equal((await load(['--header-t', '3', 'app'])).settings.header_timeout, 3);
  });

  test('--proxy-protocol takes a mode or none', async () => {
    const cases = [
      [['app'], 'off'],
      [['app', '--proxy-protocol'], 'auto'],
      [['--proxy-protocol', 'v2', 'app'], 'v2'],
      [['--proxy-protocol=V1', 'app'], 'v1'],
      [['--proxy-protocol', '-w', '2', 'app'], 'auto'],
    ] as const;
    for (const [words, mode] of cases) assert.equal((await load([...words])).settings.proxy_protocol, mode);
    await refused(load(['--proxy-protocol', 'v3', 'app']), 1, /off, v1, v2 or auto is needed/);
    for (const [value, mode] of [
      ['True', 'auto'],
      ['False', 'off'],
      ['None', 'off'],
    ] as const) {
      configFile(`proxy_protocol = ${value}`);
      assert.equal((await load(['app'])).settings.proxy_protocol, mode, value);
    }
  });

  test('the switches of the parser and of TLS that have no effect say so, once they are asked for', async () => {
    configFile('casefold_http_method = False\nsuppress_ragged_eofs = True\nimport ssl\nssl_version = ssl.PROTOCOL_TLS');
    const silent = await load(['app']);
    assert.deepEqual([...silent.warnings, ...silent.notices], []);
    configFile('import ssl\nssl_version = ssl.PROTOCOL_TLSv1_2\nsuppress_ragged_eofs = False');
    const { warnings, notices } = await load(['--strip-header-spaces', 'app']);
    const said = [...warnings, ...notices].filter((line) => line.includes('has no effect'));
    assert.equal(said.length, 3, said.join('\n'));
  });

  test("certificates of clients are asked for by the constants of Python's ssl", async () => {
    configFile('import ssl\ncert_reqs = ssl.CERT_REQUIRED');
    assert.equal((await load(['app'])).settings.cert_reqs, 'required');
    await refused(load(['--cert-reqs', '3', 'app']), 1, /0 \(none\), 1 \(optional\) or 2 \(required\) is needed/);
  });

  test('keeps values as they are', async () => {
    const { settings, env } = await load([
      '-e',
      'A=1=2',
      '--env',
      'B="q"',
      '--env=C=',
      '-n',
      'true',
      '--access-logformat=%(h)s "x"',
      '--access-logfile',
      '-',
      '--pythonpath=a,b',
      'app',
    ]);
    assert.deepEqual(settings.raw_env, ['A=1=2', 'B="q"', 'C=']);
    assert.deepEqual([env.A, env.B, env.C], ['1=2', '"q"', '']);
    assert.equal(settings.proc_name, 'true');
    assert.equal(settings.access_log_format, '%(h)s "x"');
    assert.equal(settings.accesslog, '-');
    assert.deepEqual(settings.pythonpath, [join(cwd, 'a'), join(cwd, 'b')]);
  });

  test('carries any value to the setting unchanged', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.string({ unit: 'binary' }), { minLength: 1, maxLength: 3 }), async (values) => {
        const words = values.flatMap((value) => [`--env=${value}`]);
        const { values: parsed } = await parseCommandLine([...words, '-n', 'x', '--', ...values], 'here');
        assert.deepEqual(parsed.get('raw_env'), values);
        assert.equal(parsed.get('proc_name'), 'x');
      }),
      { numRuns: 50 },
    );
  });

  test('takes what follows -- for the application', async () => {
    assert.equal((await load(['-w', '2', '--', 'app:app'])).app, 'app:app');
  });

  const USAGE: readonly (readonly [readonly string[], RegExp])[] = [
    [['--keep-live', '3', 'app'], /unknown option --keep-live: did you mean --keep-alive\?/],
    [['--worker', '3', '--thread', '2', 'app'], /ambiguous/],
    [['--accesslog', '-', 'app'], /did you mean --access-logfile\?/],
    [['--tiemout', '3', 'app'], /did you mean --timeout\?/],
    [['--wsgi-app', 'x'], /wsgi_app is set in the configuration file only/],
    [['--qwertyuiop', 'app'], /unknown option --qwertyuiop; nunicorn --help/],
    [['-z', 'app'], /unknown option -z/],
    [['-workers=3', 'app'], /unknown option -workers: did you mean --workers\?/],
    [['-bind', ':8000', 'app'], /unknown option -bind: did you mean --bind\?/],
    [
      ['\u2013workers', '2', 'app'],
      /^\u2013workers begins with a dash as texts have it: an option begins with hyphens/,
    ],
    [['--workers'], /--workers needs a value/],
    [['-w', '--threads', '2', 'app'], /-w needs a value/],
    [['--timeout', '30s', 'app'], /'30s': a whole number of seconds, 0 or more, is needed/],
    [['--memory-limit', '300M', 'app'], /'300M': a whole number of MB, 0 or more, is needed/],
    [['--limit-request-body', '20m', 'app'], /'20m': a whole number of bytes, 0 or more, is needed/],
    [['--preload=yes', 'app'], /--preload takes no value/],
    [['one', 'two'], /'one' and 'two' were given \(from/],
    [['siz', 'project.wsgi'], /'siz' and 'project\.wsgi' were given; .* nunicorn size \.\.\. \(from/],
    [['-w', '2', 'top', 'app'], /'top' and 'app' were given; .* nunicorn top \.\.\. \(from/],
  ];
  for (const [argv, message] of USAGE) {
    test(`refuses ${argv.join(' ')} with exit code 2`, () => refused(load(argv), 2, message));
  }

  const WRONG: readonly (readonly [readonly string[], RegExp])[] = [
    [
      ['-w', 'abc'],
      /^invalid value for --workers: 'abc': a whole number, 0 or more, or auto, is needed \(from the command line\)$/,
    ],
    [['-w', '-1'], /'-1': a whole number/],
    [['-w', '2.5'], /'2.5': a whole number/],
    [['-w', ''], /'': a whole number/],
    [['-w', '99999999999999999999'], /a whole number/],
    [['--threads', '0'], /1 or more/],
    [['--queue-timeout', '-1'], /a number of seconds/],
    [['-b', 'x:y'], /'y' is not a valid port number/],
    [['--statsd-host', 'x:y'], /'y' is not a valid port number in 'x:y'/],
    [
      ['-k', 'shop.workers.ShopWorker'],
      /no worker class but sync and gthread: write one of these, .* into hooks, such as post_fork for its init_process \(from/,
    ],
    [['-k', 'gevent'], /--worker-class: 'gevent': nunicorn does not run this worker class; gthread with --threads N/],
    [['-k', 'constructor'], /sync and gthread, for Node apps async and gthread;/],
    [
      ['-k', 'uvicorn.workers.UvicornWorker'],
      /'uvicorn.workers.UvicornWorker': nunicorn serves WSGI applications only/,
    ],
    [['-k', 'aiohttp.GunicornWebWorker'], /'aiohttp.GunicornWebWorker': nunicorn serves WSGI applications only/],
    [['--protocol', 'uwsgi'], /^--protocol = 'uwsgi' is refused: .*proxy_pass.* \(from the command line\)$/],
    [['--protocol', 'scgi'], /one of http, uwsgi is needed/],
    [['--http-protocols', 'h2,h1'], /\["h2","h1"\] is refused: .*HTTP\/2/],
    [['--dirty-app', 'a:B', '--dirty-workers', '1'], /--dirty-app = 'a:B' is refused: .*Celery/],
    [['-e', 'A'], /KEY=VALUE is needed/],
    [['--chdir', '/nowhere'], /a folder that exists/],
    [['-m', '089'], /octal/],
    [['-u', 'no-such-user'], /name or number of a user/],
    [['-g', 'no-such-group'], /name or number of a group/],
    [['--forwarded-allow-ips', '10.0.0.1/8'], /host bits/],
    [['--forwarded-allow-ips', 'fd00::1/64'], /host bits/],
    [['--forwarded-allow-ips', 'proxy'], /'proxy' is not an IP address/],
    [['-c', 'missing.py'], /'missing.py' doesn't exist/],
    [['-c', '/tmp'], /'\/tmp' is a folder; name the file, as in \/tmp\/gunicorn\.conf\.py/],
    [['-c', 'egg:thing'], /PATH, file:PATH or python:MODULE is needed/],
    [['-c', 'settings.toml'], /gunicorn\.conf\.py or nunicorn\.config\.\{ts,js,mjs,json\} is needed/],
  ];
  // As argparse: the text is no number at all.
  const NO_NUMBER = ['abc', '2.5', ''];
  for (const [argv, message] of WRONG) {
    if (argv[0] === '-w' && NO_NUMBER.includes(argv[1] ?? '')) {
      test(`refuses ${argv.join(' ')} with exit code 2`, () => refused(load([...argv, 'app']), 2, message));
      continue;
    }
    test(`refuses ${argv.join(' ')} with exit code 1`, () => refused(load([...argv, 'app']), 1, message));
  }

  test('without an application ends with the words of Gunicorn', () =>
    refused(load([]), 1, /^No application module specified\./));

  test('with a malformed application ends with the exit codes of Gunicorn', async () => {
    await refused(
      load(['-w', '2', ' ']),
      3,
      /^' ' is not an application: .* nothing may follow the \\ at the end of a line/,
    );
    await refused(load(['a:b:c']), 4, /as an attribute name or function call/);
    await refused(load(['a:b.c']), 4, /MODULE:CALLABLE/);
    await refused(load(['./a:b']), 3, /not an application.*named by its file, such as ..app.js/);
    writeFileSync(join(cwd, 'a.py'), '');
    await refused(load(['./a.py:b']), 3, /^'\.\/a\.py:b' names a file, .* did you mean 'a:b'\?$/);
    await refused(load([`${cwd}/a.py`]), 3, new RegExp(`did you mean 'a:application' with --chdir ${cwd}\\?$`));
    await refused(load(['sub/a.py:b']), 3, /did you mean 'a:b' with --chdir sub\?$/);
    mkdirSync(join(cwd, 'sub/package'), { recursive: true });
    writeFileSync(join(cwd, 'sub/package/__init__.py'), '');
    await refused(load(['sub/package/wsgi.py']), 3, /did you mean 'package\.wsgi:application' with --chdir sub\?$/);
    writeFileSync(join(cwd, 'sub/__init__.py'), '');
    await refused(load(['./sub/package/wsgi.py']), 3, /did you mean 'sub\.package\.wsgi:application'\?$/);
    assert.equal((await load(['my-app:create(x={"a": 1})'])).app, 'my-app:create(x={"a": 1})');
  });
});

describe('a setting of Gunicorn that changes nothing here', () => {
  test('is taken, with one line that says why', async () => {
    configFile('worker_connections = 500\nasgi_loop = "auto"\ndirty_timeout = 10\n');
    const { notices, warnings } = await load(['--http-parser', 'fast', '--worker-connections=2000', 'app']);
    assert.deepEqual(notices, [
      '--worker-connections = 2000 has no effect: the front holds the connections, not the workers; --max-queue limits the requests that wait (from the command line)',
      "--http-parser = 'fast' has no effect: the front reads HTTP with Node's parser (from the command line)",
      'dirty_timeout = 10 has no effect: it belongs to dirty arbiters, which nunicorn does not have (from ./gunicorn.conf.py:3)',
    ]);
    assert.deepEqual(warnings, []);
  });

  test('may be a hook that is never called', async () => {
    configFile('def dirty_post_fork(arbiter, worker):\n    pass\n');
    assert.deepEqual((await load(['app'])).notices, [
      "dirty_post_fork = 'dirty_post_fork' has no effect: it belongs to dirty arbiters, which nunicorn does not have (from ./gunicorn.conf.py:1)",
    ]);
  });

  test('may be ssl_context, which is refused where there is a certificate', async () => {
    configFile('def ssl_context(config, default):\n    return default()\n');
    assert.deepEqual((await load(['app'])).notices, [
      "ssl_context = 'ssl_context' has no effect: certfile is not set (from ./gunicorn.conf.py:1)",
    ]);
    await refused(
      load(['--certfile', 'cert.pem', 'app']),
      1,
      /ssl_context = 'ssl_context' is refused: TLS is not done/,
    );
  });

  test('is checked all the same', () => refused(load(['--worker-connections=many', 'app']), 2, /a whole number/));

  test("says nothing of Gunicorn's own default", async () => {
    configFile('http_protocols = "h1"\nhttp2_cleartext = "off"\nworker_connections = 1000\ndirty_apps = []\n');
    assert.deepEqual((await load(['--suppress-ragged-eofs', 'app'])).notices, []);
  });
});

describe('settings that follow from others', () => {
  test('sync with threads is gthread', async () => {
    assert.equal((await load(['--threads=2', 'app'])).settings.worker_class, 'gthread');
    assert.equal((await load(['-k', 'gunicorn.workers.sync.SyncWorker', 'app'])).settings.worker_class, 'sync');
    assert.equal((await load(['-k', 'gunicorn.workers.gthread.ThreadWorker', 'app'])).settings.worker_class, 'gthread');
    assert.equal((await load(['-k', 'gthread', 'app'])).settings.threads, 1);
  });

  test('a worker class that only Gunicorn has may stand in a file where the command line names another', async () => {
    configFile('worker_class = "gevent"\nthreads = 2\n');
    await refused(load(['app']), 1, /'gevent': nunicorn does not run this worker class; .*gunicorn\.conf\.py:1\)$/);
    assert.equal((await load(['-k', 'gthread', 'app'])).settings.worker_class, 'gthread');
    assert.equal((await load(['app'], { GUNICORN_CMD_ARGS: '-k gthread' })).settings.worker_class, 'gthread');
  });

  test('a worker class that does not exist here is refused', async () => {
    await refused(load(['-k', 'gevent', 'app']), 1, /'gevent': nunicorn does not run this worker class; gthread with/);
  });

  test('files start at chdir, chdir starts where the server was started', async () => {
    mkdirSync(join(cwd, 'project'));
    const { settings } = await load([
      '--chdir',
      'project',
      '--log-file=e.log',
      '--access-logfile',
      '-',
      '-p',
      '/run/x.pid',
      '--bind=unix:app.sock',
      '--bind=unix:/run/app.sock',
      '--admin-bind=unix:admin.sock',
      'app',
    ]);
    assert.equal(settings.chdir, join(cwd, 'project'));
    assert.deepEqual(settings.bind, [`unix:${join(cwd, 'project', 'app.sock')}`, 'unix:/run/app.sock']);
    assert.equal(settings.admin_bind, `unix:${join(cwd, 'project', 'admin.sock')}`);
    assert.equal(settings.errorlog, join(cwd, 'project', 'e.log'));
    assert.equal(settings.accesslog, '-');
    assert.equal(settings.pidfile, '/run/x.pid');
  });

  test('an access log format that is none is refused, unless the log is that of a logger of Python', async () => {
    const args = ['--access-logfile', '-', '--access-logformat', '%(h', 'app'];
    await refused(load(args), 1, /^invalid access log format '%\(h': .* \(from the command line\)$/);
    assert.equal((await load(['--access-logfile', '-', '--access-logformat', 'json', 'app'])).app, 'app');
    assert.equal((await load(['--logger-class', 'my.Logger', ...args])).app, 'app');
  });

  test('tmp_upload_dir is another name for spool_dir', async () => {
    configFile('tmp_upload_dir = "/var/tmp"');
    assert.equal((await load(['app'])).settings.spool_dir, '/var/tmp');
    assert.equal((await load(['app', '--spool-dir', 'own'])).settings.spool_dir, join(cwd, 'own'));
  });

  test('the name in titles is proc_name, default_proc_name, or the application', async () => {
    const name = async (...argv: readonly string[]): Promise<string> => (await load(argv)).settings.proc_name;
    assert.equal(await name('app:app'), 'app:app');
    configFile('default_proc_name = "from-file"');
    assert.equal(await name('app:app'), 'from-file');
    assert.equal(await name('app:app', '-n', 'own'), 'own');
  });

  test('--paste takes the place of the application', async () => {
    configFile('', 'dev.ini');
    assert.equal((await load(['--paste', 'dev.ini'])).app, join(cwd, 'dev.ini'));
    assert.equal((await load(['--paster', 'dev.ini#admin'])).app, join(cwd, 'dev.ini#admin'));
    await refused(load(['--paste', 'lost.ini']), 1, /^--paste 'lost\.ini': '\/.*lost\.ini' not found$/);
    await refused(load(['--paste', '.']), 1, /^--paste '\.': '\/.*' cannot be read \(EISDIR\)$/);
  });

  test('sendfile is on unless --no-sendfile or SENDFILE says no', async () => {
    const sendfile = async (argv: readonly string[], env = {}): Promise<boolean> =>
      (await load([...argv, 'app'], env)).settings.sendfile;
    assert.equal(await sendfile([]), true);
    assert.equal(await sendfile(['--no-sendfile']), false);
    assert.equal(await sendfile([], { SENDFILE: 'yes' }), true);
    assert.equal(await sendfile([], { SENDFILE: '0' }), false);
    configFile('sendfile = False');
    assert.equal(await sendfile([]), false);
  });

  test('users and groups become numbers', async () => {
    const { settings } = await load(['-u', 'root', '-g', '12', 'app']);
    assert.deepEqual([settings.user, settings.group], [0, 12]);
  });

  test('a umask is octal when it begins with 0', async () => {
    const umask = async (text: string): Promise<number> => (await load(['-m', text, 'app'])).settings.umask;
    assert.deepEqual(
      [await umask('022'), await umask('18'), await umask('0o22'), await umask('0x12')],
      [18, 18, 18, 18],
    );
  });

  test('an unknown log level is info, with a warning', async () => {
    const { settings, warnings } = await load(['--log-level', 'loud', 'app']);
    assert.equal(settings.loglevel, 'info');
    assert.match(warnings.join('\n'), /^--log-level: 'loud' is no log level, info is used/);
  });
});

describe('the configuration file', () => {
  test('is run by Python', async () => {
    configFile(`
import os, multiprocessing, pathlib
print("printed by the file")
_private = 1
number = 4
workers = number // 2 + 1
bind = ("127.0.0.1:1", "unix:/tmp/x")
preload_app = True
raw_env = ["A=b"]
accesslog = pathlib.Path("/tmp") / "a.log"
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
umask = 0o27
def helper(x): return x
`);
    const { settings, warnings } = await load(['app']);
    assert.equal(settings.workers, 3);
    assert.deepEqual(settings.bind, ['127.0.0.1:1', 'unix:/tmp/x']);
    assert.equal(settings.preload_app, true);
    assert.equal(settings.accesslog, '/tmp/a.log');
    assert.deepEqual(settings.secure_scheme_headers, { 'X-FORWARDED-PROTO': 'https' });
    assert.equal(settings.umask, 0o27);
    assert.deepEqual(warnings, []);
  });

  test('sees the environment of the user and can change it for the application', async () => {
    configFile(`
import os
assert os.environ.get("PYTHONPATH") == "/x", os.environ.get("PYTHONPATH")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
del os.environ["GONE"]
`);
    const { env } = await load(['-e', 'OWN=1', 'app'], { PYTHONPATH: '/x', GONE: '1', KEPT: '2' });
    assert.deepEqual(env, { PATH, PYTHONPATH: '/x', KEPT: '2', DJANGO_SETTINGS_MODULE: 'project.settings', OWN: '1' });
  });

  test('can import modules that lie beside it', async () => {
    configFile('count = 6', 'beside.py');
    configFile('from beside import count\nworkers = count');
    assert.equal((await load(['app'])).settings.workers, 6);
  });

  test('can import what gunicorn has, also where it is not installed', async () => {
    configFile('from gunicorn import glogging\nclass Own(glogging.Logger): pass\nlogger_class = Own\n');
    assert.equal((await load(['app'])).settings.logger_class, '__config__.Own');
  });

  test('that imports more of gunicorn than there is without it is told so', async () => {
    execFileSync('python3', ['-m', 'venv', '--without-pip', 'bare'], { cwd, env: { PATH } });
    const python = join(cwd, 'bare', 'bin', 'python');
    configFile('from gunicorn.arbiter import Arbiter\n');
    await refused(
      load(['--python', python, 'app']),
      1,
      /ModuleNotFoundError, as gunicorn is not installed for \/.*: take that import out, or /,
    );
    configFile('import gunicorns\n');
    await refused(load(['--python', python, 'app']), 1, /it raised ModuleNotFoundError\n/);
  });

  test('may have variables under names that are settings of nunicorn alone', async () => {
    configFile(
      'import sys\nlog_format = "%(asctime)s %(message)s"\npython = sys\nmax_queue = [1]\nadmin_bind = "0.0.0.0:9100"\n',
    );
    const { settings, warnings } = await load(['app', '--admin-token', 'x'.repeat(32)]);
    assert.equal(settings.log_format, 'text');
    assert.equal(settings.admin_bind, '0.0.0.0:9100');
    assert.deepEqual(warnings, [
      './gunicorn.conf.py:2: log_format is taken for a variable of the file and sets nothing: for the setting of nunicorn one of text, json is needed',
      './gunicorn.conf.py:3: python is taken for a variable of the file and sets nothing: for the setting of nunicorn text is needed',
      './gunicorn.conf.py:4: max_queue is taken for a variable of the file and sets nothing: for the setting of nunicorn a whole number, 0 or more, is needed',
    ]);
    configFile('workers = "many"\n');
    await refused(load(['app']), 1, /'many'/);
  });

  test('finds the command line in sys.argv', async () => {
    configFile('import sys\nworkers = 3 if "--preload" in sys.argv[1:] else 2\n');
    assert.equal((await load(['--preload', 'app'])).settings.workers, 3);
    assert.equal((await load(['app'])).settings.workers, 2);
  });

  test('that changes a logger of gunicorn in place has a logger of its own', async () => {
    for (const [line, own] of [
      ['glogging.Logger.datefmt = "%H:%M"', true],
      ['glogging.Logger.access = print', true],
      ['logging.getLogger("gunicorn.access").disabled = True', true],
      ['logging.basicConfig()', false],
    ] as const) {
      configFile(`import logging\nfrom gunicorn import glogging\n${line}\n`);
      const { logger_class } = (await load(['app'])).settings;
      assert.equal(logger_class, own ? '__config__.Logger' : 'gunicorn.glogging.Logger', line);
    }
  });

  test('that raises ends the start with its traceback', async () => {
    configFile('def f():\n    raise KeyError("lost")\nf()\n');
    await refused(
      load(['app']),
      1,
      /gunicorn\.conf\.py could not be used: it raised KeyError\nTraceback[\s\S]*gunicorn\.conf\.py", line 2, in f[\s\S]*KeyError: 'lost'$/,
    );
  });

  test('that does not compile shows where', async () => {
    configFile('workers = = 2\n');
    await refused(load(['app']), 1, /line 1\n[\s\S]*SyntaxError/);
  });

  test('that ends the process is an error too', async () => {
    configFile('import os\nos._exit(7)');
    await refused(load(['app']), 1, /Python ended with exit code 7/);
    configFile('import sys\nsys.exit(3)');
    await refused(load(['app']), 1, /it called sys\.exit\(3\)/);
  });

  test('is named when a value is wrong, also one that the command line replaces', async () => {
    configFile('workers = "many"');
    await refused(
      load(['app']),
      1,
      /^invalid value for workers: 'many': a whole number, 0 or more, or auto, is needed \(from \.\/gunicorn\.conf\.py:1\)$/,
    );
    await refused(load(['-w', '2', 'app']), 1, /'many'/);
    configFile('workers = None');
    await refused(load(['app']), 1, /invalid value for workers: None/);
    configFile('def workers(): pass');
    await refused(load(['app']), 1, /workers: a setting's value cannot be of type function/);
  });

  test('is named with the line of the assignment', async () => {
    const LINES: readonly (readonly [string, number | undefined])[] = [
      ['\n\nworkers = "x"', 3],
      ['import os\nif os:\n    workers = "x"\nelse:\n    workers = 2', 5],
      ['try:\n    workers = 1\nexcept OSError:\n    pass\nworkers: str = "x"', 5],
      ['threads, workers = 2, "x"', 1],
      ['def workers(): pass', 1],
      ['globals()["workers"] = "x"', undefined],
    ];
    for (const [content, line] of LINES) {
      configFile(content);
      const place = line === undefined ? '' : `:${line}`;
      await refused(load(['app']), 1, new RegExp(`\\(from \\./gunicorn\\.conf\\.py${place}\\)$`));
    }
    configFile('workers = "x"', 'other.py');
    await refused(load(['-c', 'python:other', 'app']), 1, /\(from python:other:1\)$/);
  });

  test('may spell out what Gunicorn does anyway', async () => {
    configFile(
      'worker_connections = 1000\nreload = False\nworker_tmp_dir = None\nstatsd_host = ""\nproxy_protocol = False\npre_fork = None\n',
    );
    assert.deepEqual((await load(['app'])).warnings, []);
  });

  test('may say None where Gunicorn takes it', async () => {
    const UNSET = [
      'access_log_format',
      'default_proc_name',
      'dogstatsd_tags',
      'errorlog',
      'http_parser',
      'http_protocols',
      'log_format',
    ];
    UNSET.push('proc_name', 'protocol', 'root_path', 'sendfile', 'statsd_prefix', 'syslog_addr', 'syslog_facility');
    const { settings: before } = await load(['app']);
    configFile(UNSET.map((name) => `${name} = None\n`).join(''));
    const { settings, warnings, notices, sources } = await load(['app']);
    assert.deepEqual({ settings, warnings, notices }, { settings: before, warnings: [], notices: [] });
    assert.deepEqual(sources.get('proc_name'), { kind: 'default' });
    configFile('header_map = None');
    assert.equal((await load(['app'])).settings.header_map, 'refuse');
    for (const name of ['bind', 'logger_class', 'loglevel', 'worker_class', 'timeout', 'chdir']) {
      configFile(`${name} = None`);
      await refused(load(['app']), 1, new RegExp(`invalid value for ${name}: None`));
    }
  });

  test('gets a word about names that are nearly settings, and none about others', async () => {
    configFile(
      'worker = 3\nkeep_alive = 5\nThreads = 2\nlog_level = "debug"\nDATABASE = "x"\nhost = "y"\nnames = [1]\nmax_workers = 2\nmy_bind = "z"\nMASTER = 1\nTIMEOUT = 5\nWORKERS = 2\nworkers = WORKERS\nfor name in names:\n    bnid = name\n',
    );
    const { warnings } = await load(['app']);
    assert.deepEqual(warnings, [
      './gunicorn.conf.py:1: worker is not a setting, did you mean workers?',
      './gunicorn.conf.py:2: keep_alive is not a setting, did you mean keepalive?',
      './gunicorn.conf.py:3: Threads is not a setting, did you mean threads?',
      './gunicorn.conf.py:4: log_level is not a setting, did you mean loglevel?',
      './gunicorn.conf.py:11: TIMEOUT is not a setting, did you mean timeout?',
      './gunicorn.conf.py:15: bnid is not a setting, did you mean bind?',
    ]);
  });
});

describe("the configuration file in Node's languages", () => {
  const runsTypeScript = 'typescript' in process.features && Boolean(process.features.typescript);

  test('is JSON', async () => {
    configFile('{\n  "workers": 3,\n  "bind": "127.0.0.1:1",\n  "raw_env": ["A=b"]\n}', 'nunicorn.config.json');
    const { settings, sources, warnings } = await load(['app']);
    assert.deepEqual([settings.workers, settings.bind, settings.raw_env], [3, ['127.0.0.1:1'], ['A=b']]);
    assert.deepEqual(sources.get('workers'), { kind: 'file', location: './nunicorn.config.json', line: 2 });
    assert.deepEqual(warnings, []);
  });

  test('is JavaScript: an object, or a function that returns one', async () => {
    configFile(
      'import { cpus } from "node:os";\nprocess.env.FROM_FILE = "1";\nexport default {\n  workers: cpus().length,\n  accesslog: null,\n};\n',
      'nunicorn.config.mjs',
    );
    const { settings, env } = await load(['app']);
    assert.ok(settings.workers >= 1);
    assert.equal(settings.accesslog, null);
    assert.equal(env.FROM_FILE, '1');
    configFile('export default async () => ({ threads: 7 });', 'given.mjs');
    assert.equal((await load(['-c', 'given.mjs', 'app'])).settings.threads, 7);
  });

  test('is TypeScript where Node runs it, and one clear line elsewhere', async () => {
    configFile(
      "import type { Config } from 'nunicorn';\nexport default { workers: 5 } satisfies Config;\n",
      'nunicorn.config.ts',
    );
    if (runsTypeScript) assert.equal((await load(['app'])).settings.workers, 5);
    else await refused(load(['app']), 1, /nunicorn\.config\.ts .* Node 22\.18 or newer/);
  });

  test('is read in the place of gunicorn.conf.py beside it, and says so', async () => {
    configFile('workers = 2');
    configFile('{"workers": 3}', 'nunicorn.config.json');
    const { settings, warnings } = await load(['app']);
    assert.equal(settings.workers, 3);
    assert.deepEqual(warnings, ['./nunicorn.config.json is read; ./gunicorn.conf.py beside it is not']);
    assert.equal((await load(['-c', 'gunicorn.conf.py', 'app'])).settings.workers, 2);
  });

  test('names the line of a wrong value, and every name that is no setting', async () => {
    configFile('{\n  "threads": 2,\n  "workers": "many"\n}', 'nunicorn.config.json');
    await refused(load(['app']), 1, /workers: 'many': .* \(from \.\/nunicorn\.config\.json:3\)$/);
    configFile('{\n  "worker": 2,\n  "qwertyuiop": 1\n}', 'nunicorn.config.json');
    assert.deepEqual((await load(['app'])).warnings, [
      './nunicorn.config.json:2: worker is not a setting, did you mean workers?',
      './nunicorn.config.json:3: qwertyuiop is not a setting; docs/settings.md lists them all',
    ]);
  });

  test('that cannot be used says why', async () => {
    configFile('{"workers": }', 'nunicorn.config.json');
    await refused(load(['app']), 1, /nunicorn\.config\.json could not be used: SyntaxError/);
    configFile('[1]', 'nunicorn.config.json');
    await refused(load(['app']), 1, /it needs an object of settings$/);
    configFile('export const workers = 2;', 'none.mjs');
    await refused(load(['-c', 'none.mjs', 'app']), 1, /an object of settings as its default export/);
    configFile('const f = () => {\n  throw new Error("lost");\n};\nf();\n', 'raises.mjs');
    await refused(load(['-c', 'raises.mjs', 'app']), 1, /Error: lost\n +at f \(file:\/\/.*raises\.mjs:2:9\)/);
    configFile('export default { post_fork() {} };', 'hooks.mjs');
    await refused(
      load(['-c', 'hooks.mjs', 'app']),
      1,
      /post_fork runs in the workers.*gunicorn\.conf\.py \(from hooks\.mjs:1\)/,
    );
    configFile('export default { on_exit(server, other) {} };', 'many.mjs');
    await refused(
      load(['-c', 'many.mjs', 'app']),
      1,
      /on_exit: the function takes 2 arguments, but it is called as on_exit\(server\)/,
    );
    configFile('export default { statsd_host: { a() {} } };', 'object.mjs');
    await refused(load(['-c', 'object.mjs', 'app']), 1, /statsd_host: a setting's value cannot be of type object/);
  });

  test('that imports nunicorn where only the global package is there: the message says how', async () => {
    configFile("import { defineConfig } from 'nunicorn';\nexport default defineConfig({});", 'typed.mjs');
    configFile("const { defineConfig } = require('nunicorn');\nmodule.exports = defineConfig({});", 'typed.cjs');
    for (const name of ['typed.mjs', 'typed.cjs'])
      await refused(load(['-c', name, 'app']), 1, /typed\..js could not be used: Node does not find .*defineConfig/);
  });

  test('may do what it likes to its process: that is a thread', async () => {
    configFile('process.exit(5);', 'exits.mjs');
    await refused(load(['-c', 'exits.mjs', 'app']), 1, /exits\.mjs could not be used: it ended with exit code 5/);
    configFile('await new Promise(() => {});', 'never.mjs');
    await refused(load(['-c', 'never.mjs', 'app']), 1, /never\.mjs could not be used: it ended with exit code 13/);
    configFile(
      'setTimeout(() => { throw new Error("late"); });\nawait new Promise(setImmediate);\nfor (;;) await new Promise(setImmediate);',
      'late.mjs',
    );
    await refused(load(['-c', 'late.mjs', 'app']), 1, /late\.mjs could not be used: Error: late\n +at .*late\.mjs:1/);
    configFile('setInterval(() => {}, 1000);\nprocess.env.KEPT = "no";\nexport default { threads: 3 };', 'left.mjs');
    assert.equal((await load(['-c', 'left.mjs', 'app'])).settings.threads, 3);
    assert.equal(process.env.KEPT, undefined);
  });
});

describe('GUNICORN_CMD_ARGS', () => {
  const SPLIT: readonly (readonly [string, readonly string[] | undefined])[] = [
    ['', []],
    ['  a  b\tc\n', ['a', 'b', 'c']],
    [`--n "a b" 'c "d"' e\\ f`, ['--n', 'a b', 'c "d"', 'e f']],
    [`a"b c"d''`, ['ab cd']],
    [`'' ""`, ['', '']],
    [`"a\\"b\\\\c\\d" 'e\\f'`, ['a"b\\c\\d', 'e\\f']],
    [`"open`, undefined],
    [`'open`, undefined],
    ['end\\', undefined],
  ];
  for (const [text, words] of SPLIT) {
    test(`splits ${JSON.stringify(text)} as shlex does`, () => assert.deepEqual(shellWords(text), words));
  }

  test('that cannot be understood is named', async () => {
    await refused(load(['app'], { GUNICORN_CMD_ARGS: '"' }), 2, /GUNICORN_CMD_ARGS/);
    await refused(load(['app'], { GUNICORN_CMD_ARGS: '--bogus' }), 2, /--bogus.*GUNICORN_CMD_ARGS/);
    await refused(load(['app'], { NUNICORN_CMD_ARGS: '-w x' }), 2, /'x'.*NUNICORN_CMD_ARGS/);
  });

  test('cannot name the application', async () => {
    const { app, warnings } = await load(['app'], { GUNICORN_CMD_ARGS: 'other -w 2' });
    assert.equal(app, 'app');
    assert.match(warnings.join('\n'), /'other' in GUNICORN_CMD_ARGS is no option/);
  });
});

describe('help', () => {
  test('lists every flag that has an effect, in groups', async () => {
    const help = helpText(80);
    for (const name of SETTING_NAMES) {
      if ('status' in SETTINGS[name]) continue;
      for (const flag of SETTINGS[name].flags) assert.match(help, new RegExp(`(^|[ ,])${flag}([ ,]|$)`, 'm'));
    }
    for (const section of SECTIONS) {
      const shown = SETTING_NAMES.some(
        (name) =>
          SETTINGS[name].section === section && SETTINGS[name].flags.length > 0 && !('status' in SETTINGS[name]),
      );
      assert.equal(help.includes(`\n${section}:\n`), shown, section);
    }
  });

  test('fits the terminal, but for an example that is longer', () => {
    for (const columns of [60, 80, 100]) {
      const wide = helpText(columns)
        .split('\n')
        .filter((line) => line.length > columns && !line.includes('nunicorn'));
      assert.deepEqual(wide, []);
    }
  });

  test('is asked for by -h and --help, the version by -v and --version', async () => {
    for (const flag of ['-h', '--help', '--hel'])
      assert.equal((await parseCommandLine([flag], 'here')).request, 'help');
    for (const flag of ['-v', '--version']) assert.equal((await parseCommandLine([flag], 'here')).request, 'version');
    const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    assert.equal(versionText(), `nunicorn (version ${version})`);
  });
});

describe('the table', () => {
  test('has each flag and each name once', () => {
    const flags = Object.values(SETTINGS).flatMap((setting) => setting.flags);
    assert.equal(new Set(flags).size, flags.length);
  });

  test('explains each setting in sentences', () => {
    for (const name of SETTING_NAMES) {
      const { help, flags, metavar, type }: Setting<unknown> = SETTINGS[name];
      assert.match(help, /^[A-Z].*[.]$/, name);
      assert.equal(metavar !== undefined, flags.length > 0 && type.arity !== 'flag', `${name}: metavar`);
    }
  });

  test('is what docs/settings.md says (npm run docs)', () => {
    assert.equal(readFileSync(SETTINGS_DOC, 'utf8'), settingsDocument());
  });
});

describe('--print-config', () => {
  test('shows each value with its source', async () => {
    configFile(`threads = 2\nraw_env = ["A=it's"]\nworker_connections = 5`);
    const text = printedSettings(await load(['-w', '3', 'app:app'], { PORT: '5000' }));
    const line = (name: string): string => text.split('\n').find((each) => each.startsWith(`${name} `)) ?? '';
    assert.match(line('workers'), /^workers +=\s3 +# the command line$/);
    assert.match(line('threads'), /= 2 +# \.\/gunicorn\.conf\.py:1$/);
    assert.match(line('raw_env'), /= \["A=it's"\] +# \.\/gunicorn\.conf\.py:2$/);
    assert.match(line('worker_connections'), /= 5 +# \.\/gunicorn\.conf\.py:3, no effect$/);
    assert.match(line('bind'), /= \['0\.0\.0\.0:5000'\] +# the environment variable PORT$/);
    assert.match(line('timeout'), /= 30 +# the default$/);
    assert.match(line('accesslog'), /= None +# the default$/);
    assert.match(line('wsgi_app'), /= 'app:app' /);
    for (const name of SETTING_NAMES) {
      if (name !== 'print_config' && name !== 'check_config') assert.notEqual(line(name), '', name);
    }
  });

  test('says where the application was named', async () => {
    const line = async (...argv: readonly string[]): Promise<string | undefined> =>
      printedSettings(await load(argv)).match(/^wsgi_app .*/m)?.[0];
    configFile('wsgi_app = "named:app"');
    assert.match((await line()) ?? '', /= 'named:app' +# \.\/gunicorn\.conf\.py:1$/);
    assert.match((await line('other:app')) ?? '', /= 'other:app' +# the command line$/);
  });

  test('has as comments what cannot be written down, and what is secret', async () => {
    configFile(
      'import logging\nlogconfig_dict = {"filters": {"mine": {"()": logging.Filter}}}\nadmin_bind = "127.0.0.1:1"\nadmin_token = "hush"\n',
    );
    const text = printedSettings(await load(['app']));
    assert.match(text, /^# logconfig_dict += .*'<type>'/m);
    assert.match(text, /^# admin_token += '\*\*\*' +# \.\/gunicorn\.conf\.py:4$/m);
    assert.doesNotMatch(text, /hush/);
    configFile(text);
    assert.deepEqual((await load(['app'])).warnings, []);
  });

  test('is a configuration file that means the same', async () => {
    const first = await load(['-w', '3', '--env', 'A="b\\n"', '--umask', '022', '-u', 'root', 'app:app'], {
      PORT: '5000',
    });
    configFile(printedSettings(first));
    const second = await load([]);
    assert.deepEqual(second.settings, { ...first.settings, wsgi_app: 'app:app' });
    assert.deepEqual([second.app, second.warnings], ['app:app', []]);
  });
});

describe('--check-config', () => {
  test('takes a file in the place of the application for the file to check', async () => {
    configFile('workers = 3', 'my.conf.py');
    const { app, settings } = await load(['--check-config', 'my.conf.py']);
    assert.deepEqual([app, settings.workers], ['', 3]);
    configFile('wsgi_app = "named:app"', 'my.conf.py');
    assert.equal((await load(['--print-config', 'my.conf.py'])).app, 'named:app');
    assert.equal((await load(['--check-config', 'app.py'])).app, 'app.py');
    configFile('export default { workers: 3 }', 'nunicorn.config.mjs');
    assert.equal((await load(['--check-config', 'nunicorn.config.mjs'])).settings.workers, 3);
    configFile('export default (request, response) => response.end()', 'app.mjs');
    assert.equal((await load(['--check-config', './app.mjs'])).app, './app.mjs');
    await refused(load(['--check-config']), 1, /^No application module/);
    await refused(load(['my.conf.py', '-c', 'my.conf.py', '--check-config', 'two']), 2, /one application/);
  });
});

describe('completion', () => {
  const complete = (...words: readonly string[]): readonly string[] =>
    execFileSync(
      'bash',
      [
        '-c',
        `${completionScript('bash')}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _nunicorn; printf '%s\\n' "\${COMPREPLY[@]}"`,
        'bash',
        'nunicorn',
        ...words,
      ],
      { encoding: 'utf8' },
    )
      .split('\n')
      .filter((word) => word !== '');

  test('of bash offers flags, values where these are few, and leaves the rest to files', () => {
    assert.deepEqual(complete('--worker'), ['--workers', '--worker-class', '--worker-tmp-dir']);
    assert.deepEqual(complete('-w', '2', '--worker-class', ''), ['sync', 'gthread', 'async']);
    assert.deepEqual(complete('--log-level', 'w'), ['warning']);
    assert.ok(complete('-').includes('--help'));
    assert.deepEqual(complete('--config', 'x'), []);
    assert.deepEqual(complete('appl'), []);
    assert.deepEqual(complete('--log-level', '=', 'w'), ['warning']);
    assert.deepEqual(complete('completion', ''), ['bash', 'zsh', 'fish']);
  });

  test('of zsh has each flag with its description', () => {
    const script = completionScript('zsh');
    assert.match(script, /^#compdef nunicorn\n/);
    assert.match(script, /\{-k\+,--worker-class=\}'\[How a worker [^']*\]:STRING:\(sync gthread async\)'/);
    assert.match(script, /'--preload''\[Import the application once/);
  });
});

test('completion of fish has each flag with its values', () => {
  const script = completionScript('fish');
  assert.match(script, /^complete -c nunicorn -s k -l worker-class -x -a 'sync gthread async' -d '/m);
  assert.match(script, /^complete -c nunicorn -l preload -d '/m);
});

describe('the nearest name', () => {
  const NAMES = ['workers', 'threads', 'keep-alive', 'timeout'];
  test('forgives a third of the letters', () => {
    assert.equal(nearest('wrokers', NAMES), 'workers');
    assert.equal(nearest('KEEPALIVE', NAMES), 'keep-alive');
    assert.equal(nearest('thread', NAMES), 'threads');
    assert.equal(nearest('w', NAMES), undefined);
    assert.equal(nearest('database', NAMES), undefined);
  });
});
