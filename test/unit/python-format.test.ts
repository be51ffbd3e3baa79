// Python's % formatting of the values of the access log.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { numberFormatter, textFormatter } from '../../src/log/python-format.ts';

/** What Python 3.11 gives for `format % value`. */
const OF_PYTHON: readonly (readonly [format: string, value: number | string, shown: string])[] = [
  ['%05d', 9, '00009'],
  ['%+d', 9, '+9'],
  ['% d', 9, ' 9'],
  ['%+ d', 9, '+9'],
  ['%-5d', 9, '9    '],
  ['%-05d', 9, '9    '],
  ['%.3d', 9, '009'],
  ['%+08.3d', 9, '+0000009'],
  ['%i', 9, '9'],
  ['%u', 9, '9'],
  ['%ld', 9, '9'],
  ['%s', 9, '9'],
  ['%05s', 9, '    9'],
  ['%.2s', 200, '20'],
  ['%r', 9, '9'],
  ['%x', 48879, 'beef'],
  ['%X', 48879, 'BEEF'],
  ['%#x', 9, '0x9'],
  ['%#X', 200, '0XC8'],
  ['%#06x', 9, '0x0009'],
  ['%#.4x', 9, '0x0009'],
  ['%# x', 255, ' 0xff'],
  ['%o', 8, '10'],
  ['%#o', 8, '0o10'],
  ['%c', 65, 'A'],
  ['%05c', 65, '    A'],
  ['%f', 9, '9.000000'],
  ['%F', 0, '0.000000'],
  ['%.f', 9, '9'],
  ['%#.0f', 9, '9.'],
  ['%+08.1f', 9, '+00009.0'],
  ['%5.1f', 9, '  9.0'],
  ['%e', 9, '9.000000e+00'],
  ['%.2E', 9, '9.00E+00'],
  ['%.0e', 25, '2e+01'],
  ['%.0e', 35, '4e+01'],
  ['%#.0e', 9, '9.e+00'],
  ['%08.3e', 12345, '1.234e+04'],
  ['%g', 9, '9'],
  ['%G', 10000000, '1E+07'],
  ['%g', 999999, '999999'],
  ['%g', 1000000, '1e+06'],
  ['%g', 9999995, '1e+07'],
  ['%.2g', 250, '2.5e+02'],
  ['%.0g', 1234567, '1e+06'],
  ['%#g', 200, '200.000'],
  ['%12.4g', 12345678, '   1.235e+07'],
  ['%g', 0, '0'],
  ['%s', 'abc', 'abc'],
  ['%5s', 'ab', '   ab'],
  ['%-5s', 'ab', 'ab   '],
  ['%05s', 'ab', '   ab'],
  ['%+s', 'ab', 'ab'],
  ['%.2s', 'abc', 'ab'],
  ['%r', "it's", '"it\'s"'],
  ['%r', 'it\'s "x"', "'it\\'s \"x\"'"],
  ['%r', 'a\\"b', "'a\\\\\"b'"],
  ['%r', '\u{e9}\u{a0}\u{ad}\t', "'\u{e9}\\xa0\\xad\\t'"],
  ['%a', '\u{e9}\u{20ac}\u{1f600}', "'\\xe9\\u20ac\\U0001f600'"],
  ['%.3r', 'abcdef', "'ab"],
  ['%-6r', 'a', "'a'   "],
];

function show(format: string, value: number | string): string | undefined {
  const [, flags = '', width = '', precision, conversion = ''] =
    /^%([-+ #0]*)(\d*)(?:\.(\d*))?l?(\w)$/.exec(format) ?? [];
  const directive = {
    flags,
    width: Number(width),
    precision: precision === undefined ? undefined : Number(precision),
    conversion,
  };
  return typeof value === 'number' ? numberFormatter(directive)?.(value) : textFormatter(directive)?.(value);
}

for (const [format, value, shown] of OF_PYTHON) {
  test(`${format} shows ${JSON.stringify(value)} as Python does`, () => assert.equal(show(format, value), shown));
}

test('what Python cannot show is told', () => {
  for (const conversion of ['d', 'x', 'f', 'c']) assert.equal(show(`%${conversion}`, 'abc'), undefined);
  for (const conversion of ['b', 'D', 'n', 'y']) assert.equal(show(`%${conversion}`, 9), undefined);
});
