/**
 * From the head of a request to the environ block of its frame (PEP 3333, gunicorn's additions), and what is refused on the
 * way. Runs for each request: names are looked up once, values are joined, nothing else is allocated.
 */

import type { HeaderMap } from '../settings/types.ts';

/** What is the same for all requests of a connection. */
export interface ConnectionFacts {
  /** SERVER_NAME, SERVER_PORT, REMOTE_*, PROXY_* as part of a block. Without SERVER_* for a Unix socket. */
  readonly block: string;
  /** Path of the Unix socket that the connection came to, else null. */
  readonly unixPath: string | null;
  /** The peer's X-Forwarded-Proto and SCRIPT_NAME are believed. */
  readonly trusted: boolean;
  /** What the connection itself says, unless a trusted peer knows better. */
  readonly scheme: 'http' | 'https';
}

export interface RequestHead {
  readonly block: string;
  /** PATH_INFO in the block is still percent-encoded: decoded, it would hold a NUL. */
  readonly pathEncoded: boolean;
  readonly hasBody: boolean;
  /** As declared, or -1. */
  readonly contentLength: number;
  /** Expects something else than 100-continue. */
  readonly expectsUnknown: boolean;
  /** Offers another protocol. Node's parser loses what follows such a request in the same packet. */
  readonly upgrades: boolean;
}

/** The request cannot be served; `status` says why to the client. */
export class RequestError extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Gunicorn's limits for the head of a request, in bytes but for `fields`. */
export interface HeadLimits {
  /** The request line, without its end; 0 is none. */
  readonly line: number;
  readonly fields: number;
  /** One header line, with its end. */
  readonly fieldSize: number;
}

/** What a head is checked by, beside its limits. */
export interface HeadPolicy {
  /** Header (any case) to the value by which a trusted peer says https. */
  readonly secureSchemeHeaders: Readonly<Record<string, string>>;
  /** Names with underscores that a trusted peer may send; `*` is all. */
  readonly forwarderHeaders: readonly string[];
  readonly headerMap: HeaderMap;
  /** Also HTTP/0.9 and HTTP/2.0 in the request line, which Node's parser reads as it reads HTTP/1. */
  readonly anyVersion: boolean;
  /** Prefix of all paths. */
  readonly scriptName: string;
}

type Kind = 'plain' | 'host' | 'type' | 'length' | 'coding' | 'cookie' | 'script' | 'scheme' | 'expect' | 'upgrade';

interface KnownHeader {
  readonly kind: Kind;
  /** `HTTP_NAME\0` */
  readonly prefix: string;
  /** Lower-case name. */
  readonly name: string;
  /** Its name has an underscore. */
  readonly underscore: 'none' | 'forwarder' | 'other';
  /** Shared by all names of one environ key. */
  readonly key: EnvironKey;
}

interface EnvironKey {
  /** The request that had this key last, to notice a second one in the same request. */
  seenBy: number;
}

const KNOWN_LIMIT = 2000;
/** Of all known names together: they are the clients' to choose. */
const KNOWN_CHARACTERS = 256 * 1024;
/** Of a request line: two spaces and `HTTP/1.1`. As in gunicorn its end does not count, that of a header line does. */
const LINE_REST_BYTES = 10;
/** Of a header line: `: ` and CRLF. */
const FIELD_REST_BYTES = 4;

export class EnvironBuilder {
  private readonly known = new Map<string, KnownHeader>();
  private readonly keys = new Map<string, EnvironKey>();
  private knownCharacters = 0;
  private readonly schemeHeaders: ReadonlyMap<string, string>;
  private readonly forwarderHeaders: ReadonlySet<string>;
  private readonly policy: HeadPolicy;
  private readonly limits: HeadLimits;
  private serial = 0;

  constructor(policy: HeadPolicy, limits: HeadLimits) {
    this.limits = limits;
    this.policy = policy;
    const schemes = Object.entries(policy.secureSchemeHeaders);
    this.schemeHeaders = new Map(schemes.map(([name, value]) => [name.toLowerCase(), value]));
    this.forwarderHeaders = new Set(policy.forwarderHeaders.map((name) => name.toLowerCase()));
  }

