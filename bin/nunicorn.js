#!/usr/bin/env node
// Before anything is loaded: SIGUSR1, which asks for reopened logs, would open Node's debugger.
process.on('SIGUSR1', () => {});
const { main } = await import('../dist/src/cli.js');
// One that came even before that has.
(await import('../dist/src/inspector.js')).closeDebugger();

const code = (await belowInit()) ?? (await main(process.argv.slice(2)));
// What a start that failed has left behind, a timer or a socket, must not keep the process.
if (code !== 0) process.exit(code);

async function belowInit() {
  return process.pid === 1 ? await (await import('../dist/src/init.js')).runBelowInit() : null;
}
