import { until } from './deadline.ts';
import type { Server } from './server.ts';

/** A counter of the application `wsgi_matrix`. */
export async function count(server: Server, name: string): Promise<number> {
  const answer = await server.get(`/count/${name}`);
  return Number(answer.text());
}

/** Waits until the counter has reached `wanted`. */
export async function counted(server: Server, name: string, wanted: number, ms?: number): Promise<void> {
  let last = 0;
  await until(
    async () => {
      last = await count(server, name);
      return last >= wanted;
    },
    () => `count of ${name} to reach ${wanted}, is ${last}`,
    ms,
  );
}
