/** The live page of the admin server, and the stream of events (HTML, 9.2: server-sent events) that keeps it up to date. */
import { readFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { fileURLToPath } from 'node:url';
import type { Status } from './status.ts';

const INTERVAL_MS = 1000;
/** Pages that are open at the same time. */
const MAX_CLIENTS = 32;
/** A page that does not take what it is sent gets no more until it has. */
const MAX_UNSENT_BYTES = 256 * 1024;

/** From dist/src/metrics/ it is three up. */
const PAGE_PATH = fileURLToPath(new URL('../../../src/metrics/live.html', import.meta.url));

export function livePage(): string {
  return readFileSync(PAGE_PATH, 'utf8');
}

/** The page loads nothing from anywhere and may not be framed. */
export const LIVE_PAGE_POLICY =
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/** Sends the status to all pages, once a second while there are any. */
export class LiveStream {
  private readonly status: () => Promise<Status>;
  private readonly clients = new Set<ServerResponse>();
  private timer: NodeJS.Timeout | null = null;

  constructor(status: () => Promise<Status>) {
    this.status = status;
  }

  /** False: too many pages are open. */
  add(response: ServerResponse): boolean {
    if (this.clients.size >= MAX_CLIENTS) return false;
    response.writeHead(200, {
      'Content-Type': 'text/event-stream',
      'Cache-Control': 'no-store',
      'X-Content-Type-Options': 'nosniff',
      // nginx would gather it.
      'X-Accel-Buffering': 'no',
    });
    this.clients.add(response);
    response.on('close', () => {
      this.clients.delete(response);
      if (this.clients.size === 0) this.close();
    });
    this.timer ??= setInterval(() => void this.send(), INTERVAL_MS);
    void this.send();
    return true;
  }

  close(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
  }

  private async send(): Promise<void> {
    // What cannot be read now may be a second later; the page shows that it hears nothing.
    const status = await this.status().catch(() => null);
    if (status === null) return;
    const event = `event: status\ndata: ${JSON.stringify(status)}\n\n`;
    for (const client of this.clients) if (client.writableLength < MAX_UNSENT_BYTES) client.write(event);
  }
}
