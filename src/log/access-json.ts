/** The access log as JSON: an object a line, made by pino. */
import { type AccessFormatter, type AccessRecord, basicUser, headerValue } from './access-format.ts';
import { jsonLines } from './json-lines.ts';

/** What stands in a line beside `level` and `time`; what is not known is left out. */
function accessFields(record: AccessRecord): Record<string, unknown> {
  const { requestHeaders: headers, pid, worker, thread } = record;
  return {
    remote_address: record.remoteAddress || undefined,
    user: record.user ?? basicUser(headers),
    method: record.method,
    path: record.path,
    query: record.query || undefined,
    protocol: record.protocol,
    host: headerValue(headers, 'host'),
    status: record.status,
    bytes: record.bytesSent ?? undefined,
    duration_ms: Math.round(record.durationUs) / 1000,
    referer: headerValue(headers, 'referer'),
    user_agent: headerValue(headers, 'user-agent'),
    pid: pid || undefined,
    worker: worker || undefined,
    thread: thread || undefined,
  };
}

export async function jsonAccessFormat(): Promise<AccessFormatter> {
  const line = await jsonLines(null);
  return (record) => line('info', accessFields(record));
}
