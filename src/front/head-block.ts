/**
 * Head blocks of answers: the reason phrase and the header lines as they stand in an HTTP message (RFC 9112), each with its CRLF.
 * Whoever makes one has checked that no name, value or reason holds a line end.
 */

const END = '\r\n';
const COLON = ': ';

/** `headers`: name, value, name, value ... */
export function headBlock(reason: string, headers: readonly string[]): string {
  let block = reason + END;
  for (let at = 0; at + 1 < headers.length; at += 2) block += headers[at] + COLON + headers[at + 1] + END;
  return block;
}

export function reasonOf(block: string): string {
  return block.slice(0, block.indexOf(END));
}

/** Name, value, name, value ... */
export function headersOf(block: string): string[] {
  const headers: string[] = [];
  for (let start = block.indexOf(END) + END.length; start < block.length; ) {
    const colon = block.indexOf(COLON, start);
    const end = block.indexOf(END, colon);
    headers.push(block.slice(start, colon), block.slice(colon + COLON.length, end));
    start = end + END.length;
  }
  return headers;
}
