import type { ErrorLog } from '../log/error-log.ts';
import type { ClientServerParts } from './client-server.ts';
import type { FrontConfig } from './messages.ts';
import { trustCheck } from './trusted-peers.ts';

/** What only some configurations need is loaded with those only. */
export async function loadParts(given: FrontConfig, log: ErrorLog): Promise<ClientServerParts> {
  const tls = given.tls === null ? null : await import('./tls.ts');
  if (tls === null && given.proxyProtocol === 'off') return { tls, firstBytes: null };
  const { FirstBytes } = await import('./first-bytes.ts');
  const firstBytes = new FirstBytes(
    {
      proxyProtocol: given.proxyProtocol,
      proxyAllowed: trustCheck(given.proxyAllowIps),
      tls: tls !== null,
      limitMs: given.headerTimeoutMs,
    },
    log,
  );
  return { tls, firstBytes };
}
