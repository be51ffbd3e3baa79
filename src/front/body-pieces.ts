/** The pieces of a body that is kept in memory. */

/** A piece below this is copied: as a Buffer of its own it takes a hundred bytes more, and keeps alive what it is a part of. */
const SMALL_BYTES = 2048;
const BLOCK_BYTES = 16 * 1024;

export class BodyPieces {
  private pieces: Buffer[] = [];
  /** Where small pieces are gathered; `used` bytes of it are. */
  private block: Buffer | null = null;
  private used = 0;

  add(piece: Buffer): void {
    if (this.pieces.length === 0 || piece.length >= SMALL_BYTES) {
      this.endBlock();
      this.pieces.push(piece);
      return;
    }
    if (this.block === null || this.used + piece.length > this.block.length) {
      this.endBlock();
      this.block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    }
    this.used += piece.copy(this.block, this.used);
  }

  /** All of them as one; none is left here. */
  take(): Buffer {
    this.endBlock();
    const { pieces } = this;
    this.pieces = [];
    return pieces.length === 1 && pieces[0] !== undefined ? pieces[0] : Buffer.concat(pieces);
  }

  private endBlock(): void {
    if (this.block !== null) this.pieces.push(this.block.subarray(0, this.used));
    this.block = null;
    this.used = 0;
  }
}
