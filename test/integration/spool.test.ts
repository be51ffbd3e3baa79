// The folder of large request bodies: full, gone, taken away. The client hears what is wrong, and nothing else suffers.
import { strict as assert } from 'node:assert';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { until } from '../helpers/deadline.ts';
import { post } from '../helpers/http.ts';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { type Server, withServer } from '../helpers/server.ts';
import { smallDisk } from '../helpers/small-disk.ts';

const skip = !NUNICORN_RUNS;
const MB = 1_000_000;

async function upload(server: Server, size: number): Promise<number> {
  const response = await post(server.address, '/length', Buffer.alloc(size, 'x'));
  if (response.status === 200) assert.equal(response.text(), String(size));
  return response.status;
}

it('a body for which the disk has no room is a 507, and nothing of it stays', { skip }, async (test) => {
  const disk = smallDisk();
  if (disk === undefined) {
    test.skip('needs the right to mount a file system');
    return;
  }
  try {
    const args = ['--spool-dir', disk.path];
    await withServer({ app: 'wsgi_matrix:application', args }, async (server) => {
      assert.equal(await upload(server, MB), 200);
      assert.equal(await upload(server, 5 * MB), 507);
      await server.waitForLog(/\[ERROR\] A request's body could not be kept in .*: ENOSPC/);
      const [folder = ''] = readdirSync(disk.path);
      await until(() => readdirSync(join(disk.path, folder)).length === 0, 'the file to be removed');
      // Small bodies need no file, and there is room again.
      assert.equal(await upload(server, 1000), 200);
      assert.equal(await upload(server, MB), 200);
    });
    assert.deepEqual(readdirSync(disk.path), []);
  } finally {
    disk.release();
  }
});

it('the folder of bodies may be cleaned away while the server runs', { skip }, async () => {
  const parent = mkdtempSync(join(tmpdir(), 'nt-spool-'));
  try {
    await withServer({ app: 'wsgi_matrix:application', args: ['--spool-dir', parent] }, async (server) => {
      const [name = ''] = readdirSync(parent);
      rmSync(join(parent, name), { recursive: true });
      assert.equal(await upload(server, MB), 200);
      assert.equal(statSync(join(parent, name)).mode & 0o777, 0o700);

      rmSync(parent, { recursive: true });
      assert.equal(await upload(server, MB), 503);
      await server.waitForLog(/\[ERROR\] A request's body could not be kept in .*: ENOENT/);
      assert.equal(await upload(server, 1000), 200);
      mkdirSync(parent);
      assert.equal(await upload(server, MB), 200);
    });
    assert.deepEqual(readdirSync(parent), []);
  } finally {
    rmSync(parent, { recursive: true, force: true });
  }
});

for (const [name, options] of [
  ['front', { app: 'wsgi_matrix:application' }],
  ['Node worker', { app: './node/listener.cjs', args: ['-k', 'gthread'] }],
] as const) {
  it(`a ${name} that dies leaves no bodies behind`, { skip }, async () => {
    const parent = mkdtempSync(join(tmpdir(), 'nt-spool-'));
    try {
      const args = [...('args' in options ? options.args : []), '--spool-dir', parent];
      await withServer({ ...options, args }, async (server) => {
        const [folder = ''] = readdirSync(parent);
        const sending = await server.connect();
        await sending.send('POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n');
        // A client that is slower than a second has its body in a file, whatever runs the app.
        let left = 300;
        const trickle = setInterval(() => left-- > 0 && void sending.send('x'.repeat(2000)), 10);
        const files = (): string[] => readdirSync(join(parent, folder));
        await until(() => files().length === 1, 'the file');
        clearInterval(trickle);
        const [pid] = name === 'front' ? server.fronts() : server.workers();
        assert.ok(pid !== undefined);
        process.kill(pid, 'SIGKILL');
        await until(() => files().length === 0, 'the file to be removed');
        sending.close();
      });
    } finally {
      rmSync(parent, { recursive: true, force: true });
    }
  });
}
