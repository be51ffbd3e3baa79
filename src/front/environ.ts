/**
 * From the head of a request to the environ block of its frame (PEP 3333, gunicorn's additions), and what is refused on the
 * way. Runs for each request: names are looked up once, values are joined, nothing else is allocated.
 */

/** What is the same for all requests of a connection. */
export interface ConnectionFacts {
  /** SERVER_NAME, SERVER_PORT, REMOTE_ADDR and REMOTE_PORT as part of a block. Without SERVER_* for a Unix socket. */
  readonly block: string;
  /** Path of the Unix socket that the connection came to, else null. */
  readonly unixPath: string | null;
  /** The peer's X-Forwarded-Proto and SCRIPT_NAME are believed. */
  readonly trusted: boolean;
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
  /** The request line, with its end; 0 is none. */
  readonly line: number;
  readonly fields: number;
  /** One header line, with its end. */
  readonly fieldSize: number;
}

type Kind = 'plain' | 'drop' | 'host' | 'type' | 'length' | 'coding' | 'cookie' | 'script' | 'scheme' | 'expect';

interface KnownHeader {
  readonly kind: Kind;
  /** `HTTP_NAME\0` */
  readonly prefix: string;
  /** Lower-case name. */
  readonly name: string;
  /** The request that had this header last, to notice a second one in the same request. */
  seenBy: number;
}

const KNOWN_LIMIT = 2000;
/** Of a request line: two spaces, `HTTP/1.1` and CRLF. */
const LINE_REST_BYTES = 12;
/** Of a header line: `: ` and CRLF. */
const FIELD_REST_BYTES = 4;

export class EnvironBuilder {
  private readonly known = new Map<string, KnownHeader>();
  private readonly schemeHeaders: ReadonlyMap<string, string>;
  private readonly scriptName: string;
  private readonly limits: HeadLimits;
  private serial = 0;

  /** `schemeHeaders`: header (any case) to the value that means https. `scriptName`: prefix of all paths. */
  constructor(schemeHeaders: Readonly<Record<string, string>>, scriptName: string, limits: HeadLimits) {
    this.limits = limits;
    this.schemeHeaders = new Map(Object.entries(schemeHeaders).map(([name, value]) => [name.toLowerCase(), value]));
    this.scriptName = scriptName;
  }

  /** Throws RequestError for a head that is refused. */
  build(
    method: string,
    target: string,
    httpMinor: number,
    rawHeaders: readonly string[],
    facts: ConnectionFacts,
  ): RequestHead {
    const { limits } = this;
    if (limits.line > 0 && method.length + target.length + LINE_REST_BYTES > limits.line) {
      throw new RequestError(414, `Request Line is too large (more than ${limits.line} bytes)`);
    }
    if (rawHeaders.length > limits.fields * 2) throw new RequestError(431, `more than ${limits.fields} header fields`);
    const serial = ++this.serial;
    let expectsUnknown = false;
    // Not within a request: what is forgotten then would be taken for the first of its name when it comes again.
    if (this.known.size >= KNOWN_LIMIT) this.known.clear();
    let headers = '';
    let host: string | null = null;
    let contentLength = -1;
    let chunked = false;
    let scheme = '';
    let scriptName = this.scriptName;
    for (let at = 0; at < rawHeaders.length; at += 2) {
      const name = rawHeaders[at] as string;
      const value = rawHeaders[at + 1] as string;
      if (name.length + value.length + FIELD_REST_BYTES > limits.fieldSize) {
        throw new RequestError(431, `header '${name.slice(0, 100)}' is larger than ${limits.fieldSize} bytes`);
      }
      const header = this.known.get(name) ?? this.learn(name);
      const kind = header.kind;
      if (kind === 'drop') continue;
      if (header.seenBy === serial) {
        if (kind === 'host' || kind === 'type')
          throw new RequestError(400, `Invalid HTTP Header: two headers '${name}'`);
        if (kind !== 'script') headers = joinDuplicate(headers, header, value);
      } else {
        header.seenBy = serial;
        if (kind !== 'script') headers += header.prefix + value + '\0';
      }
      if (kind === 'plain') continue;
      if (kind === 'host') host = value;
      else if (kind === 'length') contentLength = Number(value);
      else if (kind === 'coding') {
        if (value.toLowerCase() !== 'chunked') throw new RequestError(501, `Unsupported transfer coding: ${value}`);
        if (httpMinor === 0) throw new RequestError(400, 'Transfer-Encoding is not part of HTTP/1.0');
        chunked = true;
      } else if (kind === 'expect') {
        expectsUnknown = httpMinor > 0 && value.toLowerCase() !== '100-continue';
      } else if (kind === 'scheme' && facts.trusted) {
        const said = value === this.schemeHeaders.get(header.name) ? 'https' : 'http';
        if (scheme !== '' && scheme !== said) throw new RequestError(400, 'Contradictory scheme headers');
        scheme = said;
      } else if (kind === 'script' && facts.trusted) scriptName = value;
    }
    if (host === null && httpMinor > 0) throw new RequestError(400, "Invalid HTTP Header: 'HOST' is missing");

    const { path, query } = splitTarget(target);
    let pathInfo = path;
    let pathEncoded = false;
    if (path.includes('%')) {
      pathInfo = percentDecode(path);
      pathEncoded = pathInfo.includes('\0');
      if (pathEncoded) pathInfo = path;
    }
    let script = '';
    if (scriptName !== '') {
      if (!pathInfo.startsWith(scriptName)) {
        throw new RequestError(500, `Request path '${pathInfo}' does not start with SCRIPT_NAME '${scriptName}'`);
      }
      pathInfo = pathInfo.slice(scriptName.length);
      script = `SCRIPT_NAME\0${scriptName}\0`;
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
      (httpMinor > 0 ? '\0SERVER_PROTOCOL\0HTTP/1.1\0' : '\0SERVER_PROTOCOL\0HTTP/1.0\0') +
      headers +
      script +
      (facts.unixPath === null ? '' : serverOfUnixSocket(facts.unixPath, host, scheme)) +
      facts.block +
      (scheme === 'https' ? '\0wsgi.url_scheme\0https' : '\0wsgi.url_scheme\0http');
    return { block, pathEncoded, hasBody: chunked || contentLength > 0, contentLength, expectsUnknown };
  }

  private learn(rawName: string): KnownHeader {
    const name = rawName.toLowerCase();
    let header = this.known.get(name);
    if (header === undefined) {
      const cgi = name.toUpperCase().replaceAll('-', '_');
      const plain = name === 'content-type' || name === 'content-length';
      header = { kind: this.kindOf(name), prefix: `${plain ? '' : 'HTTP_'}${cgi}\0`, name, seenBy: 0 };
    }
    this.known.set(name, header);
    this.known.set(rawName, header);
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
    }
    // `X_A` and `X-A` would be one environ key: a client could forge what a proxy adds.
    if (name.includes('_')) return 'drop';
    return this.schemeHeaders.has(name) ? 'scheme' : 'plain';
  }
}

/** Adds a further value to a header that the block has already: with `; ` for cookies (RFC 6265, 5.4), else with a comma. */
function joinDuplicate(block: string, header: KnownHeader, value: string): string {
  // From pair to pair, as a value may be the name of a header.
  let start = 0;
  while (!block.startsWith(header.prefix, start)) start = block.indexOf('\0', block.indexOf('\0', start) + 1) + 1;
  const end = block.indexOf('\0', start + header.prefix.length);
  return block.slice(0, end) + (header.kind === 'cookie' ? '; ' : ',') + value + block.slice(end);
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
