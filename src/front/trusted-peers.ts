/** Which peers' forwarded headers are believed (--forwarded-allow-ips). */
import { BlockList, isIPv6 } from 'node:net';

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
  return (address) => address === undefined || list.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
}
