/** Reads HTTP/1.x responses off one connection: just enough HTTP for a load generator, no more. */

export interface Response {
  readonly status: number;
  readonly bodyBytes: number;
  /** Whether the server will take another request on this connection. */
  readonly keepAlive: boolean;
}

type Body =
  | { readonly kind: 'length'; readonly bytes: number }
  | { readonly kind: 'chunked' }
  | { readonly kind: 'until-close' };

const HEAD_END = Buffer.from('\r\n\r\n');
const NONE = Buffer.alloc(0);

export class ResponseReader {
  #pending: Buffer = NONE;
  #head: { readonly status: number; readonly keepAlive: boolean; readonly body: Body } | undefined;

  /** Takes what the socket gave; the response if it is now whole. Throws on what is not HTTP. */
  push(data: Buffer): Response | undefined {
    this.#pending = this.#pending.length === 0 ? data : Buffer.concat([this.#pending, data]);
    if (this.#head === undefined) {
      const end = this.#pending.indexOf(HEAD_END);
      if (end < 0) return undefined;
      this.#head = parseHead(this.#pending.toString('latin1', 0, end));
      this.#pending = this.#pending.subarray(end + HEAD_END.length);
    }
    const { body } = this.#head;
    switch (body.kind) {
      case 'length':
        return this.#pending.length < body.bytes ? undefined : this.#finish(body.bytes);
      case 'chunked': {
        const bytes = chunkedLength(this.#pending);
        return bytes === undefined ? undefined : this.#finish(bytes);
      }
      case 'until-close':
        return undefined;
    }
  }

  /** The server has closed: the response that ends so, if there is one. */
  end(): Response | undefined {
    return this.#head?.body.kind === 'until-close' ? this.#finish(this.#pending.length) : undefined;
  }

  #finish(bodyBytes: number): Response {
    if (this.#head === undefined) throw new Error('finished before the head');
    const { status, keepAlive } = this.#head;
    this.#head = undefined;
    // One request at a time is in flight, so nothing of a next response can follow.
    this.#pending = NONE;
    return { status, bodyBytes, keepAlive };
  }
}

function parseHead(head: string): { status: number; keepAlive: boolean; body: Body } {
  const line = /^HTTP\/1\.([01]) (\d{3})/.exec(head);
  if (line === null) throw new Error(`not an HTTP response: ${JSON.stringify(head.slice(0, 40))}`);
  const status = Number(line[2]);
  const connection = header(head, 'connection')?.toLowerCase();
  const length = header(head, 'content-length');
  let body: Body;
  if (status === 204 || status === 304) body = { kind: 'length', bytes: 0 };
  else if (header(head, 'transfer-encoding')?.toLowerCase().includes('chunked')) body = { kind: 'chunked' };
  else if (length !== undefined) body = { kind: 'length', bytes: Number(length) };
  else body = { kind: 'until-close' };
  const persistent = line[1] === '1' ? connection !== 'close' : connection === 'keep-alive';
  return { status, keepAlive: persistent && body.kind !== 'until-close', body };
}

function header(head: string, name: string): string | undefined {
  return new RegExp(`\r\n${name}:[ \t]*([^\r\n]*)`, 'i').exec(head)?.[1]?.trim();
}

/** Bytes of content in a chunked body (RFC 9112 7.1), or undefined if its end has not come. Trailers are not read. */
function chunkedLength(body: Buffer): number | undefined {
  let total = 0;
  for (let at = 0; ; ) {
    const lineEnd = body.indexOf('\r\n', at);
    if (lineEnd < 0) return undefined;
    const size = Number.parseInt(body.toString('latin1', at, lineEnd), 16);
    if (Number.isNaN(size)) throw new Error('bad chunk size');
    at = lineEnd + 2 + size + 2;
    if (at > body.length) return undefined;
    if (size === 0) return total;
    total += size;
  }
}
