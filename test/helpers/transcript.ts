// What server hooks write down, from both servers.
import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { KINDS } from './matrix.ts';
import { finishing, type Kind, Server, type ServerOptions } from './server.ts';

export type Act = (server: Server, lines: () => string[]) => Promise<void>;

/** Runs a server whose configuration file `config` writes a transcript; gives its lines. */
export async function transcriptOf(
  kind: Kind,
  config: string,
  options: Partial<ServerOptions>,
  act: Act,
): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'transcript-'));
  const path = join(folder, 'transcript');
  writeFileSync(path, '');
  const lines = (): string[] => readFileSync(path, 'utf8').trimEnd().split('\n');
  const server = await Server.spawn({
    kind,
    app: 'hooks.app:application',
    ...options,
    args: ['-c', config, ...(options.args ?? [])],
    env: { TRANSCRIPT: path, ...options.env },
  });
  await finishing(server, async () => {
    await server.ready();
    await act(server, lines);
  });
  const transcript = lines();
  rmSync(folder, { recursive: true });
  return transcript;
}

/** Runs against each server, one after the other. */
export async function onEach(config: string, options: Partial<ServerOptions>, act: Act): Promise<string[][]> {
  const transcripts: string[][] = [];
  for (const kind of KINDS) transcripts.push(await transcriptOf(kind as Kind, config, options, act));
  return transcripts;
}

/** Runs against both servers and compares what `seen` takes of the transcripts; gives it. */
export async function sameOnBoth(
  config: string,
  options: Partial<ServerOptions>,
  act: Act,
  seen: (lines: string[]) => string[] = (lines) => lines,
): Promise<string[]> {
  const [first = [], second] = (await onEach(config, options, act)).map(seen);
  if (second !== undefined) assert.deepEqual(first, second);
  return first;
}

/** Sends the signal and waits for an end without an error. */
export const stops =
  (signal: NodeJS.Signals): Act =>
  async (server) => {
    server.kill(signal);
    assert.deepEqual(await server.exit(), { code: 0, signal: null });
  };

/** Runs `use` with the path of a configuration file that holds `text`. */
export async function withConfig(text: string, use: (path: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'hooks-'));
  try {
    const path = join(folder, 'test.conf.py');
    writeFileSync(path, text);
    await use(path);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
