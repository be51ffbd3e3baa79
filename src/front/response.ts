/** The response of node:http, with a shorter way for answers that are complete. */
import { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Request } from './request.ts';

type Listener = Parameters<ServerResponse['on']>[1];

/** What node:http keeps of a response, as far as it is set here. */
interface Internals {
  _header: string | null;
  _last: boolean;
  socket: Socket;
  _flush(): void;
  _implicitHeader(): void;
  _send(data: string, encoding: BufferEncoding): boolean;
  _writeRaw(data: string, encoding: BufferEncoding): boolean;
}

/** A response that can also leave at once. node:http makes one for each request. */
export class Response extends ServerResponse<Request> {
  private closes = false;
  private leftAtOnce = false;
  /** What node:http does when this response has left: its only listener of most. */
  private nodeFinish: (() => void) | null = null;

  override on(event: string, listener: Listener): this {
    if (event !== 'finish' || this.nodeFinish !== null) return super.on(event, listener);
    this.nodeFinish = listener;
    return this;
  }

  override emit(event: string, ...args: unknown[]): boolean {
    if (event === 'finish') this.nodeFinish?.call(this);
    return super.emit(event, ...args);
  }

  /** As node:http's own, but for a listener of each response on `close`: the front hears of it from the connection. */
  override assignSocket(socket: Socket): void {
    const internals = this as unknown as Internals;
    (socket as Socket & { _httpMessage: Response })._httpMessage = this;
    internals.socket = socket;
    internals._flush();
  }

  /** As node:http's own, which looks for that listener. */
  override detachSocket(socket: Socket): void {
    (socket as Socket & { _httpMessage: Response | null })._httpMessage = null;
    (this as unknown as { socket: Socket | null }).socket = null;
  }

  /** As node:http's own, which would send a head that leaves alone as UTF-8: its characters are bytes. */
  override flushHeaders(): void {
    const internals = this as unknown as Internals;
    if (internals._header === null) internals._implicitHeader();
    internals._send('', 'latin1');
  }

  /** Sends an informational answer (1xx), in latin-1, ahead of this one: behind the answers before it. */
  sendInterim(text: string): void {
    (this as unknown as Internals)._writeRaw(text, 'latin1');
  }

  /** The connection ends with this response; known when its head has been sent. */
  get isLast(): boolean {
    return this.closes || (this as unknown as Internals)._last;
  }

  /** Whether `finish` has been emitted. From Node 26 on `writableFinished` does not know of what left at once. */
  get isFinished(): boolean {
    return this.leftAtOnce || this.writableFinished;
  }

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
    // Of what the kernel has taken nothing is lost by closing; shutting down before it, as node:http does, takes longer. TLS
    // has a word of its own to send at the end.
    const closeNow = close && socket.writableLength === 0 && !('encrypted' in socket);
    internals._last = close && !closeNow;
    this.closes = close;
    this.finished = true;
    this.leftAtOnce = true;
    this.emit('finish');
    if (closeNow) socket.destroy();
  }
}
