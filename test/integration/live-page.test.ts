// The live page in a real browser.
import { strict as assert } from 'node:assert';
import { accessSync } from 'node:fs';
import { it } from 'node:test';
import { type Browser, launch, type Page } from 'puppeteer-core';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { freePort } from '../helpers/ports.ts';
import { type Server, withServer } from '../helpers/server.ts';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => {
  try {
    accessSync(path);
    return true;
  } catch {
    return false;
  }
});
const skip =
  !NUNICORN_RUNS || (CHROMIUM === undefined && 'there is no Chromium; the test command installs it on Debian');
const SOON = { timeout: 20_000 };

interface Opened {
  readonly server: Server;
  readonly page: Page;
  /** What the page complained of. */
  readonly complaints: string[];
}

async function withPage(
  args: readonly string[],
  url: (port: number) => string,
  test: (opened: Opened) => Promise<void>,
): Promise<void> {
  const port = await freePort();
  const options = {
    app: 'pathology.faults:application',
    workers: 2,
    threads: 3,
    args: ['--admin-bind', `127.0.0.1:${port}`, ...args],
  };
  await withServer(options, async (server) => {
    const browser: Browser = await launch({
      executablePath: CHROMIUM ?? '',
      // Containers have no user namespaces for its sandbox; the only page is ours.
      args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
      env: { ...process.env, HOME: server.home },
    });
    try {
      const page = await browser.newPage();
      const complaints: string[] = [];
      page.on('pageerror', (error) => complaints.push(String(error)));
      page.on('console', (message) => complaints.push(message.text()));
      page.on('requestfailed', (request) => complaints.push(`${request.url()} failed`));
      await page.goto(url(port), { waitUntil: 'domcontentloaded', ...SOON });
      await test({ server, page, complaints });
    } finally {
      await browser.close();
    }
  });
}

function text(page: Page, selector: string): Promise<string> {
  return page.$eval(selector, (element) => element.textContent ?? '');
}

it('shows workers and threads as they work, and follows them', { skip }, async () => {
  await withPage(
    [],
    (port) => `http://127.0.0.1:${port}/`,
    async ({ server, page, complaints }) => {
      await page.waitForSelector('.worker', SOON);
      assert.equal((await page.$$('.worker')).length, 2);
      assert.equal((await page.$$('.worker .threads i')).length, 6);
      assert.equal(await text(page, '#key'), 'idlebusy–reserved~draining!stuck?lost');
      assert.equal(await text(page, '#app'), 'pathology.faults:application');
      assert.match(await text(page, '#facts'), new RegExp(`pid ${server.pid} · running`));
      const held = await server.connect();
      await held.send('GET /hold?a HTTP/1.1\r\nHost: test\r\n\r\n');
      await server.marked('a.started');
      await page.waitForSelector('.worker .threads .busy', SOON);
      server.mark('a.open');
      await held.response();
      held.close();
      await page.waitForFunction(`document.querySelectorAll('.worker .threads .busy').length === 0`, SOON);
      assert.match(await text(page, '#tiles'), /Memory\d+ MB/);
      if (process.platform === 'linux') {
        await page.waitForSelector('#parts .bar span', SOON);
        assert.match(await text(page, '#parts'), /processor[\d.]+ ms/);
      }
      server.kill('SIGTTIN');
      await page.waitForFunction(`document.querySelectorAll('.worker').length === 3`, SOON);
      await page.waitForFunction(`document.querySelector('#tiles')?.textContent?.includes('of 9') === true`, SOON);
      await page.waitForFunction(`document.querySelector('#events')?.textContent?.includes('scale up') === true`, SOON);
      assert.deepEqual(complaints, []);
    },
  );
});

it('is one small file, loads nothing from elsewhere, fits a telephone, and says when the server is gone', {
  skip,
}, async () => {
  await withPage(
    [],
    (port) => `http://127.0.0.1:${port}/`,
    async ({ server, page }) => {
      await page.waitForSelector('.worker', SOON);
      const resources = (await page.evaluate(`({
      bytes: performance.getEntriesByType('navigation').reduce((sum, entry) => sum + entry.transferSize, 0),
      others: performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname),
    })`)) as { readonly bytes: number; readonly others: readonly string[] };
      assert.ok(resources.bytes < 100 * 1024, `${resources.bytes} bytes`);
      assert.deepEqual(
        resources.others.filter((path) => path !== '/events' && path !== '/favicon.ico'),
        [],
      );
      for (const scheme of ['light', 'dark']) {
        await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
        await page.setViewport({ width: 360, height: 700 });
        assert.equal(await page.evaluate('document.documentElement.scrollWidth'), 360, 'it is wider than the screen');
      }
      server.kill('SIGTERM');
      await server.exit();
      await page.waitForSelector('body.stale', SOON);
    },
  );
});

it('with --admin-token a browser asks for it; nothing is shown without', { skip }, async () => {
  await withPage(
    ['--admin-token', 'sesame'],
    (port) => `http://any:sesame@127.0.0.1:${port}/`,
    async ({ page }) => {
      await page.waitForSelector('.worker', SOON);
      const status = await page.evaluate(
        `fetch(location.origin + '/status', { credentials: 'omit' }).then((answer) => answer.status)`,
      );
      assert.equal(status, 401);
    },
  );
});
