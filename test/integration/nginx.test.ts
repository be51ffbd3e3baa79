// Behind a real nginx, as most servers stand: TCP and Unix socket, HTTP/1.0 and kept connections upstream.
import { strict as assert } from 'node:assert';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Browser } from '../helpers/browser.ts';
import { fetchLarge } from '../helpers/client.ts';
import { count, counted } from '../helpers/count.ts';
import { until } from '../helpers/deadline.ts';
import { DJANGO_PROJECT, USER, withDjangoData } from '../helpers/django.ts';
import { Connection, exchange, get, post } from '../helpers/http.ts';
import { KINDS, NUNICORN_RUNS } from '../helpers/matrix.ts';
import { withNginx } from '../helpers/nginx.ts';
import { freePort } from '../helpers/ports.ts';
import { type Kind, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

const KEPT = {
  upstreamLines: 'keepalive 8;',
  locationLines: 'proxy_http_version 1.1; proxy_set_header Connection "";',
};
const UNBUFFERED = 'proxy_buffering off;';

async function withBind(where: 'TCP' | 'Unix', test: (bind: string) => Promise<void>): Promise<void> {
  if (where === 'TCP') return test(`127.0.0.1:${await freePort()}`);
  const folder = mkdtempSync(join(tmpdir(), 'nt-up-'));
  try {
    await test(`unix:${join(folder, 'app.sock')}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

for (const kind of ['nunicorn', 'gunicorn'] satisfies Kind[]) {
  for (const where of ['TCP', 'Unix'] as const) {
    for (const version of ['HTTP/1.0', 'HTTP/1.1 kept'] as const) {
      describe(`${kind}, ${where}, ${version} upstream`, { skip: !KINDS.includes(kind) }, () => {
        const lines = version === 'HTTP/1.0' ? {} : KEPT;

        it('responses and bodies of all kinds pass through', async () => {
          await withBind(where, async (bind) => {
            const app = 'wsgi_matrix:application';
            await withServer({ kind, app, bind: [bind], workers: 1, threads: 4 }, async (server) => {
              await withNginx({ upstream: bind, ...lines }, async (nginx) => {
                for (const [path, status, body] of [
                  ['/', 200, 'ok'],
                  ['/list', 200, 'hello'],
                  ['/generator', 200, 'one,two,three'],
                  ['/204', 204, ''],
                  ['/304/body', 304, ''],
                  ['/write', 200, 'one,two,three'],
                ] as const) {
                  const response = await get(nginx.address, path);
                  assert.deepEqual([response.status, response.text(), response.complete], [status, body, true], path);
                }
                assert.equal((await exchange(nginx.address, 'HEAD /list HTTP/1.1\r\nHost: a\r\n\r\n')).status, 200);
                for (const size of [1, 70_000, 3_000_000]) {
                  const echoed = await post(nginx.address, '/echo', Buffer.alloc(size, 'abc\n'));
                  assert.equal(echoed.status, 200);
                  assert.ok(echoed.body.equals(Buffer.alloc(size, 'abc\n')), `${size} bytes`);
                }
                const download = await fetchLarge(nginx.address, '/stream/bytes?20000000');
                assert.deepEqual([download.status, download.length], [200, 20_000_000]);
                const env = JSON.parse((await get(nginx.address, '/environ')).text());
                assert.equal(env.SERVER_PROTOCOL, version.slice(0, 8));
                assert.equal(env.HTTP_HOST, 'test');
                assert.equal(env.HTTP_X_FORWARDED_FOR, '127.0.0.1');
                assert.equal(env.REMOTE_ADDR, where === 'TCP' ? '127.0.0.1' : '');
                nginx.noComplaints();
              });
              assert.equal((await server.get('/')).text(), 'ok');
            });
          });
        });

        it('a client that leaves ends its stream', async () => {
          await withBind(where, async (bind) => {
            const app = 'wsgi_matrix:application';
            await withServer({ kind, app, bind: [bind], workers: 1, threads: 4 }, async (server) => {
              const locationLines = `${'locationLines' in lines ? lines.locationLines : ''} ${UNBUFFERED}`;
              await withNginx({ upstream: bind, ...lines, locationLines }, async (nginx) => {
                const before = await count(server, 'endless');
                const connection = await Connection.open(nginx.address);
                await connection.send('GET /close/endless HTTP/1.1\r\nHost: test\r\n\r\n');
                await connection.readThrough('tick\n');
                connection.reset();
                await counted(server, 'endless', before + 1);
              });
            });
          });
        });

        it('a client that leaves before its answer is a 499, and what the app returns is closed', async () => {
          await withBind(where, async (bind) => {
            const app = 'wsgi_matrix:application';
            await withServer({ kind, app, bind: [bind], workers: 1, threads: 4 }, async (server) => {
              await withNginx({ upstream: bind, ...lines }, async (nginx) => {
                const connection = await Connection.open(nginx.address);
                await connection.send('GET /close/late?gate HTTP/1.1\r\nHost: test\r\n\r\n');
                await counted(server, 'late-begun', 1);
                connection.reset();
                await until(
                  () => nginx.access.includes('499 /close/late?gate\n'),
                  () => `499 in the access log:\n${nginx.access}`,
                );
                await server.get('/open/gate');
                await counted(server, 'late', 1);
              });
            });
          });
        });
      });
    }
  }
}

for (const where of ['TCP', 'Unix'] as const) {
  it(`Django behind nginx with https in front (${where})`, { skip: !NUNICORN_RUNS }, async () => {
    await withDjangoData(async (env) => {
      await withBind(where, async (bind) => {
        const options = { app: 'project.wsgi:application', chdir: DJANGO_PROJECT, env, readyPath: '/health/' };
        await withServer({ ...options, bind: [bind], workers: 2, threads: 2 }, async () => {
          const locationLines = `${KEPT.locationLines} proxy_set_header X-Forwarded-Proto https;`;
          await withNginx({ upstream: bind, ...KEPT, locationLines }, async (nginx) => {
            const answer = JSON.parse((await get(nginx.address, '/secure/?q=1')).text());
            assert.equal(answer.secure, true);
            assert.equal(answer.url, 'https://test/secure/?q=1');
            const browser = new Browser(nginx.address, 'Origin: https://example.org\r\n');
            const login = await browser.submit('/login/', USER);
            assert.equal(login.status, 302, login.text());
            const content = randomBytes(1_500_000);
            const attachment = { name: 'a.bin', type: 'application/octet-stream', content };
            assert.equal((await browser.submit('/create/', { title: 'one', text: '', attachment })).status, 302);
            const link = /href="(\/media\/[^"]+)"/.exec((await browser.get('/')).text())?.[1];
            assert.ok(link);
            assert.ok((await browser.get(link)).body.equals(content));
          });
        });
      });
    });
  });
}

for (const where of ['TCP', 'Unix'] as const) {
  it(`kept upstream connections that the server closed are no 502 (${where})`, { skip: !NUNICORN_RUNS }, async () => {
    await withBind(where, async (bind) => {
      const options = { app: 'wsgi_matrix:application', bind: [bind], workers: 2, threads: 2 };
      await withServer({ ...options, args: ['--keep-alive', '1'] }, async (server) => {
        await withNginx({ upstream: bind, ...KEPT }, async (nginx) => {
          for (let round = 0; round < 2; round++) {
            const load = new Load({ address: nginx.address, clients: 8, keepAlive: true });
            await load.more(200);
            assert.deepEqual([...(await load.stop()).keys()], ['200'], load.describe());
            // When this one is closed for being idle, those of nginx are too.
            const idle = await server.connect();
            await idle.send('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
            await idle.response();
            await idle.end();
            idle.close();
          }
        });
      });
    });
  });
}

it('slow clients of nginx and slow answers do not mix up kept connections', { skip: !NUNICORN_RUNS }, async () => {
  await withBind('Unix', async (bind) => {
    await withServer({ app: 'wsgi_matrix:application', bind: [bind], workers: 2, threads: 2 }, async () => {
      await withNginx({ upstream: bind, ...KEPT }, async (nginx) => {
        const ask = async (i: number): Promise<void> => {
          const body = `${i}:${'x'.repeat((i * 7919) % 100_000)}`;
          assert.equal((await post(nginx.address, '/echo', body)).text(), body);
        };
        for (let round = 0; round < 5; round++) {
          await Promise.all(Array.from({ length: 20 }, (_, i) => ask(round * 20 + i)));
        }
        nginx.noComplaints();
      });
    });
  });
});
