/** Tells the process that has started this one. That it has ended is said by 'disconnect'. */
export function tellParent(message: unknown): void {
  // One that has just died cannot be written to: what has no callback throws that.
  if (process.connected) process.send?.(message, () => {});
}
