import { strict as assert } from 'node:assert';
import type { Requests, Status } from '../../src/metrics/status.ts';
import { until } from './deadline.ts';
import { exchange, type Response } from './http.ts';
import { freePort } from './ports.ts';

/** The admin server of a nunicorn under test: `args` for its command line, and what it says. */
export class Admin {
  readonly args: readonly string[];
  readonly port: number;

  private constructor(port: number) {
    this.port = port;
    this.args = ['--admin-bind', `127.0.0.1:${port}`];
  }

  static async choose(): Promise<Admin> {
    return new Admin(await freePort());
  }

  get(path: string, headers = ''): Promise<Response> {
    return exchange(
      { host: '127.0.0.1', port: this.port },
      `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${headers}\r\n`,
    );
  }

  async json<T>(path: string): Promise<T> {
    const response = await this.get(path);
    assert.equal(response.status, 200, response.text());
    return JSON.parse(response.text()) as T;
  }

  status(): Promise<Status> {
    return this.json<Status>('/status');
  }

  requests(): Promise<Requests> {
    return this.json<Requests>('/requests');
  }

  /** Waits until the master with this pid answers. */
  async answersFrom(pid: number): Promise<void> {
    let last: Status | null = null;
    await until(
      async () => {
        last = await this.status().catch(() => null);
        return last?.server.pid === pid;
      },
      () => `master ${pid} at the admin address; it was ${last?.server.pid}`,
    );
  }

  /** Every sample of one scrape, by name and labels as written: `nunicorn_slots{state="idle"}`. */
  async scrape(): Promise<ReadonlyMap<string, number>> {
    const samples = new Map<string, number>();
    for (const line of (await this.get('/metrics')).text().split('\n')) {
      if (line === '' || line.startsWith('#')) continue;
      const space = line.lastIndexOf(' ');
      samples.set(line.slice(0, space), Number(line.slice(space + 1)));
    }
    return samples;
  }

  /** Scrapes until the sample has this value. */
  async reaches(sample: string, value: number): Promise<void> {
    let last: ReadonlyMap<string, number> = new Map();
    await until(
      async () => {
        last = await this.scrape();
        return last.get(sample) === value;
      },
      () => `${sample} to be ${value}; it is ${last.get(sample)}`,
    );
  }
}

/** What no restart of any process may make smaller: counters, and the parts of histograms. */
export function wentBack(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): string[] {
  return [...before]
    .filter(([name]) => /_total|_bucket|_sum|_count/.test(name))
    .filter(([name, value]) => (after.get(name) ?? Number.NEGATIVE_INFINITY) < value)
    .map(([name, value]) => `${name}: ${value}, then ${after.get(name)}`);
}
