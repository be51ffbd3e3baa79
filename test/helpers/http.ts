import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { SOON_MS, withDeadline } from './deadline.ts';
import type { Address } from './ports.ts';

export type End = 'fin' | 'reset';

export interface Response {
  readonly version: string;
  readonly status: number;
  readonly reason: string;
  /** The header lines as they came, without CRLF, latin-1. */
  readonly lines: readonly string[];
  readonly body: Buffer;
  /** How the end of the body was told. */
  readonly framing: 'none' | 'length' | 'chunked' | 'close';
  /** False when the connection ended before the body did. */
  readonly complete: boolean;
  /** The 1xx responses that came before. */
  readonly interim: readonly Head[];
  header(name: string): string | undefined;
  headers(name: string): string[];
  text(): string;
}

export interface Head {
  readonly version: string;
  readonly status: number;
  readonly reason: string;
  readonly lines: readonly string[];
  headers(name: string): string[];
}

function parseHead(text: string): Head {
  const [statusLine = '', ...lines] = text.split('\r\n');
  const match = /^(HTTP\/\d\.\d) (\d{3})(?: (.*))?$/s.exec(statusLine);
  if (!match) throw new Error(`not a status line: ${JSON.stringify(statusLine)}`);
  for (const line of lines) {
    if (!/^[^\s:]+:/.test(line)) throw new Error(`not a header line: ${JSON.stringify(line)}`);
  }
  return {
    version: match[1] ?? '',
    status: Number(match[2]),
    reason: match[3] ?? '',
    lines,
    headers: (name) =>
      lines
        .filter((line) => line.slice(0, line.indexOf(':')).toLowerCase() === name.toLowerCase())
        .map((line) => line.slice(line.indexOf(':') + 1).trim()),
  };
}

