#!/usr/bin/env node
// Before anything is loaded: SIGUSR1, which asks for reopened logs, would open Node's debugger.
process.on('SIGUSR1', () => {});
// Nothing else of nunicorn can be relied on to parse there.
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`\nError: nunicorn needs Node.js 20.19 or newer; ${process.execPath} is ${process.version}`);
  process.exit(1);
}
const { main } = await import('../dist/src/cli.js').catch(notBuilt);
// One that came even before that has.
(await import('../dist/src/inspector.js')).closeDebugger();

const code = (await belowInit()) ?? (await main(process.argv.slice(2)));
// What a start that failed has left behind, a timer or a socket, must not keep the process.
if (code !== 0) process.exit(code);

async function belowInit() {
  return process.pid === 1 ? await (await import('../dist/src/init.js')).runBelowInit() : null;
}

function notBuilt(error) {
  if (error.code !== 'ERR_MODULE_NOT_FOUND' || !error.url?.endsWith('/dist/src/cli.js')) throw error;
  console.error('\nError: this copy of nunicorn has not been built: run `npm install && npm run build` in its folder');
  process.exit(1);
}
