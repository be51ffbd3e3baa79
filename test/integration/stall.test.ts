// A dispatcher that has lost track of its slots: told in the log, and cured within seconds, where it runs.
import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { NUNICORN_RUNS } from '../helpers/matrix.ts';
import { withServer } from '../helpers/server.ts';

const FAULT = pathToFileURL(new URL('../helpers/forget-slots.js', import.meta.url).pathname).href;

for (const [what, app] of [
  ['a front', 'pathology.faults:application'],
  ['a worker of a Node app', './node/listener.cjs'],
] as const) {
  it(`a request that waits beside an idle slot is run: ${what}`, { skip: !NUNICORN_RUNS }, async () => {
    const env = { NODE_OPTIONS: `--import=${FAULT}` };
    await withServer({ app, threads: 2, env, args: ['-k', 'gthread', '--queue-timeout', '60'] }, async (server) => {
      server.mark('forget');
      assert.equal((await server.get('/')).status, 200);
      assert.equal(server.hasMark('forget'), false, 'nothing was forgotten');
      const workers = server.workers();
      const answers = await Promise.all(Array.from({ length: 4 }, () => server.get('/', '', 30_000)));
      assert.deepEqual(
        answers.map(({ status }) => status),
        [200, 200, 200, 200],
      );
      await server.waitForLog(
        /\[CRITICAL\] Requests waited beside free threads\. This is a defect of nunicorn; it was mended\. .*worker 1, slot 0: idle but not listed/,
      );
      assert.deepEqual(server.workers(), workers);
      const from = server.log.length;
      for (let i = 0; i < 20; i++) assert.equal((await server.get('/')).status, 200);
      assert.doesNotMatch(server.log.slice(from), /free threads/);
    });
  });
}