  /** Throws RequestError for a head that is refused. */
  build(
    method: string,
    target: string,
    httpMajor: number,
    httpMinor: number,
    rawHeaders: readonly string[],
    facts: ConnectionFacts,
  ): RequestHead {
    const { limits } = this;
    if (httpMajor !== 1 && !this.policy.anyVersion) {
      throw new RequestError(httpMajor === 0 ? 400 : 505, `Invalid HTTP Version: ${httpMajor}.${httpMinor}`);
    }
    if (limits.line > 0 && method.length + target.length + LINE_REST_BYTES > limits.line) {
      throw new RequestError(414, `Request Line is too large (more than ${limits.line} bytes)`);
    }
    if (rawHeaders.length > limits.fields * 2) throw new RequestError(431, `more than ${limits.fields} header fields`);
    const serial = ++this.serial;
    let expectsUnknown = false;
    let upgrades = false;
    // Not within a request: what is forgotten then would be taken for the first of its name when it comes again.
    if (this.known.size >= KNOWN_LIMIT || this.knownCharacters > KNOWN_CHARACTERS) {
      this.known.clear();
      this.keys.clear();
      this.knownCharacters = 0;
    }
    let headers = '';
    let host: string | null = null;
    let contentLength = -1;
    let chunked = false;
    let scheme = '';
    let scriptName = this.policy.scriptName;
    for (let at = 0; at < rawHeaders.length; at += 2) {
      const name = rawHeaders[at] as string;
      const value = rawHeaders[at + 1] as string;
      if (name.length + value.length + FIELD_REST_BYTES > limits.fieldSize) {
        throw new RequestError(431, `header '${name.slice(0, 100)}' is larger than ${limits.fieldSize} bytes`);
      }
      const header = this.known.get(name) ?? this.learn(name);
      const kind = header.kind;
      if (header.underscore !== 'none' && !(header.underscore === 'forwarder' && facts.trusted)) {
        if (this.policy.headerMap === 'drop') continue;
        if (this.policy.headerMap === 'refuse') throw new RequestError(400, `Invalid HTTP header name: '${name}'`);
      }
      if (header.key.seenBy === serial) {
        // Of two codings that both say chunked Node's parser takes some for one.
        if (kind === 'host' || kind === 'type' || kind === 'coding')
          throw new RequestError(400, `Invalid HTTP Header: two headers '${name}'`);
        headers = joinDuplicate(headers, header, value);
      } else {
        header.key.seenBy = serial;
        headers += `${header.prefix}${value}\0`;
      }
      if (kind === 'plain') continue;
      if (kind === 'host') host = value;
      else if (kind === 'length') contentLength = Number(value);
      else if (kind === 'coding') {
        if (value.toLowerCase() !== 'chunked') throw new RequestError(501, `Unsupported transfer coding: ${value}`);
        if (httpMinor === 0) throw new RequestError(400, 'Transfer-Encoding is not part of HTTP/1.0');
        chunked = true;
      } else if (kind === 'expect') {
        expectsUnknown = value.toLowerCase() !== '100-continue';
      } else if (kind === 'scheme' && facts.trusted) {
        const said = value === this.schemeHeaders.get(header.name) ? 'https' : 'http';
        if (scheme !== '' && scheme !== said) throw new RequestError(400, 'Contradictory scheme headers');
        scheme = said;
      } else if (kind === 'script') scriptName = value;
      else if (kind === 'upgrade') upgrades = true;
    }
    if (scheme === '') scheme = facts.scheme;
    if (host === null && httpMajor === 1 && httpMinor > 0)
      throw new RequestError(400, "Invalid HTTP Header: 'HOST' is missing");

    if (host !== null && !target.startsWith('/')) {
      const named = authorityOf(target);
      if (named !== '' && named !== host) {
        headers = withHost(headers, named);
        host = named;
      }
    }
    // Node's parser takes it for the beginning of a path.
    if (target.startsWith('*') && (target !== '*' || method !== 'OPTIONS'))
      throw new RequestError(400, `Invalid Request Line: ${method} ${target}`);
    const { path, query } = splitTarget(target);
    let pathInfo = path;
    let script = '';
    if (scriptName !== '') {
      // As it was sent: a proxy that adds the prefix adds it to the encoded path.
      if (!path.startsWith(scriptName)) {
        throw new RequestError(500, `Request path '${path}' does not start with SCRIPT_NAME '${scriptName}'`);
      }
      pathInfo = path.slice(scriptName.length);
      script = `SCRIPT_NAME\0${scriptName}\0`;
    }
    let pathEncoded = false;
    if (pathInfo.includes('%')) {
      const decoded = percentDecode(pathInfo);
      pathEncoded = decoded.includes('\0');
      if (!pathEncoded) pathInfo = decoded;
    }
    const block =
      'REQUEST_METHOD\0' +
      method +
      '\0RAW_URI\0' +
      target +
      '\0PATH_INFO\0' +
      pathInfo +
      '\0QUERY_STRING\0' +
      query +
      '\0SERVER_PROTOCOL\0HTTP/' +
      httpMajor +
      '.' +
      httpMinor +
      '\0' +
      headers +
      script +
      (facts.unixPath === null ? '' : serverOfUnixSocket(facts.unixPath, host, scheme)) +
      facts.block +
      (scheme === 'https' ? '\0wsgi.url_scheme\0https' : '\0wsgi.url_scheme\0http');
    return { block, pathEncoded, hasBody: chunked || contentLength > 0, contentLength, expectsUnknown, upgrades };
  }

