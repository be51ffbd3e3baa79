import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import fc from 'fast-check';
import { BodyPieces } from '../../src/front/body-pieces.ts';

test('pieces of any size come out as they went in', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 20_000 }), { maxLength: 40 }), (sizes) => {
      const pieces = new BodyPieces();
      const given = sizes.map((size, at) => Buffer.alloc(size, at));
      for (const piece of given) pieces.add(piece);
      assert.deepEqual(pieces.take(), Buffer.concat(given));
      assert.equal(pieces.take().length, 0);
    }),
  );
});

test('one piece is not copied', () => {
  const pieces = new BodyPieces();
  const piece = Buffer.from('whole');
  pieces.add(piece);
  assert.equal(pieces.take(), piece);
});
