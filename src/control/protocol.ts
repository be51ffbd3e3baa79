/**
 * Gunicorn's control protocol: a message is its length (4 bytes, big-endian) and as many bytes of JSON in UTF-8.
 * A request is `{id, command, args}`, an answer `{id, status: "ok", data}` or `{id, status: "error", error}`.
 */

export interface ControlRequest {
  readonly id: number;
  readonly command: string;
  readonly args: readonly string[];
}

export type ControlAnswer =
  | { readonly id: number; readonly status: 'ok'; readonly data: unknown }
  | { readonly id: number; readonly status: 'error'; readonly error: string };

const LENGTH_BYTES = 4;
/** As Gunicorn. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

export function encodeMessage(message: ControlRequest | ControlAnswer): Buffer {
  const payload = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(LENGTH_BYTES);
  head.writeUInt32BE(payload.length);
  return Buffer.concat([head, payload]);
}

/** Takes the bytes of a connection in any pieces and gives the messages in them. */
export class MessageDecoder {
  private buffer: Buffer = Buffer.alloc(0);

  /** Throws an Error if the peer does not speak the protocol: nothing that follows can be read. */
  push(piece: Buffer): unknown[] {
    this.buffer = this.buffer.length === 0 ? piece : Buffer.concat([this.buffer, piece]);
    const messages: unknown[] = [];
    while (this.buffer.length >= LENGTH_BYTES) {
      const length = this.buffer.readUInt32BE();
      if (length > MAX_MESSAGE_BYTES)
        throw new Error(`a message of ${length} bytes, at most ${MAX_MESSAGE_BYTES} are taken`);
      if (this.buffer.length < LENGTH_BYTES + length) break;
      messages.push(JSON.parse(this.buffer.toString('utf8', LENGTH_BYTES, LENGTH_BYTES + length)));
      this.buffer = this.buffer.subarray(LENGTH_BYTES + length);
    }
    return messages;
  }
}
