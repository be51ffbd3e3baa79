/** `nunicorn ctl`: asks a running server, and tells it, over its control socket. */

import { parseArgs } from 'node:util';
import { EXIT, type ExitCode, NunicornError } from '../errors.ts';
import { ControlClient } from './client.ts';
import { asJson, formatAnswer } from './format.ts';
import { SOCKET_VARIABLE, socketPath } from './socket-path.ts';

interface Options {
  readonly socket: string;
  /** Undefined: ask for commands. */
  readonly command: string | undefined;
  readonly json: boolean;
}

export async function run(argv: readonly string[], columns: number): Promise<ExitCode> {
  const options = await parse(argv, columns);
  if (options === null) return EXIT.OK;
  const client = await ControlClient.open(options.socket);
  try {
    if (options.command === undefined) return await interact(client, options);
    const data = await client.send(options.command);
    const refusal = refusalOf(data);
    if (refusal !== null && !options.json) throw new NunicornError(refusal);
    console.log(options.json ? asJson(data) : formatAnswer(options.command, data));
    return refusal === null ? EXIT.OK : EXIT.ERROR;
  } finally {
    client.close();
  }
}

/** Why the server did not do it: some of Gunicorn's answers say so in their data. */
function refusalOf(data: unknown): string | null {
  const { success, error } = (data ?? {}) as { success?: unknown; error?: unknown };
  return success === false ? String(error) : null;
}

const OPTIONS = {
  socket: {
    short: 's',
    type: 'string',
    describe: `Path of the control socket, as given to --control-socket. Default: $${SOCKET_VARIABLE}`,
  },
  command: { short: 'c', type: 'string', describe: 'COMMAND in one word, as for gunicornc' },
  json: { short: 'j', type: 'boolean', describe: 'Print the answer as JSON' },
  help: { short: 'h', type: 'boolean', describe: 'Show this help' },
} as const;

/**
 * Null: the help was printed. Only that needs yargs, which takes longer to load than all the rest of this command, Node's own
 * start included.
 */
async function parse(argv: readonly string[], columns: number): Promise<Options | null> {
  const { values, positionals } = readArguments(argv);
  if (values.help === true) {
    console.log(await help(columns));
    return null;
  }
  // One argument is a command as for -c: no word of a command has a space.
  const [only, ...more] = positionals;
  const command = values.command ?? (more.length > 0 ? positionals.map(quoted).join(' ') : only);
  return { socket: socketPath(values.socket, 'ctl'), command, json: values.json === true };
}

function readArguments(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options: OPTIONS, allowPositionals: true });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    const [what] = error.message.split('. '); // the rest is for arguments that begin with a hyphen, and here none does
    throw new NunicornError(`nunicorn ctl: ${what}; see nunicorn ctl --help`, EXIT.USAGE);
  }
}

async function help(columns: number): Promise<string> {
  const { default: yargs } = await import('yargs');
  const parser = yargs([])
    .scriptName('nunicorn ctl')
    .help(false) // first: it takes an option of this name away
    .version(false)
    .usage(
      `Usage: $0 [-s SOCKET] [COMMAND]\n\nAsks a running server, or tells it what to do, over its control socket (nunicorn --control-socket SOCKET). Without COMMAND it asks for commands; "help" lists them.`,
    )
    .example([
      ['$0 -s app.ctl show workers', 'Workers, their state, age and requests'],
      ['$0 -s app.ctl show requests', 'What runs and what waits, for how long'],
      ['$0 -s app.ctl backtrace 2', 'Where the threads of worker 2 are'],
      ['$0 -s app.ctl worker add 2', 'Two workers more'],
      ['$0 -s app.ctl show stats --json', 'For a script'],
    ])
    .wrap(Math.min(columns, 110));
  for (const [name, { short, type, describe }] of Object.entries(OPTIONS))
    parser.option(name, { alias: short, type, describe });
  return await parser.getHelp();
}

/** For the other side, which splits a line as a shell does. */
function quoted(word: string): string {
  return /^[\w./:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

async function interact(client: ControlClient, { socket, json }: Options): Promise<ExitCode> {
  const { createInterface } = await import('node:readline/promises');
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  if (process.stdin.isTTY) console.log(`Connected to ${socket}. "help" lists the commands, "quit" ends.`);
  terminal.setPrompt('nunicorn> ');
  if (process.stdin.isTTY) terminal.prompt();
  for await (const line of terminal) {
    const command = line.trim();
    if (['quit', 'exit', 'q'].includes(command.toLowerCase())) break;
    if (command !== '') {
      try {
        const data = await client.send(command);
        console.log(json ? asJson(data) : formatAnswer(command, data));
      } catch (error) {
        if (!(error instanceof NunicornError)) throw error;
        console.log(`Error: ${error.message}`);
      }
    }
    if (process.stdin.isTTY) terminal.prompt();
  }
  terminal.close();
  return EXIT.OK;
}
