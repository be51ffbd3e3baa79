import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** PEM files, by their paths. */
export interface Certificates {
  readonly ca: string;
  /** For 127.0.0.1, signed by `ca`. */
  readonly cert: string;
  readonly key: string;
  /** Certificate and key in one file. */
  readonly both: string;
  /** For a client, signed by `ca`. */
  readonly clientCert: string;
  readonly clientKey: string;
  /** A client that nobody knows: signed by itself. */
  readonly strangerCert: string;
  readonly strangerKey: string;
  /** `key` with a passphrase. */
  readonly encryptedKey: string;
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '3650'];

/** Makes certificates in `folder`, under names that begin with `prefix`. */
export function makeCertificates(folder: string, prefix = ''): Certificates {
  const path = (name: string): string => join(folder, `${prefix}${name}.pem`);
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  };
  const selfSigned = (name: string): void =>
    openssl(
      'req',
      '-x509',
      ...NEW_KEY,
      '-subj',
      `/CN=${prefix}${name}`,
      '-keyout',
      path(`${name}-key`),
      '-out',
      path(name),
    );
  selfSigned('ca');
  selfSigned('stranger');
  for (const name of ['server', 'client']) {
    const signer = ['-CA', path('ca'), '-CAkey', path('ca-key')];
    const names = ['-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'basicConstraints=CA:FALSE'];
    const files = ['-keyout', path(`${name}-key`), '-out', path(name)];
    openssl('req', '-x509', ...NEW_KEY, ...signer, '-subj', `/CN=${prefix}${name}`, ...names, ...files);
  }
  openssl('pkey', '-in', path('server-key'), '-aes256', '-passout', 'pass:secret', '-out', path('encrypted-key'));
  writeFileSync(path('both'), readFileSync(path('server')) + readFileSync(path('server-key'), 'latin1'));
  return {
    ca: path('ca'),
    cert: path('server'),
    key: path('server-key'),
    both: path('both'),
    clientCert: path('client'),
    clientKey: path('client-key'),
    strangerCert: path('stranger'),
    strangerKey: path('stranger-key'),
    encryptedKey: path('encrypted-key'),
  };
}
