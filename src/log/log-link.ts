/**
 * A connection to the log process. Lines are gathered within a turn of the event loop and never waited for: what the process
 * does not take in time is dropped and counted, and the count is sent when it takes lines again.
 */
import { existsSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { dirname } from 'node:path';
import type { AccessRecord } from './access-format.ts';
import type { LogLevel } from './levels.ts';

export interface LogProcessAddress {
  readonly socketPath: string;
  readonly token: string;
}

const MAX_WAITING_BYTES = 4 * 1024 * 1024;
const RECONNECT_MS = 500;
const CLOSE_MS = 1000;

export class LogLink {
  private readonly address: LogProcessAddress;
  private socket: Socket | null = null;
  private connected = false;
  private pending = '';
  private flushing = false;
  private closing = false;
  /** Lines lost so far. */
  dropped = 0;
  private untold = 0;

  constructor(address: LogProcessAddress) {
    this.address = address;
    this.open();
  }

  /** Lines may be sent: they are taken now, or as soon as the connection stands. */
  get isUp(): boolean {
    return this.socket !== null;
  }

  line(level: LogLevel, message: string): void {
    this.send({ level, pid: process.pid, message });
  }

  access(record: AccessRecord): void {
    // One by one: a record may read them where they stand.
    const fields: Record<keyof AccessRecord, unknown> = {
      remoteAddress: record.remoteAddress,
      user: record.user,
      method: record.method,
      rawUri: record.rawUri,
      path: record.path,
      query: record.query,
      protocol: record.protocol,
      status: record.status,
      reason: record.reason,
      bytesSent: record.bytesSent,
      durationUs: record.durationUs,
      requestHeaders: record.requestHeaders,
      responseHeaders: record.responseHeaders,
      environBlock: record.environBlock,
      environ: Object.fromEntries(record.environ ?? []),
      pid: record.pid,
      worker: record.worker,
      thread: record.thread,
    };
    this.send({ access: fields });
  }

  /** Sends what waits, for a second at most. */
  async close(): Promise<void> {
    this.flush();
    this.closing = true;
    const { socket } = this;
    if (socket === null) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSE_MS);
      socket.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
      socket.end();
    });
    socket.destroy();
  }

  private send(entry: object): void {
    const waiting = this.pending.length + (this.socket?.writableLength ?? 0);
    if (waiting > MAX_WAITING_BYTES || this.closing) {
      this.dropped += 1;
      this.untold += 1;
      return;
    }
    if (this.untold > 0) {
      const message = `${this.untold} lines of the logs were dropped: the log process did not take them`;
      this.untold = 0;
      this.pending += `${JSON.stringify({ level: 'warning', pid: process.pid, message })}\n`;
    }
    this.pending += `${JSON.stringify(entry)}\n`;
    if (!this.flushing) {
      this.flushing = true;
      setImmediate(() => this.flush());
    }
  }

  private flush(): void {
    this.flushing = false;
    if (!this.connected || this.pending === '') return;
    this.socket?.write(this.pending);
    this.pending = '';
  }

  private open(): void {
    const socket = connect(this.address.socketPath, () => {
      this.connected = true;
      socket.write(`${this.address.token}\n`);
      this.flush();
    });
    this.socket = socket;
    socket.unref();
    socket.on('error', () => {});
    socket.on('close', () => {
      this.connected = false;
      this.socket = null;
      // Without its folder the process has ended for good: a reload has started another one.
      if (this.closing || !existsSync(dirname(this.address.socketPath))) links.delete(this.address.socketPath);
      else setTimeout(() => this.open(), RECONNECT_MS).unref();
    });
  }
}

const links = new Map<string, LogLink>();

/** The link of this process: its error log and its access log share one. */
export function linkTo(address: LogProcessAddress): LogLink {
  const key = address.socketPath;
  const link = links.get(key) ?? new LogLink(address);
  links.set(key, link);
  return link;
}
