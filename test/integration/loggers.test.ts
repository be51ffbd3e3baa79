// Logs through Python's logging: logger_class, logconfig_dict, syslog. The same configuration files run with gunicorn.
import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { KINDS } from '../helpers/matrix.ts';
import { FIXTURES } from '../helpers/paths.ts';
import { isAlive } from '../helpers/processes.ts';
import { finishing, type Kind, Server, withServer } from '../helpers/server.ts';
import { withConfig } from '../helpers/transcript.ts';

const none = { skip: !KINDS.includes('nunicorn') };
const APP = { app: 'hooks.app:application' };

/** Runs each server with the configuration, asks for a page, and gives what it wrote until its end. */
async function outputOfEach(config: string, path: string): Promise<{ stdout: string; log: string }[]> {
  const outputs: { stdout: string; log: string }[] = [];
  await withConfig(config, async (file) => {
    for (const kind of KINDS as Kind[]) {
      await withServer({ ...APP, kind, args: ['-c', file] }, async (server) => {
        await server.get(path, 'User-Agent: "me\r\nReferer: http://there/\r\nX-One: 1\r\n');
        server.kill('SIGTERM');
        assert.deepEqual(await server.exit(), { code: 0, signal: null }, server.output);
        outputs.push({ stdout: server.stdout, log: server.log });
      });
    }
  });
  return outputs;
}

