/** Why an address could not be listened at, and what would help: for the last line of a start. */
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { NunicornError } from './errors.ts';
import type { ListenerFacts } from './front/messages.ts';
import { type Address, formatAddress } from './settings/address.ts';

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another process listens there (EADDRINUSE); stop it, or name another address',
  EADDRNOTAVAIL: 'this machine has no such address (EADDRNOTAVAIL); 0.0.0.0 is every address it has',
  EACCES: 'not permitted (EACCES); ports below 1024 need root, or CAP_NET_BIND_SERVICE',
  EEXIST: 'part of the path is a file and no folder (EEXIST)',
  ENOTDIR: 'part of the path is a file and no folder (ENOTDIR)',
  EROFS:
    'the file system is mounted read-only (EROFS); under systemd ReadWritePaths= or RuntimeDirectory= allows a folder',
};

/** @param code the system's, such as EADDRINUSE */
export function cannotListen(code: string, address: Address): NunicornError {
  return new NunicornError(`Can't listen at ${formatAddress(address)}: ${listenFailure(code, address)}`);
}

/** As `cannotListen`, of a socket that is bound: two may be bound to an address until one of them listens. */
export function cannotListenAfterBind(code: string, { kind, host, port, path }: ListenerFacts): NunicornError {
  return cannotListen(code, kind === 'unix' ? { kind, path } : { kind, host, port });
}

/** @param code the system's, such as EADDRINUSE */
export function listenFailure(code: string, address: Address): string {
  if (address.kind === 'tcp' && (code === 'ENOTFOUND' || code === 'EAI_AGAIN'))
    return `the name '${address.host}' is not known`;
  if (address.kind === 'tcp' && code === 'EADDRNOTAVAIL' && /^\d+$/.test(address.host))
    return `'${address.host}' is no address of this machine (EADDRNOTAVAIL); a port alone is written :${address.host}`;
  // For libuv a folder that is not there is EACCES too.
  if (address.kind !== 'unix' || code !== 'EACCES') return REASONS[code] ?? code;
  const folder = dirname(resolve(address.path));
  return existsSync(folder)
    ? `this user may not make or remove files in ${folder} (EACCES); under systemd RuntimeDirectory=NAME makes a folder /run/NAME for the unit's user`
    : `there is no folder ${folder}; under systemd RuntimeDirectory=NAME makes /run/NAME for the unit's user`;
}
