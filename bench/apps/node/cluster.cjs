// That program under bare node:cluster, `cluster.cjs WORKERS`.
const cluster = require('node:cluster');
const { join } = require('node:path');

cluster.setupPrimary({ exec: join(__dirname, 'program.cjs') });
for (let worker = 0; worker < Number(process.argv[2]); worker++) cluster.fork();
process.on('SIGTERM', () => process.exit());