  private learn(rawName: string): KnownHeader {
    const name = rawName.toLowerCase();
    let header = this.known.get(name);
    if (header === undefined) {
      const cgi = name.toUpperCase().replaceAll('-', '_');
      const prefix = `${name === 'content-type' || name === 'content-length' ? '' : 'HTTP_'}${cgi}\0`;
      let key = this.keys.get(prefix);
      if (key === undefined) {
        key = { seenBy: 0 };
        this.keys.set(prefix, key);
      }
      header = { kind: this.kindOf(name), prefix, name, underscore: this.underscoreOf(name), key };
    }
    this.known.set(name, header);
    this.known.set(rawName, header);
    this.knownCharacters += rawName.length;
    return header;
  }

  private kindOf(name: string): Kind {
    switch (name) {
      case 'host':
        return 'host';
      case 'content-type':
        return 'type';
      case 'content-length':
        return 'length';
      case 'transfer-encoding':
        return 'coding';
      case 'cookie':
        return 'cookie';
      case 'expect':
        return 'expect';
      case 'script_name':
        return 'script';
      case 'upgrade':
        return 'upgrade';
    }
    return this.schemeHeaders.has(name) ? 'scheme' : 'plain';
  }

  /** `X_A` and `X-A` are one environ key: a client could forge what a proxy adds. */
  private underscoreOf(name: string): KnownHeader['underscore'] {
    if (!name.includes('_')) return 'none';
    return this.forwarderHeaders.has(name) || this.forwarderHeaders.has('*') ? 'forwarder' : 'other';
  }
}

/** Adds a further value to a header that the block has already: with `; ` for cookies (RFC 6265, 5.4), else with a comma. */
function joinDuplicate(block: string, header: KnownHeader, value: string): string {
  const end = block.indexOf('\0', valueAt(block, header.prefix));
  return block.slice(0, end) + (header.kind === 'cookie' ? '; ' : ',') + value + block.slice(end);
}

const HOST_PREFIX = 'HTTP_HOST\0';

/** The absolute form names the host, whatever Host says (RFC 9112, 3.2.2). */
function withHost(block: string, host: string): string {
  const start = valueAt(block, HOST_PREFIX);
  return block.slice(0, start) + host + block.slice(block.indexOf('\0', start));
}

/** Where the value of a key begins that the block has. */
function valueAt(block: string, prefix: string): number {
  // From pair to pair, as a value may be the name of a header.
  let start = 0;
  while (!block.startsWith(prefix, start)) start = block.indexOf('\0', block.indexOf('\0', start) + 1) + 1;
  return start + prefix.length;
}

/** The host, and port, of a target in absolute form; empty: it has none. */
function authorityOf(target: string): string {
  return /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/i.exec(target)?.[1]?.replace(/^.*@/, '') ?? '';
}

/** Path and query of a request target (RFC 9112, 3.2), as gunicorn splits it. */
export function splitTarget(target: string): { path: string; query: string } {
  let rest = target;
  if (!rest.startsWith('/') && rest !== '*') {
    const authority = rest.indexOf('://');
    if (authority >= 0) {
      const slash = rest.slice(authority + 3).search(/[/?#]/);
      rest = slash < 0 ? '' : rest.slice(authority + 3 + slash);
    }
  }
  const hash = rest.indexOf('#');
  if (hash >= 0) rest = rest.slice(0, hash);
  const mark = rest.indexOf('?');
  return mark < 0 ? { path: rest, query: '' } : { path: rest.slice(0, mark), query: rest.slice(mark + 1) };
}

/** Percent-decoded to latin-1, a character a byte; what is no escape stays as it is. */
export function percentDecode(path: string): string {
  return path.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/** A Unix socket has neither name nor port: they are taken from Host, else from the path. */
function serverOfUnixSocket(path: string, host: string | null, scheme: string): string {
  if (host === null) return `SERVER_NAME\0${path}\0SERVER_PORT\0\0`;
  const match = /^(\[[^\]]*\]|[^:]*)(?::(\d+))?$/.exec(host);
  const port = match?.[2] ?? (scheme === 'https' ? '443' : '80');
  return `SERVER_NAME\0${match?.[1] ?? host}\0SERVER_PORT\0${port}\0`;
}
