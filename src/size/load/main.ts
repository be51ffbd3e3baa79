/**
 * The load generator as a process of its own. It gets `LoadOptions` as messages from the process that started it, runs one
 * after the other, and answers each with a `LoadResult`. It ends with its parent.
 */
import { runLoad } from './load.ts';

process.on('message', (options: Parameters<typeof runLoad>[0]) => {
  void runLoad(options).then((result) => process.send?.(result));
});
process.on('disconnect', () => process.exit(0));
// Ctrl-C goes to every process of the terminal; the parent decides what ends when.
process.on('SIGINT', () => {});
