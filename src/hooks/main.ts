/** Start of the process in which hooks of the master run that are functions of a nunicorn.config file. */

import { EXIT } from '../errors.ts';
import { openErrorLog } from '../log/error-log.ts';
import { type SwitchableLog, switchableLog } from '../log/switchable-log.ts';
import { appStack } from '../node-app/app-stack.ts';
import { tellParent } from '../parent.ts';
import { type HookFunctions, loadFunctions } from './functions.ts';
import { HookFailed, MasterHooks } from './master-hooks.ts';
import type { FromHooks, HooksConfig, ToHooks } from './messages.ts';

let hooks: MasterHooks | null = null;
let log: SwitchableLog | null = null;
let runs = 0;
let fromRawEnv: readonly string[] = [];

function tell(message: FromHooks): void {
  tellParent(message);
}

async function start(config: HooksConfig): Promise<void> {
  process.title = config.title;
  log = switchableLog(await openErrorLog(config.errorLog));
  try {
    hooks = new MasterHooks(config, await load(config), log, reload);
    await hooks.start(config.settings.workers, config.listeners.length > 0);
    tell({ op: 'ready' });
  } catch (error) {
    if (!(error instanceof HookFailed)) log.error(`The configuration file failed\n${appStack(error)}`);
    process.exit(error instanceof HookFailed ? error.code : EXIT.ERROR);
  }
}

/** Runs the file as at the start of the server, with its folder and environment; hooks then are called where the app is. */
async function load({ file, cwd, settings }: HooksConfig): Promise<HookFunctions> {
  process.chdir(cwd);
  for (const name of fromRawEnv) delete process.env[name];
  const functions = await loadFunctions(file, ++runs);
  process.chdir(settings.chdir);
  fromRawEnv = settings.raw_env.map((entry) => {
    const equals = entry.indexOf('=');
    process.env[entry.slice(0, equals)] = entry.slice(equals + 1);
    return entry.slice(0, equals);
  });
  return functions;
}

async function reload(config: HooksConfig): Promise<HookFunctions> {
  process.title = config.title;
  log?.become(await openErrorLog(config.errorLog));
  return await load(config);
}

async function act(message: ToHooks): Promise<void> {
  switch (message.op) {
    case 'start':
      return await start(message.config);
    case 'spawned':
      hooks?.spawned(message.serial, message.pid);
      return;
    case 'reopen':
      log?.reopen();
      return;
    case 'leave':
      process.exit(EXIT.OK);
      return;
    case 'hook': {
      const code = await hooks?.call(message).then(
        () => null,
        (error: unknown) => (error instanceof HookFailed ? error.code : EXIT.HOOK_ERROR),
      );
      tell({ op: 'hooked', code: code ?? null });
    }
  }
}

// The master says when it is time to go; a supervisor may signal all processes at once.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const)
  process.on(signal, () => {});
process.on('disconnect', () => process.exit(EXIT.ERROR)); // the master is gone without a word
let queue = Promise.resolve();
process.on('message', (message: ToHooks) => {
  queue = queue.then(() => act(message));
});
