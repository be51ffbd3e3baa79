/** The request of node:http, without what the front does not ask it for. */
import { type IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';

/** A request whose headers are read from `rawHeaders`, and that is no stream unless it has a body. */
export class Request extends IncomingMessage {
  /** Said before the end of the message is parsed: there is nothing to read, and nobody waits for its end. */
  bodiless = false;

  override push(piece: unknown, encoding?: BufferEncoding): boolean {
    return piece === null && this.bodiless ? false : super.push(piece, encoding);
  }

  /** node:http calls it for each request whose body nobody read: what is left is thrown away. */
  _dump(): void {
    if (!this.bodiless) dump.call(this);
  }
}

const dump: (this: IncomingMessage) => void = Reflect.get(IncomingMessage.prototype, '_dump');
const NO_HEADERS: IncomingHttpHeaders = Object.freeze({});
const EXPECT_LENGTH = 6;

const readableEnded = Object.getOwnPropertyDescriptor(Readable.prototype, 'readableEnded')?.get as (
  this: Request,
) => boolean;

/** node:http asks when the answer has left, and would have the end of a request without a body told to it. */
Object.defineProperty(Request.prototype, 'readableEnded', {
  get(this: Request): boolean {
    return this.bodiless || readableEnded.call(this);
  },
});

/** node:http looks for Expect alone (RFC 9110, 10.1.1), and would make an object of all headers to find it. */
Object.defineProperty(Request.prototype, 'headers', {
  get(this: Request): IncomingHttpHeaders {
    const { rawHeaders } = this;
    for (let at = 0; at < rawHeaders.length; at += 2) {
      const name = rawHeaders[at];
      if (name?.length === EXPECT_LENGTH && name.toLowerCase() === 'expect') return { expect: rawHeaders[at + 1] };
    }
    return NO_HEADERS;
  },
});
