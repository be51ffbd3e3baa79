import { createHash } from 'node:crypto';
import { Agent, type IncomingMessage, request } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { withDeadline } from './deadline.ts';
import type { Address } from './ports.ts';

export interface Received {
  readonly status: number;
  readonly length: number;
  readonly sha256: string;
  readonly text: string;
}

/** Bodies up to this size are kept as text. */
const TEXT_LIMIT = 1 << 20;

async function receive(answer: IncomingMessage): Promise<Received> {
  const hash = createHash('sha256');
  let length = 0;
  let text = '';
  for await (const piece of answer as AsyncIterable<Buffer>) {
    hash.update(piece);
    length += piece.length;
    if (length <= TEXT_LIMIT) text += piece.toString('latin1');
  }
  return { status: answer.statusCode ?? 0, length, sha256: hash.digest('hex'), text };
}

/** One exchange over node:http, for bodies too large to hold. */
export async function fetchLarge(
  address: Address,
  path: string,
  body?: AsyncIterable<Buffer> | Iterable<Buffer>,
  headers: Record<string, string> = {},
  ms = 120_000,
): Promise<Received> {
  const agent = new Agent({ keepAlive: false });
  const target = 'path' in address ? { socketPath: address.path } : { host: address.host, port: address.port };
  const ask = request({ ...target, path, agent, headers, method: body ? 'POST' : 'GET' });
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    ask.once('response', resolve);
    ask.once('error', reject);
  });
  const exchange = async (): Promise<Received> => {
    if (body) await Promise.race([pipeline(body, ask), answered]);
    else ask.end();
    return receive(await answered);
  };
  try {
    return await withDeadline(exchange(), `answer of ${path}`, ms);
  } finally {
    agent.destroy();
  }
}
