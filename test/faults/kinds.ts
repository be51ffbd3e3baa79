/** The kinds of workers that the faults are tried on, and how they differ. */
import type { Server } from '../helpers/server.ts';

export interface Kind {
  /** Before the name of each of its scenarios. */
  readonly name: string;
  readonly app: string;
  /** Of `workers x threads` as scenarios ask for them. */
  readonly args: (threads: number) => readonly string[];
  /** A module that is `app`, in a folder of its own; begins with `head`. */
  readonly module: { readonly file: string; readonly text: (head: string) => string };
  /** Heads of such a module. */
  readonly doesNotImport: string;
  readonly hangsAtImport: string;
  readonly bootSeconds: number;
  /** Of a worker or thread, so that boots take little of a busy machine. */
  readonly maxRequests: number;
  /** Processes beside the master and several workers. */
  readonly others: readonly ('front' | 'mold')[];
  /** The processes that stay while workers or threads are recycled. */
  readonly lasting: (server: Server) => readonly number[];
  /** In MB: above what a worker needs at rest. */
  readonly memoryLimit: number;
  /** What a client gets whose worker was killed, beside an answer. */
  readonly lost: readonly string[];
  /** How many requests of so many clients a killed worker of so many threads may run. */
  readonly running: (threads: number, clients: number) => number;
  /** Of the time and the counts of a scenario. */
  readonly scale: number;
}

export const PYTHON: Kind = {
  name: 'Python: ',
  app: 'app:application',
  args: (threads) => ['--threads', String(threads)],
  module: {
    file: 'app.py',
    text: (head) =>
      `import time\n${head}\ndef application(environ, start_response):\n` +
      '    environ["wsgi.input"].read()\n    start_response("200 OK", [])\n    return [b"good"]\n',
  },
  doesNotImport: 'import nothing_of_that_name',
  hangsAtImport: 'time.sleep(3600)',
  bootSeconds: 2,
  maxRequests: 50,
  others: ['front', 'mold'],
  lasting: (server) => [server.pid, ...server.fronts(), ...server.molds()],
  memoryLimit: 120,
  lost: ['502'],
  running: (threads) => threads,
  scale: 1,
};

const NODE: Omit<Kind, 'name' | 'args' | 'memoryLimit' | 'maxRequests' | 'lasting'> = {
  app: './app.mjs',
  module: {
    file: 'app.mjs',
    text: (head) =>
      `${head}\nexport default (request, response) => request.resume().on('end', () => response.end('good'));\n`,
  },
  doesNotImport: "import 'nothing-of-that-name';",
  hangsAtImport: 'for (;;);',
  bootSeconds: 0.5,
  others: [],
  // The worker has the clients' connections, and they end with it. A fresh one that it had not accepted goes to another.
  lost: ['ECONNRESET', 'ECONNRESET on a reused connection', 'EPIPE', 'EPIPE on a reused connection'],
  running: (_, clients) => clients,
  scale: 0.4,
};

export const NODE_ASYNC: Kind = {
  ...NODE,
  name: 'Node async: ',
  args: () => ['-k', 'async'],
  maxRequests: 300,
  lasting: (server) => [server.pid],
  memoryLimit: 150,
};

export const NODE_GTHREAD: Kind = {
  ...NODE,
  name: 'Node gthread: ',
  args: (threads) => ['-k', 'gthread', '--threads', String(threads)],
  maxRequests: 100,
  lasting: (server) => [server.pid, ...server.workers()],
  memoryLimit: 250,
};
