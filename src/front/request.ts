/** The request of node:http, without what the front does not ask it for. */
import { type IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { Readable } from 'node:stream';

/**
 * A request whose headers are read from `rawHeaders`, and that is no stream unless it has a body. node:http makes one for each
 * request; to make a stream takes longer than all else in it. To read one that has no body throws.
 */
class LateStream {
  readonly socket: Socket;
  rawHeaders: readonly string[] = [];
  complete = false;
  isStream = false;

  constructor(socket: Socket) {
    this.socket = socket;
  }

  /** From now on it can be read. Until then what comes of a body is thrown away. */
  becomeStream(): void {
    if (this.isStream) return;
    const said = { ...this, isStream: true };
    asStream.call(this as unknown as IncomingMessage, this.socket);
    Object.assign(this, said);
  }

  push(piece: unknown, encoding?: BufferEncoding): boolean {
    if (this.isStream) return IncomingMessage.prototype.push.call(this, piece, encoding);
    return piece !== null;
  }

  /** Its client has left. */
  destroy(error?: Error): this {
    if (this.isStream) IncomingMessage.prototype.destroy.call(this, error);
    return this;
  }

  /** node:http looks for Expect alone (RFC 9110, 10.1.1), and would make an object of all headers to find it. */
  get headers(): IncomingHttpHeaders {
    const { rawHeaders } = this;
    for (let at = 0; at < rawHeaders.length; at += 2) {
      const name = rawHeaders[at];
      if (name?.length === EXPECT_LENGTH && name.toLowerCase() === 'expect') return { expect: rawHeaders[at + 1] };
    }
    return NO_HEADERS;
  }

  /** node:http asks when the answer has left, and would wait for the end. */
  get readableEnded(): boolean {
    return !this.isStream || readableEnded.call(this);
  }
}

const asStream = IncomingMessage as unknown as (this: IncomingMessage, socket: Socket) => void;
const readableEnded = Object.getOwnPropertyDescriptor(Readable.prototype, 'readableEnded')?.get as () => boolean;
const NO_HEADERS: IncomingHttpHeaders = Object.freeze({});
const EXPECT_LENGTH = 6;

Object.setPrototypeOf(LateStream.prototype, IncomingMessage.prototype);
// What node:http finds in each, under names of its own too.
const made = new IncomingMessage(new Socket());
for (const key of Reflect.ownKeys(made)) {
  const value: unknown = Reflect.get(made, key);
  if (typeof value !== 'object' || value === null) define(key, value);
}
define('rawTrailers', Object.freeze([]));
// It need not see to it that what is no stream is read.
define('_consuming', true);

function define(key: PropertyKey, value: unknown): void {
  Object.defineProperty(LateStream.prototype, key, { value, writable: true, configurable: true });
}

export type Request = IncomingMessage & LateStream;
export const Request = LateStream as unknown as typeof IncomingMessage & (new (socket: Socket) => Request);
