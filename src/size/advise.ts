/** `nunicorn advise`: asks a running server's admin address for its figures and says what to change. It never acts. */
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { EXIT, type ExitCode, NunicornError } from '../errors.ts';
import { readMachine, usableMemory, usableProcessors } from '../machine.ts';
import { plural } from '../plural.ts';
import { formatAddress, parseAddress } from '../settings/address.ts';
import { failAs } from '../settings/parser.ts';
import { type Advice, type AdviceContext, type AdviceInput, advise, tooLittle } from './advise-rules.ts';

const ASK_MS = 10_000;
const DEFAULT_WATCH_S = 20;

export async function run(argv: readonly string[], columns: number): Promise<ExitCode> {
  const { default: yargs } = await import('yargs');
  const y = yargs([...argv])
    .scriptName('nunicorn advise')
    .help(false) // first: it takes an option of this name away
    .usage(
      'Usage: $0 [OPTIONS] ADDRESS\n\nAsks the server whose --admin-bind is ADDRESS for its figures under load, and says what to change, why, and what to expect. It changes nothing.',
    )
    .option('watch', {
      string: true,
      requiresArg: true,
      default: String(DEFAULT_WATCH_S),
      describe: 'Seconds between two looks, for how memory grows; 0: one look.',
    })
    .option('cpus', {
      string: true,
      requiresArg: true,
      describe: 'Processors that the server may use. Default: those of this machine or container.',
    })
    .option('admin-token', {
      string: true,
      requiresArg: true,
      describe: 'As the server has it. Default: $NUNICORN_ADMIN_TOKEN.',
    })
    .option('help', { boolean: true, alias: 'h', describe: 'Show this help.' })
    .version(false)
    .exitProcess(false)
    .strictOptions()
    .parserConfiguration({ 'parse-numbers': false, 'parse-positional-numbers': false, 'camel-case-expansion': false })
    .fail(failAs('nunicorn advise'));
  const parsed = await y.parseAsync();
  if (parsed.help) {
    console.log(await y.wrap(Math.min(columns, 110)).getHelp());
    return EXIT.OK;
  }
  const [address, ...more] = parsed._.map(String);
  if (address === undefined || more.length > 0)
    throw new NunicornError('one address is needed: that of --admin-bind, such as 127.0.0.1:9464', EXIT.USAGE);
  const watch = secondsOf(parsed.watch);
  const token = parsed['admin-token'] ?? process.env.NUNICORN_ADMIN_TOKEN;
  const machine = readMachine();
  const cores = parsed.cpus === undefined ? usableProcessors(machine) : Number(parsed.cpus);
  if (!(cores > 0)) throw new NunicornError(`--cpus '${parsed.cpus}': a number above 0 is needed`, EXIT.USAGE);

  const first = await status(address, token);
  let last = first;
  let earlier: AdviceContext['earlier'];
  if (watch > 0) {
    await sleep(watch * 1000);
    last = await status(address, token);
    const pss = first.workers.flatMap(({ number, memory }) =>
      memory.pss === null ? [] : [[number, memory.pss] as const],
    );
    earlier = { seconds: watch, pss: new Map(pss), requests: first.totals.requests };
  }
  const context: AdviceContext = {
    cores,
    memoryLimit: usableMemory(machine),
    ...(earlier === undefined ? {} : { earlier }),
  };
  console.log(adviceText(last, advise(last, context), cores));
  return EXIT.OK;
}

export function adviceText(input: AdviceInput, advice: readonly Advice[], cores: number): string {
  const { settings, recent } = input;
  const head = `${plural(settings.workers, 'worker')} x ${plural(settings.threads, 'thread')} on ${plural(cores, 'processor')}: ${recent.requestsPerSecond.toFixed(1)} requests/s, ${Math.round(recent.utilization * 100)} % of the threads busy (last ${Math.round(recent.seconds)} s).`;
  const lacking = tooLittle(input);
  if (lacking !== undefined) return `${head}\nNo advice: ${lacking}.`;
  if (advice.length === 0)
    return `${head}\nNothing to change: threads, lock, processors and memory have room at this load.`;
  const items = advice.map(({ change, why, expect }) => `\n- ${change}.\n  Why: ${why}.\n  Expect: ${expect}.`);
  return `${head}\n${items.join('\n')}\n\nThis is an expectation from figures of this load. nunicorn size measures it.`;
}

function secondsOf(text: string): number {
  const value = Number(text);
  if (!(value >= 0)) throw new NunicornError(`--watch '${text}': a number of seconds is needed`, EXIT.USAGE);
  return value;
}

const NOT_THERE = 'nobody listens there: was the server started with --admin-bind, and with this address?';
const NOBODY_THERE: Readonly<Record<string, string>> = { ECONNREFUSED: NOT_THERE, ENOENT: NOT_THERE };

function status(text: string, token: string | undefined): Promise<AdviceInput> {
  const address = parseAddress(text);
  const where = formatAddress(address);
  if (address.kind === 'fd')
    throw new NunicornError(`${where}: an address to connect to is needed, HOST:PORT or unix:PATH`);
  return new Promise((resolve, reject) => {
    const fail = (what: string): void => reject(new NunicornError(`${where}/status: ${what}`));
    const target = address.kind === 'unix' ? { socketPath: address.path } : { host: address.host, port: address.port };
    const asked = request({
      ...target,
      path: '/status',
      timeout: ASK_MS,
      headers: { host: 'localhost', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
    });
    asked.on('response', (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (data: string) => {
        body += data;
      });
      response.on('error', (error) => fail(error.message));
      response.on('end', () => {
        if (response.statusCode === 401)
          fail('it asks for its token: give --admin-token, or NUNICORN_ADMIN_TOKEN in the environment');
        else if (response.statusCode !== 200)
          fail(`answered with ${response.statusCode}: is it the --admin-bind of a nunicorn?`);
        else
          try {
            resolve(checked(JSON.parse(body)));
          } catch {
            fail('the answer is not the status of a nunicorn');
          }
      });
    });
    asked.on('timeout', () => asked.destroy(new Error(`no answer within ${ASK_MS / 1000} s`)));
    asked.on('error', (error: NodeJS.ErrnoException) => fail(NOBODY_THERE[error.code ?? ''] ?? error.message));
    asked.end();
  });
}

function checked(json: unknown): AdviceInput {
  const input = json as AdviceInput;
  if (
    typeof input.settings.workers !== 'number' ||
    typeof input.recent.utilization !== 'number' ||
    !Array.isArray(input.workers)
  )
    throw new TypeError('not a status');
  return input;
}
