// nunicorn examples/hello.mjs
export default (request, response) => {
  response.setHeader('Content-Type', 'text/plain');
  response.end(`Hello, ${request.url}\n`);
};
