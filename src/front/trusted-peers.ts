/** Which peers' forwarded headers are believed (--forwarded-allow-ips). */
import { BlockList, isIPv6 } from 'node:net';

const KNOWN_LIMIT = 1000;

export type TrustCheck = (address: string | undefined) => boolean;

/** `entries`: addresses, networks as ADDRESS/BITS, or `*`. A Unix socket's peer has no address and is always trusted. */
export function trustCheck(entries: readonly string[]): TrustCheck {
  if (entries.includes('*')) return () => true;
  const list = new BlockList();
  for (const entry of entries) {
    const [address = '', bits] = entry.split('/');
    const family = isIPv6(address) ? 'ipv6' : 'ipv4';
    if (bits === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(bits), family);
  }
  // A check costs as much as a request's head; behind a proxy it is always the same few addresses.
  const known = new Map<string, boolean>();
  return (address) => {
    if (address === undefined) return true;
    let trusted = known.get(address);
    if (trusted === undefined) {
      trusted = list.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
      if (known.size >= KNOWN_LIMIT) known.clear();
      known.set(address, trusted);
    }
    return trusted;
  };
}
