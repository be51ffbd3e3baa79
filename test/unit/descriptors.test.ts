import { strict as assert } from 'node:assert';
import { it } from 'node:test';
import { clientDescriptors } from '../../src/front/descriptors.ts';

it('a quarter of the descriptors, but not more than 500, is left to the workers', () => {
  assert.deepEqual(clientDescriptors(1024), { limit: 1024, forClients: 768, forRefusals: 896 });
  assert.deepEqual(clientDescriptors(20_000), { limit: 20_000, forClients: 19_500, forRefusals: 19_750 });
});

it('where the system does not say how many there are, there is no limit', () => {
  const { forClients, forRefusals } = clientDescriptors(Number.POSITIVE_INFINITY);
  assert.deepEqual([forClients, forRefusals], [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
});
