/** The files of TLS. Read by the master, which may be root where fronts are not; loaded only with --certfile. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { NunicornError } from '../errors.ts';
import type { TlsConfig } from '../front/messages.ts';
import type { Settings } from '../settings/table.ts';

export type TlsSettings = Pick<Settings, 'certfile' | 'keyfile' | 'ca_certs' | 'cert_reqs' | 'ciphers'>;

/**
 * Reads and checks what the settings name. `warn` hears what works and is likely a mistake.
 *
 * @throws {NunicornError} for what does not work
 */
export function readCertificates(settings: TlsSettings, warn: (message: string) => void): TlsConfig {
  const { certfile, keyfile, ca_certs, cert_reqs, ciphers } = settings;
  if (certfile === null) throw new NunicornError('keyfile is set, but certfile is not: TLS needs both');
  const keyPath = keyfile ?? certfile;
  const keyName = keyfile === null ? 'certfile' : 'keyfile';
  const cert = readPem('certfile', certfile);
  const key = keyfile === null ? cert : readPem('keyfile', keyfile);
  const ca = ca_certs === null ? null : readPem('ca_certs', ca_certs);
  const certificate = check(`certfile: ${certfile} holds no certificate in PEM form`, () => new X509Certificate(cert));
  if (!/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(key)) {
    const other = keyfile === null ? '; where the key has a file of its own, keyfile names it' : '';
    throw new NunicornError(`${keyName}: ${keyPath} holds no private key in PEM form${other}`);
  }
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED/m.test(key)) {
    throw new NunicornError(
      `${keyName}: the key in ${keyPath} has a passphrase, and nobody is there to type it: openssl pkey -in ${keyPath} -out NEW writes it without`,
    );
  }
  const privateKey = check(`${keyName}: the private key in ${keyPath} cannot be read`, () => createPrivateKey(key));
  if (!certificate.checkPrivateKey(privateKey)) {
    throw new NunicornError(`${keyName}: the key in ${keyPath} is not that of the certificate in ${certfile}`);
  }
  if (ca !== null) {
    check(`ca_certs: ${ca_certs} holds no certificate in PEM form`, () => new X509Certificate(ca));
  } else if (cert_reqs !== 'none') {
    warn('cert_reqs without ca_certs: the certificates of clients may come from every public authority');
  }
  if (ciphers !== null) {
    check(`ciphers: OpenSSL knows no cipher in '${ciphers}'`, () => createSecureContext({ ciphers }));
  }
  check(`certfile: ${certfile} cannot be used`, () =>
    createSecureContext({ cert, key, ...(ca === null ? {} : { ca }) }),
  );
  const validTo = new Date(certificate.validTo);
  if (validTo.getTime() < Date.now()) warn(`The certificate in ${certfile} has expired on ${certificate.validTo}`);
  return { cert, key, ca, clientCertificates: cert_reqs, ciphers };
}

function readPem(name: string, path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    const why = WHY[code] ?? code;
    throw new NunicornError(`${name}: ${path} cannot be read: ${why}`);
  }
}

const WHY: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EACCES: 'not permitted',
  EISDIR: 'it is a folder',
};

/** Does it; what goes wrong is told by `message` and OpenSSL's reason. */
function check<T>(message: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    const { reason, code } = error as { readonly reason?: string; readonly code?: string };
    throw new NunicornError(`${message} (${reason ?? code ?? String(error)})`);
  }
}
