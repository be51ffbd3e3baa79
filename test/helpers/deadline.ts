import { setTimeout as delay } from 'node:timers/promises';

/** How long a test waits for something that should happen soon. Generous: the machine may be busy. */
export const SOON_MS = 30_000;

const POLL_MS = 10;

export class DeadlineError extends Error {
  override readonly name = 'DeadlineError';
}

/** Rejects with a DeadlineError that names `what` when `promise` is not settled within `ms`. */
export async function withDeadline<T>(promise: Promise<T>, what: string | (() => string), ms = SOON_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      const text = typeof what === 'string' ? what : what();
      reject(new DeadlineError(`not within ${ms} ms: ${text}`));
    }, ms);
  });
  try {
    return await Promise.race([promise, deadline]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Waits until `state()` gives something truthy and returns it. For states that have no event, such as the process
 * table or a counter inside the app.
 */
export async function until<T>(
  state: () => T | Promise<T>,
  what: string | (() => string),
  ms = SOON_MS,
): Promise<Exclude<T, false | undefined | null | 0 | ''>> {
  const end = performance.now() + ms;
  for (;;) {
    const value = await state();
    if (value) return value as Exclude<T, false | undefined | null | 0 | ''>;
    if (performance.now() > end) {
      throw new DeadlineError(`not within ${ms} ms: ${typeof what === 'string' ? what : what()}`);
    }
    await delay(POLL_MS);
  }
}
