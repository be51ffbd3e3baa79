/** The options that `nunicorn size` has itself, read by yargs. Everything else on the command line is left for the server. */
import { AS_TYPED, failAs } from '../settings/parser.ts';

const OWN = {
  path: {
    string: true,
    array: true,
    requiresArg: true,
    describe: 'What to ask for, with its query. Can be given several times; each is asked for equally often.',
    group: 'Load:',
  },
  har: {
    string: true,
    requiresArg: true,
    describe: 'Ask for what a browser has recorded (HTTP archive): the GET requests to its first host.',
    group: 'Load:',
  },
  replay: {
    string: true,
    requiresArg: true,
    describe: "Ask for what an access log holds (Gunicorn's, nginx's): its GET requests, as often as there.",
    group: 'Load:',
  },
  host: {
    string: true,
    requiresArg: true,
    describe: 'The Host header, for applications that check it (ALLOWED_HOSTS).',
    group: 'Load:',
  },
  header: {
    string: true,
    array: true,
    requiresArg: true,
    describe: "A further header, 'Name: value'. Can be given several times.",
    group: 'Load:',
  },
  rate: {
    string: true,
    requiresArg: true,
    describe:
      'Requests per second that you expect at most: latencies are compared at this rate. Default: 70 % of what the best setting should carry.',
    group: 'Load:',
  },
  slo: {
    string: true,
    requiresArg: true,
    describe:
      'What must be kept: p99<300ms, p90<0.5s. Default: p99 below ten times an unhindered request, at least 100 ms.',
    group: 'Limits:',
  },
  cpus: {
    string: true,
    requiresArg: true,
    describe: 'CPUs that the server may use, such as 1 or 1.5; imposed on it.',
    group: 'Limits:',
  },
  memory: {
    string: true,
    requiresArg: true,
    describe: 'Memory of all its processes together, such as 900M or 2G.',
    group: 'Limits:',
  },
  'max-connections-db': {
    string: true,
    requiresArg: true,
    describe: 'Database connections there are for this server: workers x threads stays within.',
    group: 'Limits:',
  },
  budget: {
    string: true,
    requiresArg: true,
    default: '3m',
    describe: 'Time that it may take, such as 30s or 5m.',
    group: 'Measurement:',
  },
  warmup: {
    string: true,
    requiresArg: true,
    describe: 'Load on each server before it is measured, such as 2s.',
    group: 'Measurement:',
  },
  compare: {
    string: true,
    requiresArg: true,
    choices: ['gunicorn'],
    describe: 'Run the finalists through Gunicorn too.',
    group: 'Measurement:',
  },
  check: {
    string: true,
    requiresArg: true,
    describe:
      'Measure again what this report (of --json) advises, with its options, and say whether the advice still holds: exit code 1 if not.',
    group: 'Measurement:',
  },
  json: {
    string: true,
    requiresArg: true,
    describe: 'Write the report to this file: every cell, every window.',
    group: 'Report:',
  },
  html: {
    string: true,
    requiresArg: true,
    describe: 'Write it as a page to look at; it needs no network.',
    group: 'Report:',
  },
  export: {
    string: true,
    requiresArg: true,
    choices: ['k6'],
    describe:
      'Write this load as a k6 script to stdout and measure nothing, for loads that need more machines than one. --rate says around which rate.',
    group: 'Report:',
  },
  import: {
    string: true,
    array: true,
    requiresArg: true,
    describe: 'Read what such a k6 script has written and say up to which rate it keeps --slo.',
    group: 'Report:',
  },
  help: { boolean: true, alias: 'h', describe: 'Show this help.', group: 'Help:' },
} as const;

/** Files that a run writes: a check of its report must not write them again. */
const OUTPUT = ['json', 'html', 'check'];

export interface OwnOptions {
  readonly kind: 'options';
  /** The last value given, or the default. */
  readonly text: (name: keyof typeof OWN) => string | undefined;
  readonly list: (name: keyof typeof OWN) => readonly string[];
  /** What is not ours, in order: the server's options and the application. */
  readonly rest: readonly string[];
}

export type Parsed = OwnOptions | { readonly kind: 'help'; readonly text: string };

/** @throws {NunicornError} with exit code 2 if a value is missing or not one of those there are */
export async function parseOwn(argv: readonly string[], columns: number): Promise<Parsed> {
  const { default: yargs } = await import('yargs');
  let y = yargs([...argv])
    .scriptName('nunicorn size')
    .help(false)
    .version(false)
    .exitProcess(false)
    .fail(failAs('nunicorn size'))
    // The server's options are none of ours.
    .parserConfiguration({ ...AS_TYPED, 'unknown-options-as-args': true });
  for (const [name, option] of Object.entries(OWN)) y = y.option(name, option);
  y = y
    .usage(
      'Usage: $0 [OPTIONS] [OPTIONS OF THE SERVER] APP --path / | --har FILE | --replay FILE\n\nMeasures APP with several numbers of workers and threads on this machine and says what to run.\nThe application is really run and asked: choose paths that may be asked for thousands of times.',
    )
    .example('$0 --path / project.wsgi', 'What to run on this machine, in three minutes.')
    .example(
      "$0 --cpus 1 --memory 900M --slo 'p99<300ms' --path / --path /books/ project.wsgi",
      'For a server with one CPU and 1 GB.',
    )
    .example(
      '$0 --replay access.log --html report.html project.wsgi',
      'With the mix of a real day, and a page to look at.',
    )
    .epilogue('How it measures, how sure it is, and where its limits are: docs/sizing.md.');
  const parsed = await y.parseAsync();
  if (parsed.help) return { kind: 'help', text: await y.wrap(Math.min(columns, 110)).getHelp() };
  return {
    kind: 'options',
    text: (name) => {
      const value: unknown = parsed[name];
      const last: unknown = Array.isArray(value) ? value.at(-1) : value;
      return typeof last === 'string' ? last : undefined;
    },
    list: (name) => {
      const value: unknown = parsed[name];
      return Array.isArray(value) ? value.map(String) : [];
    },
    rest: parsed._.map(String),
  };
}

/** The words without those that name files of ours. */
export function withoutOutput(argv: readonly string[]): readonly string[] {
  const words: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? '';
    const name = OUTPUT.find((each) => word === `--${each}` || word.startsWith(`--${each}=`));
    if (name === undefined) words.push(word);
    else if (!word.includes('=')) i++;
  }
  return words;
}
