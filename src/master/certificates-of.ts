import type { TlsConfig } from '../front/messages.ts';
import type { ErrorLog } from '../log/error-log.ts';
import type { Settings } from '../settings/table.ts';

/** The certificates that the settings name, read now. Null without TLS. Throws NunicornError if the files do not fit. */
export async function certificatesOf(settings: Settings, log: Pick<ErrorLog, 'warning'>): Promise<TlsConfig | null> {
  if (settings.certfile === null && settings.keyfile === null) return null;
  const { readCertificates } = await import('./certificates.ts');
  return readCertificates(settings, (message) => log.warning(message));
}
