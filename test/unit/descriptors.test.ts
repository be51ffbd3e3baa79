import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { clientDescriptors, descriptorShortage } from '../../src/front/descriptors.ts';

it('a quarter of the descriptors, but not more than 500, is left to the workers', () => {
  assert.deepEqual(clientDescriptors(0, 1024), { limit: 1024, forClients: 768, forRefusals: 896 });
  assert.deepEqual(clientDescriptors(20, 20_000), { limit: 20_000, forClients: 19_500, forRefusals: 19_750 });
});

it('where the system does not say how many there are, there is no limit', () => {
  const { forClients, forRefusals } = clientDescriptors(100, Number.POSITIVE_INFINITY);
  assert.deepEqual([forClients, forRefusals], [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
});

it('what the workers need, also while they are replaced, is not for clients', () => {
  const many = clientDescriptors(336, 1024);
  assert.deepEqual(many, { limit: 1024, forClients: 200, forRefusals: 328 });
  assert.match(descriptorShortage(336, many) ?? '', /^Of 1024 descriptors .* 200 are left for clients: .* need 336/);
  assert.equal(descriptorShortage(8, clientDescriptors(8, 1024)), null);
  assert.deepEqual(
    clientDescriptors(40, 64),
    { limit: 64, forClients: 1, forRefusals: 2 },
    'some client there must be',
  );
});
