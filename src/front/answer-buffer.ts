/** How much of an answer is kept for a client that reads slowly, before its thread has to wait. */
const ANSWER_BUFFER_BYTES = 1024 * 1024;
/** The same, once all clients together are owed more than the second figure. */
const TIGHT_ANSWER_BUFFER_BYTES = 64 * 1024;
const MAX_BUFFERED_BYTES = 64 * 1024 * 1024;

/** Bytes of one answer, while all clients together are owed `owedBytes`. */
export function answerBufferBytes(owedBytes: number): number {
  return owedBytes > MAX_BUFFERED_BYTES ? TIGHT_ANSWER_BUFFER_BYTES : ANSWER_BUFFER_BYTES;
}
