// The same as a program that listens for itself.
const { createServer } = require('node:http');

createServer(require('./hello.cjs')).listen(Number(process.env.PORT), '127.0.0.1', 2048);
