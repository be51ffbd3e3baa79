import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { jsonLines } from '../../src/log/json-lines.ts';

test('a line of JSON has no control character, and the value that was given', async () => {
  const line = await jsonLines(null);
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('\x9b31m', '\x1b]0;a\x07', '\x7f', 'a\u2028b\u2029'),
  );
  fc.assert(
    fc.property(text, (path) => {
      const written = line('info', { path });
      assert.doesNotMatch(written, /[\p{Cc}\u2028\u2029]/u);
      assert.equal((JSON.parse(written) as { path: string }).path, path);
    }),
  );
});
