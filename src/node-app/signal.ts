/** `request.signal`, also for Node before 24.16, and everywhere aborted with the reason: made only for those who ask, and aborted by whoever serves it. */
import { IncomingMessage } from 'node:http';

const controllers = new WeakMap<IncomingMessage, AbortController>();

export function provideSignal(): void {
  Object.defineProperty(IncomingMessage.prototype, 'signal', {
    configurable: true,
    get(this: IncomingMessage): AbortSignal {
      let controller = controllers.get(this);
      if (controller === undefined) {
        controller = new AbortController();
        controllers.set(this, controller);
        if (this.socket.destroyed) controller.abort();
      }
      return controller.signal;
    },
  });
}

/** The client has left before its answer, or the request's time is up. */
export function abortSignal(request: IncomingMessage, reason?: Error): void {
  controllers.get(request)?.abort(reason);
}
