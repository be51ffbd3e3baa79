// Handlers that need the processor: /work takes STEPS steps, which are 20 ms of a processor that has nothing else to do.
function work(steps) {
  let x = 1;
  for (let step = 0; step < steps; step++) x = (Math.imul(x, 1664525) + 1013904223) | 0;
  return x;
}

module.exports = (request, response) => {
  const body = request.url === '/work' ? `${work(Number(process.env.STEPS))}\n` : 'well\n';
  response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': body.length });
  response.end(body);
};
module.exports.work = work;
