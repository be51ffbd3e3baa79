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

  const style = await browser.get('/static/notes/style.css');
  assert.deepEqual([style.status, style.header('content-type')], [200, 'text/css']);
  assert.match(style.text(), /list-style/);
  assert.ok((await browser.get('/static/admin/css/base.css')).body.length > 10_000);
  assert.equal((await browser.get('/nowhere/')).status, 404);
}

/** The admin's own pages, from its login to its logout. */
async function administer(server: Server): Promise<void> {
  const browser = new Browser(server.address);
  const refused = await browser.get('/admin/');
  assert.deepEqual([refused.status, refused.header('location')], [302, '/admin/login/?next=/admin/']);
  assert.match((await browser.submit('/admin/login/', { ...USER, password: 'wrong' })).text(), /correct username/);
  const login = await browser.submit('/admin/login/', { ...USER, next: '/admin/' });
  assert.deepEqual([login.status, login.header('location')], [302, '/admin/']);
  assert.match((await browser.get('/admin/')).text(), /Site administration/);

  const list = '/admin/notes/note/';
  const content = randomBytes(200_000);
  const attachment = { name: 'admin.bin', type: 'application/octet-stream', content };
  const added = await browser.submit(`${list}add/`, { title: 'Tür', text: 'by the admin', attachment, _save: 'Save' });
  assert.deepEqual([added.status, added.header('location')], [302, list], added.text());
  const shown = (await browser.get(list)).text();
  assert.match(shown, /was added successfully/);
  const pk = /\/admin\/notes\/note\/(\d+)\/change\/[^>]*>Tür</.exec(shown)?.[1];
  assert.ok(pk, shown);

  const form = (await browser.get(`${list}${pk}/change/`)).text();
  assert.match(form, /by the admin/);
  const link = /href="(\/media\/attachments\/admin[^"]*)"/.exec(form)?.[1];
  assert.ok(link, form);
  assert.ok((await browser.get(link)).body.equals(content));
  const changed = await browser.submit(`${list}${pk}/change/`, { title: 'Tor', text: '', _save: 'Save' });
  assert.equal(changed.status, 302, changed.text());
  assert.match((await browser.get(list)).text(), /was changed successfully[\s\S]*>Tor</);

  const deleted = await browser.submit(`${list}${pk}/delete/`, { post: 'yes' });
  assert.equal(deleted.status, 302, deleted.text());
  const after = (await browser.get(list)).text();
  assert.match(after, /was deleted successfully/);
  assert.doesNotMatch(after, new RegExp(`/note/${pk}/change/`));

  const csrfmiddlewaretoken = browser.cookies.get('csrftoken') ?? '';
  assert.equal((await browser.post('/admin/logout/', { csrfmiddlewaretoken })).status, 200);
  assert.equal((await browser.get('/admin/')).status, 302);
}

for (const kind of ['nunicorn', 'gunicorn'] satisfies Kind[]) {
  describe(kind, { skip: !KINDS.includes(kind) }, () => {
    it('login, sessions, CSRF, create, edit, upload, delete, the admin, static files', async () => {
      await withDjangoData(async (env) => {
        const options = { kind, app: 'project.wsgi:application', chdir: DJANGO_PROJECT, env, readyPath: '/health/' };
        await withServer({ ...options, workers: 2, threads: 2 }, async (server) => {
          await drive(server);
          await administer(server);
        });
      });
    });
  });
}

for (const args of [[], ['--preload']]) {
  const name = `nunicorn, one thread ${args.join()}`;
  it(`${name}: the same`, { skip: !KINDS.includes('nunicorn') }, async () => {
    await withDjangoData(async (env) => {
      const options = { app: 'project.wsgi:application', chdir: DJANGO_PROJECT, env, readyPath: '/health/', args };
      await withServer({ ...options, workers: 2 }, async (server) => {
        await drive(server);
        await administer(server);
      });
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

it('a request that ends without an answer is finished: it gives its database connections back', {
  skip: !KINDS.includes('nunicorn'),
}, async () => {
  const files = {
    'slow.py': `import os, sys, time
from django.conf import settings
settings.configure(ROOT_URLCONF="slow", ALLOWED_HOSTS=["*"])
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

log = os.environ["HOME"] + "/finished"
def finished(sender, **_):
    with open(log, "a") as file:
        file.write("1")
def late(request):
    response = HttpResponse()
    response._resource_closers.append(lambda: time.sleep(60))
    return response
request_finished.connect(finished, sender=WSGIHandler)
urlpatterns = [
    path("sleep", lambda request: time.sleep(60)),
    path("late", late),
    path("exit", lambda request: sys.exit()),
    path("finished", lambda request: HttpResponse(os.path.getsize(log) if os.path.exists(log) else 0)),
]
application = get_wsgi_application()
`,
  };
  const options = { app: 'slow', chdir: '{home}', files, args: ['--timeout', '1'], readyPath: '/finished' };
  await withServer(options, async (server) => {
    const finished = async (): Promise<number> => Number((await server.get('/finished')).text());
    const before = await finished();
    assert.equal((await server.get('/sleep', '', 20_000)).status, 504);
    assert.equal((await server.get('/exit')).status, 500);
    assert.equal((await server.get('/late')).status, 200);
    assert.equal(await finished(), before + 4);
  });
});
