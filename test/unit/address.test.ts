import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NunicornError } from '../../src/errors.ts';
import { type Address, formatAddress, parseAddress } from '../../src/settings/address.ts';

const tcp = (host: string, port: number): Address => ({ kind: 'tcp', host, port });
const unix = (path: string): Address => ({ kind: 'unix', path });

const READ: readonly (readonly [string, Address, string])[] = [
  ['127.0.0.1:8001', tcp('127.0.0.1', 8001), '127.0.0.1:8001'],
  ['localhost', tcp('localhost', 8000), 'localhost:8000'],
  ['LocalHost:80', tcp('localhost', 80), 'localhost:80'],
  [':9000', tcp('0.0.0.0', 9000), '0.0.0.0:9000'],
  ['', tcp('0.0.0.0', 8000), '0.0.0.0:8000'],
  ['127.0.0.1:0', tcp('127.0.0.1', 0), '127.0.0.1:0'],
  ['[::1]:8001', tcp('::1', 8001), '[::1]:8001'],
  ['[::]', tcp('::', 8000), '[::]:8000'],
  ['[FE80::1%eth0]:1', tcp('fe80::1%eth0', 1), '[fe80::1%eth0]:1'],
  ['tcp://127.0.0.1:8002', tcp('127.0.0.1', 8002), '127.0.0.1:8002'],
  ['unix:/run/app.sock', unix('/run/app.sock'), 'unix:/run/app.sock'],
  ['unix:///run/app.sock', unix('/run/app.sock'), 'unix:/run/app.sock'],
  ['unix:app.sock', unix('app.sock'), 'unix:app.sock'],
];

for (const [text, address, shown] of READ) {
  test(`the address '${text}' is read and shown as ${shown}`, () => {
    assert.deepEqual(parseAddress(text), address);
    assert.equal(formatAddress(address), shown);
  });
}

const REFUSED: readonly (readonly [string, RegExp])[] = [
  ['127.0.0.1:http', /'http' is not a valid port number/],
  ['127.0.0.1:', /'' is not a valid port number/],
  ['127.0.0.1:65536', /0 to 65535/],
  ['127.0.0.1:-1', /not a valid port number/],
  ['::1:8000', /brackets/],
  ['[::1', /\[IPV6\]:PORT/],
  ['[::1]8000', /\[IPV6\]:PORT/],
  ['unix:', /names no socket file/],
  [`unix:/${'a'.repeat(107)}`, /too long for a Unix socket/],
  ['fd://x', /names no descriptor/],
  ['http://127.0.0.1:8000', /without a scheme/],
  ['127.0.0.1:8000,127.0.0.1:8001', /its own --bind/],
];

for (const [text, message] of REFUSED) {
  test(`the address '${text}' is refused in one line`, () => {
    assert.throws(
      () => parseAddress(text),
      (error) =>
        error instanceof NunicornError &&
        error.exitCode === 1 &&
        message.test(error.message) &&
        !error.message.includes('\n'),
    );
  });
}
