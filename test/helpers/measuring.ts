import { setTimeout as delay } from 'node:timers/promises';

const ATTEMPTS = 4;

/**
 * For a test that measures: others on the machine may spoil it at any moment, so it is given some more attempts. What is wrong fails
 * in each of them.
 *
 * @param test gets the number of the attempt, from 1
 */
export async function measuring(test: (attempt: number) => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await test(attempt);
      return;
    } catch (error) {
      if (attempt === ATTEMPTS) throw error;
      console.error(`attempt ${attempt}: ${error instanceof Error ? error.message : error}`);
      await delay(attempt * 1000);
    }
  }
}
