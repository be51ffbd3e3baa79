/** Required by every process of a server (NODE_OPTIONS): a front writes a CPU profile to $PROFILE when it ends. */
const { writeFileSync } = require('node:fs');
const { Session } = require('node:inspector');

if (process.argv[1]?.endsWith('/front/main.js')) {
  const session = new Session();
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.setSamplingInterval', { interval: 200 });
  session.post('Profiler.start');
  process.on('exit', () =>
    // Answered before it returns.
    session.post('Profiler.stop', (error, answer) => {
      if (error === null) writeFileSync(process.env.PROFILE, JSON.stringify(answer.profile));
    }),
  );
}
