// The header of the PROXY protocol, both versions: what is found, what is refused, and that it is found however it is split.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ProxyHeader, readProxyHeader } from '../../src/front/proxy-protocol.ts';

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');

function v2(versionAndCommand: number, familyAndTransport: number, payload: Buffer | string): Buffer {
  const body = typeof payload === 'string' ? Buffer.from(payload, 'hex') : payload;
  const fixed = Buffer.from([versionAndCommand, familyAndTransport, body.length >> 8, body.length & 0xff]);
  return Buffer.concat([SIGNATURE, fixed, body]);
}

const line = (text: string): Buffer => Buffer.from(`${text}\r\n`, 'latin1');

const V4 = { client: '192.0.2.7', clientPort: 56324, proxy: '198.51.100.1', proxyPort: 443 };
const V6 = { client: '2001:db8::7', clientPort: 1, proxy: '::1', proxyPort: 65535 };
const V4_BYTES = 'c0000207c6336401dc0401bb';
const V6_BYTES = '20010db800000000000000000000000700000000000000000000000000000001 0001ffff'.replace(' ', '');

const PRESENT: readonly (readonly [name: string, bytes: Buffer, header: ProxyHeader])[] = [
  ['TCP4', line('PROXY TCP4 192.0.2.7 198.51.100.1 56324 443'), { protocol: 'TCP4', addresses: V4 }],
  ['TCP6', line('PROXY TCP6 2001:db8::7 ::1 1 65535'), { protocol: 'TCP6', addresses: V6 }],
  ['UNKNOWN', line('PROXY UNKNOWN'), { protocol: 'UNKNOWN', addresses: null }],
  ['UNKNOWN with more', line('PROXY UNKNOWN ffff:f...f:ffff ? 1 2'), { protocol: 'UNKNOWN', addresses: null }],
  ['v2 IPv4', v2(0x21, 0x11, V4_BYTES), { protocol: 'TCP4', addresses: V4 }],
  ['v2 IPv4 and TLVs', v2(0x21, 0x11, `${V4_BYTES}030004aabbccdd`), { protocol: 'TCP4', addresses: V4 }],
  ['v2 IPv6', v2(0x21, 0x21, V6_BYTES), { protocol: 'TCP6', addresses: V6 }],
  ['v2 LOCAL', v2(0x20, 0x00, ''), { protocol: 'LOCAL', addresses: null }],
  ['v2 LOCAL with addresses', v2(0x20, 0x11, V4_BYTES), { protocol: 'LOCAL', addresses: null }],
  ['v2 UNSPEC', v2(0x21, 0x00, 'aabb'), { protocol: 'UNSPEC', addresses: null }],
  [
    'v2 of 64 KiB',
    v2(0x21, 0x11, Buffer.concat([Buffer.from(V4_BYTES, 'hex'), Buffer.alloc(65535 - 12)])),
    { protocol: 'TCP4', addresses: V4 },
  ],
];
for (const [name, bytes, header] of PRESENT) {
  test(`present: ${name}`, () => {
    const read = readProxyHeader(Buffer.concat([bytes, Buffer.from('GET / HTTP/1.1\r\n')]), 'auto');
    assert.deepEqual(read, { state: 'present', header, bytes: bytes.length });
    for (let length = 0; length < Math.min(bytes.length, 300); length++) {
      assert.deepEqual(readProxyHeader(bytes.subarray(0, length), 'auto'), { state: 'incomplete' }, `${length} bytes`);
    }
  });
}

const INVALID: readonly (readonly [name: string, bytes: Buffer])[] = [
  ['a protocol that is not known', line('PROXY UDP4 192.0.2.7 198.51.100.1 1 2')],
  ['lower case', line('PROXY tcp4 192.0.2.7 198.51.100.1 1 2')],
  ['no protocol', line('PROXY ')],
  ['a field too few', line('PROXY TCP4 192.0.2.7 198.51.100.1 1')],
  ['a field too many', line('PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3')],
  ['two spaces', line('PROXY TCP4  192.0.2.7 198.51.100.1 1 2')],
  ['an address of the other family', line('PROXY TCP4 ::1 ::1 1 2')],
  ['IPv4 as TCP6', line('PROXY TCP6 192.0.2.7 198.51.100.1 1 2')],
  ['an address with a zone', line('PROXY TCP6 fe80::1%eth0 ::1 1 2')],
  ['no address', line('PROXY TCP4 a b 1 2')],
  ['a port beyond 65535', line('PROXY TCP4 192.0.2.7 198.51.100.1 65536 2')],
  ['a negative port', line('PROXY TCP4 192.0.2.7 198.51.100.1 -1 2')],
  ['no port', line('PROXY TCP4 192.0.2.7 198.51.100.1  2')],
  ['a NUL', line('PROXY TCP4 192.0.2.7\0 198.51.100.1 1 2')],
  ['a line that ends with LF only', Buffer.from(`PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n${'x'.repeat(107)}`)],
  ['107 bytes without an end', Buffer.from('PROXY '.padEnd(107, 'x'))],
  ['v2: version 1', v2(0x11, 0x11, V4_BYTES)],
  ['v2: command 2', v2(0x22, 0x11, V4_BYTES)],
  ['v2: UDP', v2(0x21, 0x12, V4_BYTES)],
  ['v2: Unix', v2(0x21, 0x31, Buffer.alloc(216))],
  ['v2: IPv4 cut off', v2(0x21, 0x11, V4_BYTES.slice(2))],
  ['v2: IPv6 cut off', v2(0x21, 0x21, V6_BYTES.slice(2))],
];
for (const [name, bytes] of INVALID) {
  test(`invalid: ${name}`, () => {
    assert.equal(readProxyHeader(bytes, 'auto').state, 'invalid');
  });
}

test('a version that is not looked for is not there', () => {
  const first = line('PROXY TCP4 192.0.2.7 198.51.100.1 1 2');
  const second = v2(0x20, 0, '');
  const states = (['off', 'v1', 'v2', 'auto'] as const).map((mode) => [
    readProxyHeader(first, mode).state,
    readProxyHeader(second, mode).state,
  ]);
  assert.deepEqual(states, [
    ['absent', 'absent'],
    ['present', 'absent'],
    ['absent', 'present'],
    ['present', 'present'],
  ]);
});

test('what begins with something else is known from its first byte that differs', () => {
  for (const text of ['GET / HTTP/1.1', 'POST /', 'PUT /', 'PROPFIND /', 'PROXIED', '\r\nGET /', '\x16\x03\x01']) {
    assert.equal(readProxyHeader(Buffer.from(text, 'latin1'), 'auto').state, 'absent', JSON.stringify(text));
  }
  for (const text of ['', 'P', 'PRO', 'PROXY', '\r', '\r\n\r\n\0']) {
    assert.equal(readProxyHeader(Buffer.from(text, 'latin1'), 'auto').state, 'incomplete', JSON.stringify(text));
  }
});

test('no bytes make it throw, and what it takes is there', () => {
  const start = fc.constantFrom(Buffer.from('PROXY '), Buffer.from('PROXY TCP4 '), SIGNATURE, Buffer.alloc(0));
  fc.assert(
    fc.property(start, fc.uint8Array({ maxLength: 120 }), (first, rest) => {
      const bytes = Buffer.concat([first, rest]);
      const read = readProxyHeader(bytes, 'auto');
      if (read.state === 'present') assert.ok(read.bytes <= bytes.length);
    }),
    { numRuns: 2000 },
  );
});
