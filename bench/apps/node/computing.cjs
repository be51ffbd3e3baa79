// The ceiling of compute.cjs: nothing but its work, `computing.cjs STEPS SECONDS`. Prints how often, and the seconds it took.
const { work } = require('./compute.cjs');

const [, , steps, seconds] = process.argv.map(Number);
const run = (until) => {
  let times = 0;
  for (; performance.now() < until; times++) work(steps);
  return times;
};
run(performance.now() + 300); // until it is compiled
const start = performance.now();
const times = run(start + seconds * 1000);
console.log(times, (performance.now() - start) / 1000);
