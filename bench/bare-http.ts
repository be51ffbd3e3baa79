/** The floor: node:http with a canned answer, `bare-http.js PORT`. */

import { createServer } from 'node:http';

const BODY = 'Hello, world!\n';

createServer((_request, response) => {
  response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': BODY.length });
  response.end(BODY);
}).listen(Number(process.argv[2]), '127.0.0.1', 2048);
