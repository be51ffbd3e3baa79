// A real Django project, driven as a browser does: login, create, edit, delete, uploads, CSRF, admin, static files.
import { strict as assert } from 'node:assert';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { Browser } from '../helpers/browser.ts';
import { DJANGO_PROJECT, USER, withDjangoData } from '../helpers/django.ts';
import { KINDS } from '../helpers/matrix.ts';
import { type Kind, type Server, withServer } from '../helpers/server.ts';
import { Load } from '../helpers/tally.ts';

async function login(server: Server): Promise<Browser> {
  const browser = new Browser(server.address);
  const response = await browser.submit('/login/', USER);
  assert.equal(response.status, 302, response.text());
  assert.ok(browser.cookies.has('sessionid'));
  return browser;
}

async function drive(server: Server): Promise<void> {
  const stranger = new Browser(server.address);
  assert.match((await stranger.get('/')).text(), /AnonymousUser/);
  const refused = await stranger.get('/create/');
  assert.deepEqual([refused.status, refused.header('location')], [302, '/login/?next=/create/']);
  assert.equal((await stranger.post('/login/', USER)).status, 403, 'a form without CSRF token was taken');
  assert.equal((await stranger.submit('/login/', { ...USER, password: 'wrong' })).status, 200);
  assert.equal(stranger.cookies.has('sessionid'), false);

  const browser = await login(server);
  assert.match((await browser.get('/')).text(), /<p>admin<\/p>/);

  const created = await browser.submit('/create/', { title: 'Größe', text: 'a < b & "c"' });
  assert.deepEqual([created.status, created.header('location')], [302, '/']);
  let list = (await browser.get('/')).text();
  const pk = /id="note-(\d+)">Größe: a &lt; b &amp; &quot;c&quot;/.exec(list)?.[1];
  assert.ok(pk, list);

  const edited = await browser.submit(`/${pk}/edit/`, { title: 'Maß', text: 'x'.repeat(200_000) });
  assert.equal(edited.status, 302);
  list = (await browser.get('/')).text();
  assert.match(list, new RegExp(`note-${pk}">Maß: x{200000} `));
  assert.match((await browser.get('/export/')).text(), /^Maß\n/m);

  for (const size of [0, 100, 70_000, 3_000_000]) {
    const content = randomBytes(size);
    const name = `file-${size}.bin`;
    const file = { name, type: 'application/octet-stream', content };
    const uploaded = await browser.submit(`/${pk}/edit/`, { title: 'With file', text: '', attachment: file });
    // Django refuses an empty file with a message in the form.
    assert.equal(uploaded.status, size === 0 ? 200 : 302, uploaded.text().slice(0, 500));
    if (size === 0) continue;
    const link = /href="(\/media\/attachments\/[^"]+)"/.exec((await browser.get('/')).text())?.[1];
    assert.ok(link);
    const download = await browser.get(link);
    assert.equal(download.status, 200);
    assert.equal(download.complete, true);
    assert.ok(download.body.equals(content), `${size} bytes`);
  }

  assert.equal((await browser.submit(`/${pk}/delete/`, {})).status, 302);
  assert.doesNotMatch((await browser.get('/')).text(), new RegExp(`note-${pk}"`));
  assert.equal((await browser.get(`/${pk}/edit/`)).status, 404);

  assert.match((await browser.get('/admin/')).text(), /Site administration/);
  assert.match((await browser.get('/admin/notes/note/add/')).text(), /id_title/);
  const style = await browser.get('/static/notes/style.css');
  assert.deepEqual([style.status, style.header('content-type')], [200, 'text/css']);
  assert.match(style.text(), /list-style/);
  assert.ok((await browser.get('/static/admin/css/base.css')).body.length > 10_000);
  assert.equal((await browser.get('/nowhere/')).status, 404);
}

for (const kind of ['nunicorn', 'gunicorn'] satisfies Kind[]) {
  describe(kind, { skip: !KINDS.includes(kind) }, () => {
    it('login, create, edit, upload, delete, admin, static files', async () => {
      await withDjangoData(async (env) => {
        const options = { kind, app: 'project.wsgi:application', chdir: DJANGO_PROJECT, env, readyPath: '/health/' };
        await withServer({ ...options, workers: 2, threads: 2 }, drive);
      });
    });
  });
}

for (const args of [[], ['--preload']]) {
  const name = `nunicorn, one thread ${args.join()}`;
  it(`${name}: the same`, { skip: !KINDS.includes('nunicorn') }, async () => {
    await withDjangoData(async (env) => {
      const options = { app: 'project.wsgi:application', chdir: DJANGO_PROJECT, env, readyPath: '/health/', args };
      await withServer({ ...options, workers: 2 }, drive);
    });
  });
}

it('many clients at once: every answer is a 200', { skip: !KINDS.includes('nunicorn') }, async () => {
  await withDjangoData(async (env) => {
    const options = { app: 'project.wsgi:application', chdir: DJANGO_PROJECT, env, readyPath: '/health/' };
    await withServer({ ...options, workers: 2, threads: 2 }, async (server) => {
      const loads = ['/', '/health/', '/static/notes/style.css'].map(
        (path) => new Load({ address: server.address, clients: 4, path, keepAlive: true }),
      );
      await Promise.all(loads.map((load) => load.more(100)));
      for (const load of loads) assert.deepEqual([...(await load.stop()).keys()], ['200'], load.describe());
    });
  });
});
