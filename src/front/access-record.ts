/** An exchange that is over, as the access log sees it. */
import { now } from '../clock.ts';
import type { AccessRecord } from '../log/access-format.ts';
import { percentDecode, splitTarget } from './environ.ts';
import type { Exchange } from './exchange.ts';

export function accessRecord(exchange: Exchange): AccessRecord {
  const { request, connection } = exchange;
  const target = request.url ?? '';
  const { path, query } = splitTarget(target);
  return {
    remoteAddress: connection.remoteAddress,
    method: request.method ?? '',
    rawUri: target,
    path: percentDecode(path),
    query,
    protocol: `HTTP/${request.httpVersion}`,
    status: exchange.status,
    bytesSent: exchange.bytesSent,
    durationUs: (now() - exchange.startedAt) * 1000,
    requestHeaders: request.rawHeaders,
    responseHeaders: exchange.responseBlock.split('\0').slice(1),
    pid: exchange.workerPid,
    worker: exchange.worker,
    thread: exchange.thread,
    environ: exchange.environ,
  };
}