describe('a logger of Python', () => {
  it('logger_class writes the lines of the server, of workers and of the access log', async () => {
    const config = `
import logging
from gunicorn import glogging

class Own(glogging.Logger):
    def setup(self, cfg):
        super().setup(cfg)
        self.error_log.handlers[0].setFormatter(logging.Formatter("own %(levelname)s %(message)s"))
    def atoms(self, resp, req, environ, request_time):
        atoms = super().atoms(resp, req, environ, request_time)
        atoms["x"] = "added"
        return atoms

logger_class = Own
accesslog = "-"
access_log_format = '%(x)s %(h)s %(l)s %(u)s "%(r)s" %(m)s %(U)s %(q)s %(H)s %(s)s %(b)s %(f)s %(a)s %(T)s %({x-one}i)s %({content-type}o)s %({REQUEST_METHOD}e)s %({none}e)s'
def post_fork(server, worker):
    worker.log.info("from post_fork")
`;
    for (const output of (await outputOfEach(config, '/a%20b?c=d')).map(({ stdout }) => stdout)) {
      assert.match(
        output,
        /^added 127\.0\.0\.1 - - "GET \/a%20b\?c=d HTTP\/1\.1" GET \/a b c=d HTTP\/1\.1 200 5 http:\/\/there\/ \\"me 0 1 text\/plain GET -$/m,
      );
    }
    await withConfig(config, async (file) => {
      await withServer({ ...APP, args: ['-c', file] }, async (server) => {
        await server.waitForLog(/^own INFO from post_fork$/m);
        assert.match(server.log, /^own INFO Listening at: /m);
        assert.doesNotMatch(server.log, /\[INFO\]/);
      });
    });
  });

  it('logger_class may descend from no other class: all it needs are the methods that are called', async () => {
    const config = `
import sys

class Own:
    def __init__(self, cfg):
        self.cfg = cfg
    def write(self, level, msg, *args):
        sys.stderr.write("own %s %s\\n" % (level, msg % args))
        sys.stderr.flush()
    def critical(self, msg, *args, **kwargs): self.write("critical", msg, *args)
    def error(self, msg, *args, **kwargs): self.write("error", msg, *args)
    def warning(self, msg, *args, **kwargs): self.write("warning", msg, *args)
    def info(self, msg, *args, **kwargs): self.write("info", msg, *args)
    def debug(self, msg, *args, **kwargs): pass
    def exception(self, msg, *args, **kwargs): self.write("exception", msg, *args)
    def access(self, resp, req, environ, request_time):
        self.write("access", "%s %s", environ["RAW_URI"], resp.status)
    def reopen_files(self): pass
    def close_on_exec(self): pass

logger_class = Own
accesslog = "-"
`;
    for (const { log } of await outputOfEach(config, '/this?a=%s')) {
      for (const line of ['info Listening at: ', 'info Booting worker with pid: ', 'access /this?a=%s 200 OK\n'])
        assert.ok(log.includes(`own ${line}`), log);
      assert.doesNotMatch(log, /Traceback|exception/);
    }
    const withHook = `${config}def pre_fork(server, worker): server.log.info("pre_fork of %s", server.num_workers)\n`;
    await withConfig(withHook, async (file) => {
      await withServer({ ...APP, args: ['-c', file] }, async (server) => {
        writeFileSync(file, `${withHook}workers = 2\n`);
        server.kill('SIGHUP');
        await server.waitForLog(/^own info pre_fork of 2$/m);
        assert.doesNotMatch(server.log, /Traceback|exception/);
      });
    });
  });

  it('logger_class is given request, response and environ with what gunicorn has there', async () => {
    const config = `
import json
import logging
from gunicorn import glogging

def facts(of, *names):
    return {name: getattr(of, name) for name in names}

class Args(logging.Formatter):
    def format(self, record):
        return "ARGS %s %s" % (record.args["{wsgi.url_scheme}e"], record.args["{script_name}e"])

class Own(glogging.Logger):
    def setup(self, cfg):
        super().setup(cfg)
        for handler in self.access_log.handlers:
            handler.setFormatter(Args())
    def access(self, resp, req, environ, request_time):
        assert req.remote_addr == req.peer_addr == ("127.0.0.1", int(environ["REMOTE_PORT"]))
        assert resp.req is req and int(environ["SERVER_PORT"]) > 0
        assert resp.response_length == (5 if ("Content-Length", "5") in resp.headers else None)  # nunicorn adds it
        resp.headers = [header for header in resp.headers if header[0] != "Content-Length"]
        print("SEEN", json.dumps([
            facts(resp, "status", "status_code", "sent", "headers", "headers_sent"),
            facts(req, "method", "uri", "path", "query", "fragment", "version", "scheme", "headers", "trailers"),
            {name: value for name, value in environ.items() if name not in ("REMOTE_PORT", "SERVER_PORT", "SERVER_SOFTWARE", "gunicorn.socket", "wsgi.input", "wsgi.errors",
                    "wsgi.file_wrapper", "wsgi.early_hints", "app.user")},
            environ["SERVER_SOFTWARE"].partition("/")[2] != "", environ["app.user"],
        ], sort_keys=True), flush=True)
        super().access(resp, req, environ, request_time)

raw_env = ["SCRIPT_NAME=/pre"]
logger_class = Own
accesslog = "-"
access_log_format = '%({APP.user}e)s'
`;
    const seen: string[][] = [];
    await withConfig(config, async (file) => {
      for (const kind of KINDS as Kind[]) {
        const options = { app: 'hooks.app:naming_a_user', kind, args: ['-c', file], readyPath: '/pre/ready' };
        await withServer(options, async (server) => {
          const body = 'Content-Type: text/x\r\nX-Twice: 1\r\nX-Twice: 2\r\nContent-Length: 0\r\n';
          await server.get('/pre/a%20b//?c=d', body);
          server.kill('SIGTERM');
          await server.exit();
          seen.push(server.stdout.split('\n').filter((line) => line.includes('ARGS') || line.includes('a b')));
          assert.equal(seen.at(-1)?.at(-1), 'ARGS http /pre', server.output);
          assert.doesNotMatch(server.log, /Traceback/);
        });
      }
    });
    for (const lines of seen) assert.deepEqual(lines, seen[0]);
  });

  it('wsgi.errors comes out where the app has replaced the handlers of gunicorn.error', async () => {
    const files = {
      'replacing.py': `
import logging
class Elsewhere(logging.Handler):
    def emit(self, record):
        pass
logging.getLogger("gunicorn.error").handlers = [Elsewhere()]
def application(environ, start_response):
    environ["wsgi.errors"].write("told %s\\n" % environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "0")])
    return []
`,
    };
    for (const kind of KINDS as Kind[]) {
      await withServer({ app: 'replacing:application', kind, files }, async (server) => {
        await server.get('/this');
        await server.waitForLog(/^told \/this$/m);
      });
    }
  });

  it('a logger that fails is an error in the log, and the next line is written', none, async () => {
    const config = `
from gunicorn import glogging
class Own(glogging.Logger):
    def access(self, resp, req, environ, request_time):
        if environ["PATH_INFO"] == "/bad":
            raise KeyError("of my own")
        super().access(resp, req, environ, request_time)
logger_class = Own
accesslog = "-"
`;
    await withConfig(config, async (file) => {
      await withServer({ ...APP, args: ['-c', file] }, async (server) => {
        await server.get('/bad');
        await server.get('/good');
        await server.waitForLog(/\[ERROR\] Error in the logger\nTraceback [^[]*KeyError: 'of my own'\n/);
        await until(() => server.stdout.includes('"GET /good '), 'the next line');
      });
    });
  });

  it('logconfig_dict with objects in it sends each log where it says', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'loggers-'));
    try {
      const file = join(folder, 'access.log');
      const config = `
import logging
class Quiet(logging.Filter):
    def filter(self, record):
        return "/quiet" not in record.getMessage()
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"quiet": {"()": Quiet}},
    "formatters": {"plain": {"format": "PLAIN %(levelname)s %(message)s"}},
    "handlers": {
        "file": {"class": "logging.FileHandler", "filename": ${JSON.stringify(file)}, "formatter": "plain", "filters": ["quiet"]},
        "err": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"},
    },
    "root": {"level": "INFO", "handlers": []},
    "loggers": {
        "gunicorn.access": {"level": "INFO", "handlers": ["file"], "propagate": False},
        "gunicorn.error": {"level": "INFO", "handlers": ["err"], "propagate": False},
    },
}
access_log_format = "%(m)s %(U)s %(s)s"
`;
      for (const output of (await outputOfEach(config, '/loud')).map(({ log }) => log)) {
        assert.match(output, /^PLAIN INFO Listening at: /m);
        assert.match(output, /^PLAIN INFO Booting worker with pid: \d+$/m);
      }
      await outputOfEach(config, '/quiet');
      const lines = readFileSync(file, 'utf8').split('\n');
      assert.equal(lines.filter((line) => line === 'PLAIN INFO GET /loud 200').length, KINDS.length);
      assert.ok(!lines.some((line) => line.includes('/quiet')));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('a configuration of logging that cannot be used ends the start with exit code 1 and its reason', async () => {
    for (const config of [
      'logconfig_dict = {"version": 1, "handlers": {"x": {"class": "no.such.Handler"}}}',
      'logger_class = "no.such.Logger"',
      'syslog = True\nsyslog_facility = "nobody"',
      'syslog = True\nsyslog_addr = "smoke://signals"',
    ]) {
      await withConfig(config, async (file) => {
        for (const kind of KINDS as Kind[]) {
          const server = await Server.spawn({ ...APP, kind, args: ['-c', file] });
          assert.deepEqual(await server.exit(), { code: 1, signal: null }, server.output);
          if (kind === 'nunicorn') await server.nothingLeft();
          server.destroy();
        }
      });
    }
  });

  it('a JSON access log is the same as without a logger of Python', none, async () => {
    const seen: unknown[] = [];
    for (const more of [[], ['--log-syslog', '--log-syslog-to', 'udp://127.0.0.1:9']]) {
      const args = ['--access-logfile', '-', '--access-logformat', 'json', ...more];
      await withServer({ ...APP, args }, async (server) => {
        await server.get(
          '/a%20b?c="%25"',
          'Referer: http://there/\r\nUser-Agent: \u00e9"\r\nAuthorization: Basic Ym9iOnB3\r\n',
        );
        await server.get('/raise');
        server.kill('SIGTERM');
        await server.exit();
        const requests = server.stdout.split('\n').filter((line) => /a b|raise/.test(line));
        assert.equal(requests.length, 2, server.output);
        seen.push(
          requests.map((line) =>
            Object.entries(JSON.parse(line) as object).map(([name, value]) => [
              name,
              ['time', 'duration_ms', 'pid'].includes(name) ? typeof value : value,
            ]),
          ),
        );
      });
    }
    assert.deepEqual(seen[1], seen[0]);
  });

  it('a log process that dies is started again', none, async () => {
    const args = ['--log-syslog', '--log-syslog-to', 'udp://127.0.0.1:9', '--access-logfile', '-'];
    await withServer({ ...APP, args }, async (server) => {
      const logProcess = (): number => server.processes().find(({ title }) => title.includes('log ['))?.pid ?? 0;
      const before = logProcess();
      process.kill(before, 'SIGKILL');
      await until(() => logProcess() !== 0 && logProcess() !== before && !isAlive(before), 'another log process');
      await until(async () => {
        await server.get('/after');
        return server.stdout.includes('/after');
      }, 'lines in the log');
    });
  });
});

describe('syslog', () => {
  const LINES = [
    /^<14>gunicorn\.mine\.error: \[\d+\] Listening at: /,
    /^<14>gunicorn\.mine\.error: \[\d+\] Booting worker with pid: \d+/,
    /^<14>gunicorn\.mine\.access: \[\d+\] 127\.0\.0\.1 - - .*"GET \/x HTTP\/1\.1" 200 5/,
  ];

  async function check(kind: Kind, address: string, received: string[], args: string[] = []): Promise<void> {
    await withServer(
      { ...APP, kind, args: ['--log-syslog', '--log-syslog-to', address, '--log-syslog-prefix', 'mine', ...args] },
      async (server) => {
        await server.get('/x');
        const expected = args.length === 0 ? LINES : LINES.slice(0, 2);
        await until(
          () => expected.every((pattern) => received.some((line) => pattern.test(line))),
          () => `${expected} in\n${received.join('\n')}\n${server.output}`,
        );
        assert.match(server.log, /Listening at/); // standard error has them too
        if (args.length > 0) assert.ok(!received.some((line) => line.includes('.access:')));
      },
    );
  }

  it('by UDP, and without the access log if it is not wanted', async () => {
    for (const kind of KINDS as Kind[]) {
      const received: string[] = [];
      const socket = createSocket('udp4', (message) => received.push(message.toString().replace(/\0$/, '')));
      await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done));
      await check(kind, `udp://127.0.0.1:${socket.address().port}`, received);
      received.length = 0;
      await check(kind, `udp://127.0.0.1:${socket.address().port}`, received, ['--disable-redirect-access-to-syslog']);
      socket.close();
    }
  });

  it('beside the file of the access log, which reopens', none, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'loggers-'));
    try {
      const file = join(folder, 'access.log');
      const lines = (path: string): string => (existsSync(path) ? readFileSync(path, 'utf8') : '');
      const args = ['--log-syslog', '--log-syslog-to', 'udp://127.0.0.1:9', '--access-logfile', file];
      await withServer({ ...APP, args }, async (server) => {
        await server.get('/first');
        await until(() => lines(file).includes('"GET /first '), 'the first line');
        renameSync(file, `${file}.1`);
        server.kill('SIGUSR1');
        await until(async () => {
          await server.get('/second');
          return lines(file).includes('"GET /second ');
        }, 'a line in the new file');
        assert.ok(!lines(file).includes('/first'));
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('by a Unix datagram socket, as of /dev/log', async () => {
    for (const kind of KINDS as Kind[]) {
      const folder = mkdtempSync(join(tmpdir(), 'loggers-'));
      const path = join(folder, 'log');
      // Node cannot receive datagrams there.
      const program =
        'import socket, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.bind(sys.argv[1])\n' +
        'while True: print(s.recv(65536).decode().rstrip("\\0"), flush=True)';
      const receiver = spawn('python3', ['-c', program, path], { stdio: ['ignore', 'pipe', 'inherit'] });
      const received: string[] = [];
      createInterface({ input: receiver.stdout }).on('line', (line) => received.push(line));
      try {
        await until(() => existsSync(path), 'the socket');
        await check(kind, `unix://${path}#dgram`, received);
      } finally {
        receiver.kill();
        rmSync(folder, { recursive: true });
      }
    }
  });

  it('by TCP', async () => {
    for (const kind of KINDS as Kind[]) {
      const received: string[] = [];
      const listener = createServer((socket) => {
        socket.on('error', () => {});
        socket.on('data', (data) => received.push(...data.toString().split('\0')));
      });
      await new Promise<void>((done) => listener.listen(0, '127.0.0.1', done));
      const address = listener.address();
      assert.ok(address !== null && typeof address === 'object');
      await check(kind, `tcp://127.0.0.1:${address.port}`, received);
      listener.close();
    }
  });
});

it('HUP gives the logs another logger, and USR1 opens the files of the logger anew', none, async () => {
  const logger = (word: string): string => `from gunicorn.glogging import Logger
import logging
class Own(Logger):
    def setup(self, cfg):
        super().setup(cfg)
        self.error_log.handlers[0].setFormatter(logging.Formatter("${word} %(message)s"))
logger_class = Own
`;
  const files = { 'gunicorn.conf.py': logger('first') };
  const options = { ...APP, args: ['-c', '{home}/gunicorn.conf.py'], chdir: FIXTURES, files };
  const server = await Server.spawn({ ...options, args: [...options.args, '--error-logfile', '{home}/error.log'] });
  await finishing(server, async () => {
    const path = join(server.home, 'error.log');
    const text = (of = path): string => (existsSync(of) ? readFileSync(of, 'utf8') : '');
    await until(
      () => /^first Started: all workers are ready$/m.test(text()),
      () => `the first logger\n${text()}\n${server.output}`,
      30_000,
    );
    const before = logProcess(server);
    writeFileSync(join(server.home, 'gunicorn.conf.py'), logger('second'));
    server.kill('SIGHUP');
    await until(
      () => /^second Reloaded: all workers are ready$/m.test(text()),
      () => `the second logger\n${text()}\n${server.output}`,
      30_000,
    );
    await until(() => before !== undefined && !isAlive(before), 'the end of the first log process');
    renameSync(path, `${path}.1`);
    server.kill('SIGUSR1');
    await until(() => existsSync(path), 'the new file');
    server.kill('SIGTTIN');
    await until(
      () => /^second Handling signal: ttin$/m.test(text()) && /^second Booting worker/m.test(text()),
      () => `the master and a worker in the new file\n${text()}\n${server.output}`,
      30_000,
    );
  });
});

it('--capture-output: what the application prints is in the error log', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'loggers-'));
  try {
    for (const kind of KINDS as Kind[]) {
      const path = join(folder, `${kind}.log`);
      const server = await Server.spawn({
        ...APP,
        kind,
        app: 'hooks.app:printing',
        args: ['--capture-output', '--error-logfile', path],
      });
      const log = (): string => {
        try {
          return readFileSync(path, 'utf8');
        } catch {
          return '';
        }
      };
      await until(async () => (await server.get('/').catch(() => null))?.status === 200, 'the first answer', 30_000);
      await until(
        () => /^printed by the app$/m.test(log()),
        () => `the line in\n${log()}`,
      );
      server.kill('SIGTERM');
      assert.deepEqual(await server.exit(), { code: 0, signal: null });
      server.destroy();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

const OWN_LOGGER = `import os
from gunicorn.glogging import Logger

class Own(Logger):
    def __init__(self, cfg):
        if os.path.exists(os.path.join(os.environ["HOME"], "broken")):
            open(os.path.join(os.environ["HOME"], "tried"), "w").close()
            raise OSError("no log server")
        super().__init__(cfg)

logger_class = Own
`;

function logProcess(server: Server): number | undefined {
  return server.processes().find(({ title }) => title.includes('nunicorn: log'))?.pid;
}

it('the master killed -9: the log process goes too, and no folder stays, of a Node app neither', none, async () => {
  await withConfig(OWN_LOGGER, async (file) => {
    for (const app of [APP.app, './node/listener.cjs']) {
      await withServer({ app, args: ['-c', file] }, async (server) => {
        await server.waitForLog(/Started: all workers are ready/);
        assert.ok(logProcess(server));
        server.kill('SIGKILL');
        await server.exit();
        await server.nothingLeft(5_000);
        await until(() => readdirSync(server.temporary).length === 0, 'the folders to go');
      });
    }
  });
});

it('a reload that fails leaves the log process of before, and no other', none, async () => {
  await withConfig(OWN_LOGGER, async (file) => {
    await withServer({ ...APP, args: ['-c', file] }, async (server) => {
      const before = logProcess(server);
      writeFileSync(file, `${OWN_LOGGER}\npidfile = "${join(server.home, 'nowhere', 'pid')}"\n`);
      server.kill('SIGHUP');
      await until(() => /could not be read anew.*nowhere/.test(server.output), 'the reload to fail');
      const all = (): number[] =>
        server.processes().flatMap(({ pid, title }) => (title.includes('nunicorn: log') ? [pid] : []));
      await until(() => all().length === 1, 'one log process');
      assert.deepEqual(all(), [before]);
      await until(() => logFolders(server) === 1, 'one folder');
    });
  });
});

function logFolders(server: Server): number {
  return readdirSync(server.temporary).filter((name) => name.startsWith('nunicorn-log-')).length;
}

it('SIGTERM while a reload starts a log process leaves none behind', none, async () => {
  await withConfig(OWN_LOGGER, async (file) => {
    await withServer({ ...APP, args: ['-c', file] }, async (server) => {
      server.kill('SIGHUP');
      await until(() => logFolders(server) === 2, 'another folder');
      server.kill('SIGTERM');
      assert.deepEqual(await server.exit(), { code: 0, signal: null });
    });
  });
});

it('a log process that dies and cannot start is tried again until it can', none, async () => {
  await withConfig(OWN_LOGGER, async (file) => {
    await withServer({ ...APP, args: ['-c', file] }, async (server) => {
      server.mark('broken');
      process.kill(logProcess(server) ?? 0, 'SIGKILL');
      await server.marked('tried');
      rmSync(join(server.home, 'broken'));
      await until(() => logProcess(server), 'another log process');
      server.kill('SIGUSR1');
      await server.waitForLog(/Handling signal: usr1/);
    });
  });
});

const NO_PROBES = `
import logging
class NoProbes(logging.Filter):
    def filter(self, record):
        return "/healthz" not in record.getMessage()
`;
const BY_HOOK = `${NO_PROBES}
def on_starting(server):
    server.log.access_log.addFilter(NoProbes())
`;
const IN_WORKER = `${NO_PROBES}
def post_worker_init(worker):
    logging.getLogger("gunicorn.access").addFilter(NoProbes())
`;
const BY_SETTING = `${NO_PROBES}
logconfig_dict = {
    "filters": {"no_probes": {"()": NoProbes}},
    "loggers": {"gunicorn.access": {"level": "INFO", "handlers": ["console"], "filters": ["no_probes"]}},
}
`;
for (const [what, config, args, told] of [
  ['a hook of the master', BY_HOOK, ['--access-logfile', '-'], 1],
  ['a hook of the master, with --preload', BY_HOOK, ['--access-logfile', '-', '--preload'], 1],
  ['a hook of a worker', IN_WORKER, ['--access-logfile', '-'], 1],
  ['a hook, where there is no access log', BY_HOOK, [], 0],
  ['a setting, which has its effect', BY_SETTING, ['--access-logfile', '-'], 0],
] as const) {
  it(`what ${what} changes in gunicorn.access is told of ${told === 0 ? 'never' : 'once'}`, none, async () => {
    await withConfig(config, async (file) => {
      await withServer({ ...APP, workers: 2, args: ['-c', file, ...args] }, async (server) => {
        await server.waitForLog(/Started: all workers are ready/);
        const lines = server.log.split('\n').filter((line) => line.includes('gunicorn.access'));
        assert.equal(lines.length, told, server.output);
        for (const line of lines) assert.match(line, /\[WARNING\] The app, or a hook, has changed the logger/);
      });
    });
  });
}
