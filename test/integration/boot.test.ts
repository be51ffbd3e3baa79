// Starts that fail: the right exit code, the reason in the log, nothing left running.
import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { KINDS, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { freePort } from '../helpers/ports.ts';
import { finishing, type Kind, Server, type ServerOptions, withServer } from '../helpers/server.ts';

const skip = !NUNICORN_RUNS;
const BOOT_MS = 30_000;

interface Failure {
  readonly app: string;
  readonly code: number;
  readonly log: RegExp;
  readonly env?: Record<string, string>;
  readonly args?: readonly string[];
}

async function assertFails(options: ServerOptions, code: number, log?: RegExp): Promise<void> {
  const server = await Server.spawn(options);
  try {
    const exit = await server.exit(BOOT_MS);
    assert.deepEqual(exit, { code, signal: null }, server.output);
    if (log) assert.match(server.log + server.stdout, log);
    await server.nothingLeft();
  } finally {
    server.destroy();
  }
}

const FAILURES: Readonly<Record<string, Failure>> = {
  'a module that is not there': { app: 'pathology.nowhere:application', code: 3, log: /ModuleNotFoundError/ },
  'a module whose import misses another': {
    app: 'pathology.broken_import:application',
    code: 3,
    log: /Traceback[\s\S]*broken_import\.py[\s\S]*module_that_nobody_has/,
  },
  'a module that raises': {
    app: 'pathology.raises_at_import:application',
    code: 3,
    log: /Traceback[\s\S]*this application refuses to be imported/,
  },
  'a syntax error': {
    app: 'pathology.syntax_error:application',
    code: 3,
    log: /syntax_error\.py[\s\S]*SyntaxError/,
  },
  'an attribute that is not there': { app: 'pathology.not_callable:nothing', code: 4, log: /Failed to find attribute/ },
  'an application that cannot be called': { app: 'pathology.not_callable:application', code: 4, log: /callable/ },
  'a factory that makes nothing': { app: 'pathology.not_callable:factory()', code: 4, log: /callable|factory/i },
};

for (const kind of ['nunicorn', 'gunicorn'] satisfies Kind[]) {
  describe(`${kind} does not start`, { skip: !KINDS.includes(kind) }, () => {
    for (const [name, { app, code, log }] of Object.entries(FAILURES)) {
      it(`${name}: exit ${code}`, async () => {
        // With two workers that fail at the same time gunicorn trips over the second one and exits with 1.
        await assertFails({ kind, app, workers: kind === 'gunicorn' ? 1 : 2 }, code, log);
      });
    }

    it('an unknown option: exit 2', async () => {
      await assertFails({ kind, app: 'wsgi_matrix:application', args: ['--no-such-option'] }, 2, /no-such-option/);
    });

    it('no application: exit 1', async () => {
      await assertFails({ kind, app: '--workers=1' }, 1);
    });

    it('a port in use: exit 1 and the address in the log', async () => {
      const port = await freePort();
      const other = createServer().listen(port, '127.0.0.1');
      const server = await Server.spawn({ kind, app: 'wsgi_matrix:application', bind: [`127.0.0.1:${port}`] });
      try {
        assert.deepEqual(await server.exit(BOOT_MS), { code: 1, signal: null }, server.output);
        assert.match(server.log, new RegExp(`in use[^\\n]*${port}|${port}[^\\n]*in use`, 'i'));
        other.close();
        await server.nothingLeft();
      } finally {
        other.close();
        server.destroy();
      }
    });

    it('an application that raises, and has registered exit handlers: they run', async () => {
      // An error tracker sends there what it has been told of.
      const files = {
        'watched.py': `import atexit, os
atexit.register(open, os.environ["HOME"] + "/exited", "w")
raise RuntimeError("no database")
`,
      };
      const server = await Server.spawn({ kind, app: 'watched', chdir: '{home}', files });
      try {
        assert.deepEqual(await server.exit(BOOT_MS), { code: 3, signal: null }, server.output);
        assert.ok(server.hasMark('exited'));
      } finally {
        server.destroy();
      }
    });

    it('a factory with arguments starts', async () => {
      const app = 'pathology.not_callable:good_factory(greeting="made")';
      await withServer({ kind, app }, async (server) => {
        assert.equal((await server.get('/')).text(), 'made');
      });
    });

    it('an application that takes two seconds to import starts', async () => {
      await withServer({ kind, app: 'pathology.boot_slow:application' }, async (server) => {
        assert.equal((await server.get('/')).text(), 'slow but here');
      });
    });
  });
}

describe('nunicorn --preload does not start', { skip }, () => {
  for (const [name, { app, log }] of Object.entries(FAILURES)) {
    it(`${name}: an exit code and the traceback`, async () => {
      const server = await Server.spawn({ app, workers: 2, args: ['--preload'] });
      try {
        const { code } = await server.exit(BOOT_MS);
        assert.ok(code !== null && code > 0, server.output);
        assert.match(server.log + server.stdout, log);
        await server.nothingLeft();
      } finally {
        server.destroy();
      }
    });
  }
});

it('a process that ends while the application is imported is a failed boot', { skip }, async () => {
  await assertFails(
    { app: 'pathology.system_exit_at_import:application' },
    3,
    /exited with code 7|code:? 7|failed to boot/i,
  );
});

it('no Python: exit 1 and what was tried', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nt-empty-'));
  try {
    await assertFails(
      { app: 'wsgi_matrix:application', env: { PATH: folder, VIRTUAL_ENV: '' } },
      1,
      /no Python.*found/i,
    );
    await assertFails({ app: 'wsgi_matrix:application', args: ['--python', join(folder, 'python9')] }, 1, /python9/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it('a Python that is no Python, or too old: exit 1', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nt-fake-'));
  try {
    writeFileSync(join(folder, 'old'), '#!/bin/sh\necho /usr/bin/python3.8\necho 3.8.20\n', { mode: 0o755 });
    await assertFails(
      { app: 'wsgi_matrix:application', args: ['--python', join(folder, 'old')] },
      1,
      /^\nError: [^\n]*old is Python 3\.8\.20: Python 3\.9 or newer is needed; [^\n]*\n$/,
    );
    writeFileSync(join(folder, 'fake'), '#!/bin/sh\necho not python\nexit 1\n', { mode: 0o755 });
    await assertFails({ app: 'wsgi_matrix:application', args: ['--python', join(folder, 'fake')] }, 1, /fake/);
    symlinkSync('/nowhere/python3', join(folder, 'dangling'));
    await assertFails({ app: 'wsgi_matrix:application', args: ['--python', join(folder, 'dangling')] }, 1, /dangling/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it('a folder for --chdir that is not there: exit 1', { skip }, async () => {
  const server = await Server.spawn({ app: 'wsgi_matrix:application', chdir: '/no/such/folder' });
  try {
    const { code } = await server.exit();
    assert.ok(code === 1 || code === 2, server.output);
    assert.match(server.log, /\/no\/such\/folder/);
    await server.nothingLeft();
  } finally {
    server.destroy();
  }
});

for (const [name, app] of [
  ['hangs', 'pathology.boot_hangs:application'],
  ['hangs with the GIL held', 'pathology.boot_hangs_gil:application'],
] as const) {
  it(`TERM ends a server whose application ${name} while it is imported`, { skip }, async () => {
    const server = await Server.spawn({ app, workers: 2, args: ['--graceful-timeout', '1'] });
    await finishing(server, async () => {
      await server.waitForLog(/hanging now/, { ms: BOOT_MS });
      server.kill('SIGTERM');
      await server.exit(10_000);
      await server.nothingLeft();
    });
  });
}

it('the log of a start is that of gunicorn', { skip }, async () => {
  await withServer({ app: 'wsgi_matrix:application', workers: 2, threads: 2 }, async (server) => {
    const line = (text: string): RegExp =>
      new RegExp(`^\\[\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d [+-]\\d{4}\\] \\[\\d+\\] \\[INFO\\] ${text}$`, 'm');
    assert.match(server.log, line('Starting nunicorn \\d+\\.\\d+\\.\\d+\\S*'));
    assert.match(server.log, line(`Listening at: http://127\\.0\\.0\\.1:${server.port} \\(${server.pid}\\)`));
    assert.equal([...server.log.matchAll(/Booting worker with pid: \d+$/gm)].length, 2);
    assert.equal(server.workers().length, 2);
    server.kill('SIGTERM');
    await server.exit();
    assert.match(server.log, line('Handling signal: term'));
    assert.match(server.log, line('Shutting down: Master'));
    assert.doesNotMatch(server.log, /\[(ERROR|CRITICAL|WARNING)\]/);
  });
});

it("Python's development mode finds nothing to warn of", { skip }, async () => {
  const env = { PYTHONDEVMODE: '1' };
  const args = ['--preload'];
  await withServer({ app: 'wsgi_matrix:application', workers: 2, threads: 2, args, env }, async (server) => {
    await server.get('/');
    server.kill('SIGTERM');
    await server.exit();
    assert.doesNotMatch(server.output, /Warning: /);
  });
});
