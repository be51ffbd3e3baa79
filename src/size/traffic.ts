/** What the load asks for: from `--path`, a HAR file, or an access log. Pure, but for `readTraffic`. */
import { readFileSync } from 'node:fs';
import { NunicornError } from '../errors.ts';

export interface TrafficEntry {
  /** With its query. */
  readonly path: string;
  readonly weight: number;
}

export interface Traffic {
  readonly entries: readonly TrafficEntry[];
  /** In words: what of the file is not in the load, and why. */
  readonly notes: readonly string[];
}

export type TrafficSource =
  | { readonly kind: 'paths'; readonly paths: readonly string[] }
  | { readonly kind: 'har' | 'log'; readonly file: string };

/** The rest of a long tail would not be asked for in a few seconds anyway. */
const MOST_ENTRIES = 200;

/** @throws {NunicornError} if the file cannot be read, or has nothing to ask for */
export function readTraffic(source: TrafficSource): Traffic {
  if (source.kind === 'paths') return ofPaths(source.paths);
  let text: string;
  try {
    text = readFileSync(source.file, 'utf8');
  } catch (error) {
    throw new NunicornError(`${source.file} cannot be read: ${error instanceof Error ? error.message : error}`);
  }
  const traffic = source.kind === 'har' ? ofHar(text, source.file) : ofAccessLog(text);
  if (traffic.entries.length === 0) {
    const why = traffic.notes.length === 0 ? '' : ` (${traffic.notes.join('; ')})`;
    throw new NunicornError(
      `${source.file}: no GET request in it that was answered with 2xx or 3xx: there is nothing to ask for${why}`,
    );
  }
  return traffic;
}

function ofPaths(paths: readonly string[]): Traffic {
  for (const path of paths)
    if (!/^\/[\x21-\x7e]*$/.test(path))
      throw new NunicornError(`--path '${path}': a path as a client sends it is needed, such as /books/?page=2`);
  return { entries: paths.map((path) => ({ path, weight: 1 })), notes: [] };
}

/** HTTP archive, as the network panel of a browser saves it. Only requests to the host of the first one. */
export function ofHar(text: string, file: string): Traffic {
  const tally = new Tally();
  const entries = harEntries(text, file);
  const host = entries[0]?.url.host;
  for (const { method, url, status } of entries) {
    if (url.host === host) tally.add(method, `${url.pathname}${url.search}`, status);
    else tally.leaveOut('to other hosts');
  }
  return tally.traffic();
}

function harEntries(text: string, file: string): readonly { method: string; url: URL; status: number }[] {
  try {
    const har = JSON.parse(text) as {
      log: { entries: { request: { method: string; url: string }; response: { status: number } }[] };
    };
    return har.log.entries.map(({ request, response }) => ({
      method: request.method,
      url: new URL(request.url),
      status: response.status,
    }));
  } catch (error) {
    throw new NunicornError(`${file} is not a HAR file: ${error instanceof Error ? error.message : error}`);
  }
}

/** Gunicorn's access log, and every other log with `"GET /path HTTP/1.1" 200` in its lines (Apache, nginx). */
export function ofAccessLog(text: string): Traffic {
  const tally = new Tally();
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue;
    const match = /"([A-Z]+) (\S+) HTTP\/[\d.]+" (\d{3})/.exec(line);
    if (match === null) tally.leaveOut('without a request line');
    else tally.add(match[1] ?? '', match[2] ?? '', Number(match[3]));
  }
  return tally.traffic();
}

class Tally {
  readonly #counts = new Map<string, { path: string; weight: number }>();
  readonly #leftOut = new Map<string, number>();

  add(method: string, path: string, status: number): void {
    if (method !== 'GET') this.leaveOut(`${method}, only GET is asked for`);
    else if (status < 200 || status >= 400) this.leaveOut('not answered with 2xx or 3xx');
    else if (!path.startsWith('/')) this.leaveOut('without a path');
    else {
      const known = this.#counts.get(path);
      if (known === undefined) this.#counts.set(path, { path, weight: 1 });
      else known.weight++;
    }
  }

  leaveOut(why: string): void {
    this.#leftOut.set(why, (this.#leftOut.get(why) ?? 0) + 1);
  }

  traffic(): Traffic {
    const all = [...this.#counts.values()].sort((a, b) => b.weight - a.weight);
    const rare = all.slice(MOST_ENTRIES);
    const notes = [...this.#leftOut].map(
      ([why, count]) => `${count} ${count === 1 ? 'request' : 'requests'} left out: ${why}`,
    );
    if (rare.length > 0) {
      const requests = rare.reduce((total, { weight }) => total + weight, 0);
      notes.push(
        `${requests} requests left out: ${rare.length} rare paths; the ${MOST_ENTRIES} most frequent are asked for`,
      );
    }
    return { entries: all.slice(0, MOST_ENTRIES), notes };
  }
}

/** The text of a request on the wire. */
export function requestText({ path }: TrafficEntry, host: string, headers: readonly string[]): string {
  const own = headers.map((header) => `${header}\r\n`).join('');
  return `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: nunicorn-size\r\nAccept: */*\r\n${own}\r\n`;
}
