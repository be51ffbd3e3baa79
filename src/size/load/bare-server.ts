/**
 * A server of known latency to measure the generator with: answers at once, or `/MS` after so many milliseconds. Prints its port.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

const BODY = 'ok\n';

const server = createServer((request, response) => {
  const ms = Number(request.url?.slice(1) ?? 0);
  const answer = (): void => {
    response.writeHead(200, { 'Content-Length': BODY.length });
    response.end(BODY);
  };
  if (ms > 0) setTimeout(answer, ms);
  else answer();
});
server.listen(0, '127.0.0.1', () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`));
process.stdin.resume().on('end', () => process.exit(0));
