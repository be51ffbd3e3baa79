/** An exchange that is over, as the access log sees it. */
import { PATH_ENCODED } from '../bridge/frames.ts';
import { now } from '../clock.ts';
import type { AccessRecord } from '../log/access-format.ts';
import { percentDecode, splitTarget } from './environ.ts';
import type { Exchange } from './exchange.ts';
import { headersOf, reasonOf } from './head-block.ts';

export function accessRecord(exchange: Exchange): AccessRecord {
  const { request, connection, responseBlock } = exchange;
  const target = request.url ?? '';
  return {
    remoteAddress: connection.remoteAddress,
    method: request.method ?? '',
    rawUri: target,
    path: pathInfo(exchange, target),
    query: splitTarget(target).query,
    protocol: `HTTP/${request.httpVersion}`,
    status: exchange.status,
    reason: reasonOf(responseBlock),
    bytesSent: exchange.bytesSent,
    durationUs: (now() - exchange.startedAt) * 1000,
    requestHeaders: request.rawHeaders,
    // Few formats ask for them.
    get responseHeaders() {
      return headersOf(responseBlock);
    },
    // A request whose head was refused has no block of its own.
    environBlock: exchange.block || connection.facts.block,
    pid: exchange.workerPid,
    worker: exchange.worker,
    thread: exchange.thread,
    environ: exchange.environ,
  };
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
