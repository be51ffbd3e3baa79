/**
 * Runs a configuration file in one of Node's languages in a thread of its own, as code of the user's: what it loads, changes in
 * `process.env` or leaves running goes with the thread, and a reload runs the file anew.
 */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { NunicornError } from '../errors.ts';
import type { ConfigFile } from './config-file.ts';
import { readNodeConfig, unusable } from './node-config.ts';

interface Input {
  readonly path: string;
  readonly location: string;
}

type Told =
  | { readonly kind: 'config'; readonly config: ConfigFile }
  | { readonly kind: 'error'; readonly message: string };

/**
 * `readNodeConfig`, in a thread.
 *
 * @throws {NunicornError} as it does, and if the file ends its process
 */
export async function readNodeConfigInThread(
  path: string,
  location: string,
  env: NodeJS.ProcessEnv,
): Promise<ConfigFile> {
  const input: Input = { path, location };
  const thread = new Worker(new URL(import.meta.url), { workerData: input, env });
  const told = await new Promise<Told>((resolve, reject) => {
    thread.once('message', resolve);
    thread.once('error', (error) => reject(unusable(location, error)));
    thread.once('exit', (code) => {
      const message = `the configuration file ${location} could not be used: it ended with exit code ${code} before it was read`;
      resolve({ kind: 'error', message });
    });
  });
  await thread.terminate();
  if (told.kind === 'error') throw new NunicornError(told.message);
  return told.config;
}

async function read({ path, location }: Input): Promise<Told> {
  try {
    return { kind: 'config', config: await readNodeConfig(path, location) };
  } catch (error) {
    if (!(error instanceof NunicornError)) throw error;
    return { kind: 'error', message: error.message };
  }
}

if (!isMainThread) parentPort?.postMessage(await read(workerData as Input));
