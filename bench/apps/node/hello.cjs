// The least that an app can do.
const BODY = 'Hello, world!\n';

module.exports = (_request, response) => {
  response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': BODY.length });
  response.end(BODY);
};
