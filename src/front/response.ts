/** The response of node:http, with a shorter way for answers that are complete. */
import { type IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** What node:http keeps of a response, as far as it is set here. */
interface Internals {
  _header: string;
  _last: boolean;
}

/** A response that can also leave at once. node:http makes one for each request. */
export class Response extends ServerResponse<IncomingMessage> {
  /**
   * Sends head and body, and ends the response as `end` would: node:http hears of it by `finish` and closes the connection,
   * or goes on with the next response. Its own way checks each header once more and goes through a stream.
   */
  sendAtOnce(socket: Socket, head: string, body: string | Buffer, close: boolean): void {
    if (typeof body === 'string') {
      socket.write(head + body, 'latin1');
    } else {
      socket.cork();
      socket.write(head, 'latin1');
      socket.write(body);
      socket.uncork();
    }
    const internals = this as unknown as Internals;
    internals._header = head;
    internals._last = close;
    this.finished = true;
    this.emit('finish');
  }
}
