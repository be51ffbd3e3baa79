/** `nunicorn top`: a running server, live, in the terminal. */
import { EXIT, type ExitCode, NunicornError } from '../errors.ts';
import type { Status } from '../metrics/status.ts';
import { failAs } from '../settings/parser.ts';
import { ControlClient } from './client.ts';
import { SOCKET_VARIABLE, socketPath } from './socket-path.ts';
import { topView } from './top-view.ts';

const ALTERNATE_SCREEN = '\x1b[?1049h\x1b[?25l';
const NORMAL_SCREEN = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR_LINE = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';
const ONCE_ROWS = 200;

export async function run(argv: readonly string[], columns: number): Promise<ExitCode> {
  const { default: yargs } = await import('yargs');
  const parser = yargs([...argv])
    .scriptName('nunicorn top')
    .help(false) // first: it takes an option of this name away
    .usage(
      'Usage: $0 [-s SOCKET]\n\nShows workers, threads, queue, rates, latency and memory of a running server (nunicorn --control-socket SOCKET), once a second. q ends it.',
    )
    .option('socket', {
      alias: 's',
      type: 'string',
      describe: `Path of the control socket, as given to --control-socket. Default: $${SOCKET_VARIABLE}`,
      requiresArg: true,
    })
    .option('interval', {
      alias: 'i',
      type: 'number',
      describe: 'Seconds between two looks',
      default: 1,
      requiresArg: true,
    })
    .option('once', { type: 'boolean', describe: 'Print it once, as text' })
    .option('help', { alias: 'h', type: 'boolean', describe: 'Show this help' })
    .version(false)
    .exitProcess(false)
    .strict()
    .wrap(Math.min(columns, 110))
    .fail(failAs('nunicorn top'));
  const options = await parser.parseAsync();
  if (options.help) {
    console.log(await parser.getHelp());
    return EXIT.OK;
  }
  if (!(options.interval >= 0.1))
    throw new NunicornError('nunicorn top: --interval takes 0.1 seconds or more', EXIT.USAGE);
  const client = await ControlClient.open(socketPath(options.socket, 'top'));
  try {
    // A dumb terminal cannot go back to the first line.
    if (options.once || !process.stdout.isTTY || process.env.TERM === 'dumb') {
      const status = (await client.send('show status')) as Status;
      // Who reads from a pipe wants whole lines.
      const width = process.stdout.columns || Number.POSITIVE_INFINITY;
      console.log(topView(status, { columns: width, rows: ONCE_ROWS, colors: false }).join('\n'));
      return EXIT.OK;
    }
    return await watch(client, options.interval * 1000);
  } finally {
    client.close();
  }
}

/** Until q, Ctrl-C, or the end of the server. */
async function watch(client: ControlClient, intervalMs: number): Promise<ExitCode> {
  const { stdin, stdout } = process;
  let wake = (): void => {};
  let over = false;
  const end = (): void => {
    over = true;
    wake();
  };
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
  stdout.on('resize', () => wake());
  if (stdin.isTTY) stdin.setRawMode(true);
  stdin.resume();
  stdin.on('data', (keys: Buffer) => {
    // In raw mode Ctrl-C is a byte.
    if (keys.includes('q') || keys.includes(3)) end();
  });
  stdout.write(ALTERNATE_SCREEN);
  try {
    while (!over) {
      const status = (await client.send('show status')) as Status;
      // A terminal that does not know its size says 0.
      const view = { columns: stdout.columns || 80, rows: stdout.rows || 24, colors: !process.env.NO_COLOR };
      stdout.write(
        HOME +
          topView(status, view)
            .map((line) => line + CLEAR_LINE)
            .join('\r\n') +
          CLEAR_BELOW,
      );
      await new Promise<void>((resolve_) => {
        const timer = setTimeout(resolve_, intervalMs);
        wake = () => {
          clearTimeout(timer);
          resolve_();
        };
      });
    }
  } finally {
    stdout.write(NORMAL_SCREEN);
    if (stdin.isTTY) stdin.setRawMode(false);
    stdin.pause();
  }
  return EXIT.OK;
}
