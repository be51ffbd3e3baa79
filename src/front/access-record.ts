/** An exchange that is over, as the access log sees it. */
import { PATH_ENCODED } from '../bridge/frames.ts';
import { now } from '../clock.ts';
import type { AccessRecord } from '../log/access-format.ts';
import { percentDecode, splitTarget } from './environ.ts';
import type { Exchange } from './exchange.ts';
import { headersOf, reasonOf } from './head-block.ts';

/** What few formats ask for is read when they do. */
export class ExchangeRecord implements AccessRecord {
  readonly durationUs: number;
  private readonly exchange: Exchange;

  constructor(exchange: Exchange) {
    this.durationUs = (now() - exchange.startedAt) * 1000;
    this.exchange = exchange;
  }

  get remoteAddress(): string {
    return this.exchange.connection.remoteAddress;
  }

  get method(): string {
    return this.exchange.request.method ?? '';
  }

  get rawUri(): string {
    return this.exchange.request.url ?? '';
  }

  get path(): string {
    return pathInfo(this.exchange, this.rawUri);
  }

  get query(): string {
    return splitTarget(this.rawUri).query;
  }

  get protocol(): string {
    return `HTTP/${this.exchange.request.httpVersion}`;
  }

  get status(): number {
    return this.exchange.status;
  }

  get reason(): string {
    return reasonOf(this.exchange.responseBlock);
  }

  get bytesSent(): number {
    return this.exchange.bytesSent;
  }

  get requestHeaders(): readonly string[] {
    return this.exchange.request.rawHeaders;
  }

  get responseHeaders(): readonly string[] {
    return headersOf(this.exchange.responseBlock);
  }

  get environBlock(): string {
    // A request whose head was refused has no block of its own.
    return this.exchange.block || this.exchange.connection.facts.block;
  }

  get environ(): ReadonlyMap<string, string> | null {
    return this.exchange.environ;
  }

  get pid(): number {
    return this.exchange.workerPid;
  }

  get worker(): number {
    return this.exchange.worker;
  }

  get thread(): number {
    return this.exchange.thread;
  }
}

const PATH_INFO = '\0PATH_INFO\0';

/** Without SCRIPT_NAME. What stands before it in a block has no NUL, so that it is the first of its name. */
function pathInfo({ block, flags }: Exchange, target: string): string {
  const at = block.indexOf(PATH_INFO);
  if (at < 0) return percentDecode(splitTarget(target).path);
  const start = at + PATH_INFO.length;
  const path = block.slice(start, block.indexOf('\0', start));
  return (flags & PATH_ENCODED) === 0 ? path : percentDecode(path);
}
