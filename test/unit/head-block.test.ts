import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import fc from 'fast-check';
import { headBlock, headersOf, reasonOf } from '../../src/front/head-block.ts';

const text = (pattern: RegExp) => fc.stringMatching(pattern);
const name = text(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}$/);
const value = text(/^[\t\x20-\x7e\x80-\xff]{0,30}$/);

it('what a head block was made of is read from it again', () => {
  fc.assert(
    fc.property(value, fc.array(fc.tuple(name, value)), (reason, pairs) => {
      const block = headBlock(reason, pairs.flat());
      assert.equal(reasonOf(block), reason);
      assert.deepEqual(headersOf(block), pairs.flat());
    }),
  );
});

it('a head block is what stands in the message', () => {
  const headers = ['Location', 'http://example.org: 80', 'X-Empty', '', 'Set-Cookie', 'a=1', 'Set-Cookie', 'b=2'];
  const lines = 'Location: http://example.org: 80\r\nX-Empty: \r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n';
  assert.equal(headBlock('Found', headers), `Found\r\n${lines}`);
  assert.equal(headBlock('', []), '\r\n');
});

it('where there was no answer nothing is read', () => {
  assert.equal(reasonOf(''), '');
  assert.deepEqual(headersOf(''), []);
});