/** One client connection that sends the bytes it is told to and understands just enough HTTP to read the answers. */
export class Connection {
  readonly socket: Socket;
  #buffer: Buffer = Buffer.alloc(0);
  #end: End | undefined;
  #received = 0;
  #discarding = false;
  #waiting: (() => void)[] = [];

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (piece) => {
      this.#received += piece.length;
      if (this.#discarding) return;
      this.#buffer = this.#buffer.length === 0 ? piece : Buffer.concat([this.#buffer, piece]);
      this.#wake();
    });
    socket.on('end', () => this.#ended('fin'));
    socket.on('error', () => this.#ended('reset'));
    socket.on('close', () => this.#ended('fin'));
  }

  static async open(address: Address, ms = SOON_MS): Promise<Connection> {
    const { tls, prelude, ...place } = address;
    const socket = connect({ ...place, allowHalfOpen: true });
    await withDeadline(once(socket, 'connect'), `connect to ${JSON.stringify(place)}`, ms);
    socket.setNoDelay(true);
    if (prelude !== undefined) socket.write(prelude);
    if (tls === undefined) return new Connection(socket);
    const secure = tlsConnect({ ...place, ...tls, socket });
    try {
      await withDeadline(once(secure, 'secureConnect'), 'the handshake', ms);
    } catch (error) {
      secure.destroy();
      socket.destroy();
      throw error;
    }
    return new Connection(secure);
  }

  #ended(how: End): void {
    this.#end ??= how;
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Sends these very bytes; a string is latin-1. Resolves when the kernel has taken them. */
  async send(bytes: string | Buffer): Promise<void> {
    await new Promise<void>((resolve) => {
      // An error (the server closed first) shows in what is read, not here.
      this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes, () => resolve());
    });
  }

  /** What has arrived and was not read yet, latin-1. */
  get pending(): string {
    return this.#buffer.toString('latin1');
  }

  /** Bytes that have arrived so far. */
  get received(): number {
    return this.#received;
  }

  /** From now on only counts what arrives: for bodies too large to hold. */
  discard(): void {
    this.#discarding = true;
    this.#buffer = Buffer.alloc(0);
  }

  get ended(): End | undefined {
    return this.#end;
  }

  async #more(what: string, ms: number): Promise<void> {
    await withDeadline(
      new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      }),
      () => `${what}; have ${JSON.stringify(this.pending.slice(0, 300))}`,
      ms,
    );
  }

  /** Waits until `found` finds something in the unread bytes; undefined when the connection ended without. */
  async #scan<T>(found: (buffer: Buffer) => T | undefined, what: string, ms: number): Promise<T | undefined> {
    const end = performance.now() + ms;
    for (;;) {
      const result = found(this.#buffer);
      if (result !== undefined) return result;
      if (this.#end) return undefined;
      await this.#more(what, Math.max(1, end - performance.now()));
    }
  }

  #take(length: number): Buffer {
    const taken = this.#buffer.subarray(0, length);
    this.#buffer = this.#buffer.subarray(length);
    return taken;
  }

  /** Waits until `text` (latin-1) has arrived and takes everything up to its end. */
  async readThrough(text: string, ms = SOON_MS): Promise<string> {
    const at = await this.#scan(
      (buffer) => {
        const index = buffer.indexOf(text, 0, 'latin1');
        return index < 0 ? undefined : index;
      },
      `to read ${JSON.stringify(text)}`,
      ms,
    );
    if (at === undefined) {
      throw new Error(`connection ended (${this.#end}) before ${JSON.stringify(text)}; have ${this.pending}`);
    }
    return this.#take(at + text.length).toString('latin1');
  }

  async #readHead(ms: number): Promise<Head> {
    return parseHead((await this.readThrough('\r\n\r\n', ms)).slice(0, -4));
  }

  /** The next response. `method` is that of the request it answers: a HEAD has no body. */
  async response(method = 'GET', ms = SOON_MS): Promise<Response> {
    const interim: Head[] = [];
    let head = await this.#readHead(ms);
    while (head.status >= 100 && head.status < 200 && head.status !== 101) {
      interim.push(head);
      head = await this.#readHead(ms);
    }
    const { body, framing, complete } = await this.#readBody(head, method, ms);
    return {
      ...head,
      body,
      framing,
      complete,
      interim,
      header: (name) => head.headers(name)[0],
      text: () => body.toString('utf8'),
    };
  }

  async #readBody(
    head: Head,
    method: string,
    ms: number,
  ): Promise<{ body: Buffer; framing: Response['framing']; complete: boolean }> {
    const length = head.headers('content-length')[0];
    if (method === 'HEAD' || head.status === 204 || head.status === 304) {
      return { body: Buffer.alloc(0), framing: 'none', complete: true };
    }
    if (head.headers('transfer-encoding').some((value) => value.toLowerCase() === 'chunked')) {
      const pieces: Buffer[] = [];
      for (;;) {
        const piece = await this.#readChunk(ms);
        if (piece === undefined) return { body: Buffer.concat(pieces), framing: 'chunked', complete: false };
        if (piece.length === 0) return { body: Buffer.concat(pieces), framing: 'chunked', complete: true };
        pieces.push(piece);
      }
    }
    if (length !== undefined) {
      const wanted = Number(length);
      const there = await this.#scan((buffer) => (buffer.length >= wanted ? true : undefined), 'the body', ms);
      return { body: this.#take(wanted), framing: 'length', complete: there === true };
    }
    await this.end(ms);
    return { body: this.#take(this.#buffer.length), framing: 'close', complete: this.#end === 'fin' };
  }

  /** One chunk; empty for the last one; undefined when the connection ended first. */
  async #readChunk(ms: number): Promise<Buffer | undefined> {
    const head = await this.#scan(
      (buffer) => {
        const index = buffer.indexOf('\r\n');
        return index < 0 ? undefined : index;
      },
      'a chunk size',
      ms,
    );
    if (head === undefined) return undefined;
    const line = this.#buffer.subarray(0, head).toString('latin1');
    if (!/^[0-9a-fA-F]+$/.test(line)) throw new Error(`not a chunk size: ${JSON.stringify(line)}`);
    const size = Number.parseInt(line, 16);
    const total = head + 2 + size + 2;
    const there = await this.#scan((buffer) => (buffer.length >= total ? true : undefined), 'a chunk', ms);
    if (there === undefined) {
      this.#take(head + 2);
      return undefined;
    }
    const chunk = this.#take(total);
    if (chunk.toString('latin1', total - 2) !== '\r\n') throw new Error('a chunk does not end with CRLF');
    return chunk.subarray(head + 2, head + 2 + size);
  }

  /** The next piece of a chunked body whose head was read with `readThrough`. */
  async chunk(ms = SOON_MS): Promise<string | undefined> {
    return (await this.#readChunk(ms))?.toString('latin1');
  }

  /** Waits until the server ended the connection. */
  async end(ms = SOON_MS): Promise<End> {
    while (!this.#end) await this.#more('the end of the connection', ms);
    return this.#end;
  }

  /** Sends FIN and goes on reading. */
  halfClose(): void {
    this.socket.end();
  }

  close(): void {
    this.socket.destroy();
  }

  /** Leaves with a reset. */
  reset(): void {
    this.socket.resetAndDestroy();
  }
}

/** One request on a connection of its own. Adds nothing to the bytes. */
export async function exchange(
  address: Address,
  bytes: string | Buffer,
  options: { method?: string; ms?: number } = {},
): Promise<Response & { readonly keptOpen: boolean }> {
  const connection = await Connection.open(address, options.ms);
  try {
    // Not awaited: a large request may be answered before all of it is taken.
    void connection.send(bytes);
    const method = options.method ?? /^[A-Z]+/.exec(bytes.toString('latin1').slice(0, 20))?.[0] ?? 'GET';
    const response = await connection.response(method, options.ms);
    return { ...response, keptOpen: connection.ended === undefined };
  } finally {
    connection.close();
  }
}

/** A plain GET that closes afterwards. */
export function get(address: Address, path = '/', headers = '', ms = SOON_MS): Promise<Response> {
  return exchange(address, `GET ${path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n${headers}\r\n`, { ms });
}

export function post(
  address: Address,
  path: string,
  body: string | Buffer,
  headers = '',
  ms = SOON_MS,
): Promise<Response> {
  const head = `POST ${path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${headers}\r\n`;
  return exchange(address, Buffer.concat([Buffer.from(head, 'latin1'), Buffer.from(body)]), { ms });
}
