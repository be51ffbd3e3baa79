/** Opens what --bind names, with gunicorn's patience for an address in use. */
import { lookup } from 'node:dns/promises';
import { fstatSync, lchownSync, readFileSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { NunicornError } from '../errors.ts';
import type { ListenerFacts } from '../front/messages.ts';
import { cannotListen } from '../listen-failure.ts';
import { adopt, BindError, bindTcp, bindUnix, type ListeningHandle, type SocketName } from '../listening-handle.ts';
import type { ErrorLog } from '../log/error-log.ts';
import { type Address, formatAddress, parseAddress } from '../settings/address.ts';
import type { Settings } from '../settings/table.ts';
import { removeStaleSocket } from '../stale-socket.ts';
import { type InheritedSocket, isSystemd } from './inheritance.ts';
import type { Owner } from './owner.ts';

export interface ListeningSocket {
  /** As --bind names it, in its one form. */
  readonly bind: string;
  readonly address: Address;
  readonly handle: ListeningHandle;
  readonly facts: ListenerFacts;
  /** The file of a Unix socket is ours to remove. */
  readonly ownsFile: boolean;
}

const TRIES = 5;
const RETRY_MS = 1000;

/**
 * The sockets that `settings` asks for: those of `held` that are among them, and new ones.
 *
 * @param owner of the file of a Unix socket
 * @throws {NunicornError} if an address cannot be had; then none has been opened
 */
export async function openSockets(
  { bind, umask }: Pick<Settings, 'bind' | 'umask'>,
  held: readonly ListeningSocket[],
  owner: Owner | null,
  log: ErrorLog,
): Promise<readonly ListeningSocket[]> {
  // Sockets of systemd stand for all of --bind, as in gunicorn.
  if (held.some((socket) => isSystemd(socket.bind))) return held;
  const sockets: ListeningSocket[] = [];
  try {
    for (const address of bind.map(parseAddress)) {
      const open = held.find((socket) => socket.bind === formatAddress(address));
      sockets.push(open ?? (await bindAddress(address, umask, owner, log)));
    }
  } catch (error) {
    for (const socket of sockets) if (!held.includes(socket)) closeSocket(socket, true);
    throw error;
  }
  return sockets;
}

/** `unlink`: the file of a Unix socket goes too. */
export function closeSocket({ handle, address, ownsFile }: ListeningSocket, unlink: boolean): void {
  handle.close();
  if (unlink && ownsFile && address.kind === 'unix') rmSync(address.path, { force: true });
}

/** Sockets that this process was started with. Throws NunicornError if one is none. */
export function adoptSockets(inherited: readonly InheritedSocket[]): readonly ListeningSocket[] {
  return inherited.map(({ fd, bind }) => adoptSocket(fd, bind));
}

function adoptSocket(fd: number, bind: string): ListeningSocket {
  let handle: ListeningHandle;
  try {
    if (!fstatSync(fd).isSocket()) throw new BindError('ENOTSOCK');
    handle = adopt(fd);
  } catch {
    throw new NunicornError(`Can't listen at ${bind}: descriptor ${fd} is no listening socket of TCP or Unix`);
  }
  if (handle.getsockname === undefined) {
    const path = pathOfSocket(fd);
    const facts: ListenerFacts = { kind: 'unix', host: '', port: 0, path: Buffer.from(path).toString('latin1') };
    return { bind, address: { kind: 'unix', path }, handle, facts, ownsFile: bind.startsWith('unix:') };
  }
  const name: SocketName = {};
  handle.getsockname(name);
  const { address: host = '', port = 0 } = name;
  const facts: ListenerFacts = { kind: 'tcp', host, port, path: '' };
  return { bind, address: { kind: 'tcp', host, port }, handle, facts, ownsFile: false };
}

/** Linux tells the paths of all Unix sockets by inode: proc_pid_net(5). Elsewhere it is not known. */
function pathOfSocket(fd: number): string {
  const inode = String(fstatSync(fd).ino);
  try {
    for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
      const fields = line.trim().split(/ +/);
      if (fields[6] === inode) return fields.slice(7).join(' ');
    }
  } catch {
    // Another system.
  }
  return '';
}

/** As gunicorn logs them: `http://127.0.0.1:8000,unix:/run/app.sock`. */
export function describeSockets(sockets: readonly ListeningSocket[], settings: Settings): string {
  return sockets.map((socket) => describeSocket(socket, settings)).join(',');
}

export function describeSocket(
  { address, facts }: Pick<ListeningSocket, 'address' | 'facts'>,
  settings: Settings,
): string {
  if (address.kind !== 'tcp') return formatAddress(address);
  return (settings.certfile === null ? 'http://' : 'https://') + formatAddress({ ...address, host: facts.host });
}

async function bindAddress(
  address: Address,
  umask: number,
  owner: Owner | null,
  log: ErrorLog,
): Promise<ListeningSocket> {
  for (let attempt = 1; ; attempt++) {
    try {
      if (address.kind === 'fd') return adoptSocket(address.fd, formatAddress(address));
      return address.kind === 'tcp' ? await tcp(address) : await unix(address, umask, owner);
    } catch (error) {
      if (!(error instanceof BindError)) throw error;
      const where = formatAddress(address);
      if (error.code === 'EADDRINUSE' && attempt < TRIES) {
        log.error(`Connection in use: ${where}`);
        log.error('Retrying in 1 second.');
        await sleep(RETRY_MS);
        continue;
      }
      throw cannotListen(error.code, address);
    }
  }
}

async function tcp(address: Extract<Address, { kind: 'tcp' }>): Promise<ListeningSocket> {
  const bind = formatAddress(address);
  let host = address.host;
  try {
    host = (await lookup(address.host)).address;
  } catch {
    throw new BindError('ENOTFOUND');
  }
  const handle = bindTcp(host, address.port);
  const name: SocketName = {};
  handle.getsockname?.(name);
  const port = name.port ?? address.port;
  const facts: ListenerFacts = { kind: 'tcp', host: name.address ?? host, port, path: '' };
  return { bind, address: { ...address, port }, handle, facts, ownsFile: false };
}

async function unix(
  address: Extract<Address, { kind: 'unix' }>,
  umask: number,
  owner: Owner | null,
): Promise<ListeningSocket> {
  const obstacle = await removeStaleSocket(address.path).catch((error: NodeJS.ErrnoException) => {
    throw new BindError(error.code ?? String(error));
  });
  if (obstacle === 'file')
    throw new NunicornError(`Can't listen at unix:${address.path}: there is a file that is no socket`);
  if (obstacle === 'listener') throw new BindError('EADDRINUSE');
  const before = process.umask(umask);
  try {
    const handle = bindUnix(address.path);
    // In a folder of the owner's a link may be there by now, to any file of root's.
    if (owner !== null) lchownSync(address.path, owner.uid, owner.gid);
    return {
      bind: formatAddress(address),
      ownsFile: true,
      address,
      handle,
      facts: { kind: 'unix', host: '', port: 0, path: Buffer.from(address.path).toString('latin1') },
    };
  } finally {
    process.umask(before);
  }
}
