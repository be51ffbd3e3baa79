/**
 * Where a thread stands: the inspector of this process interrupts it, also in the middle of a loop. Only loaded when a thread is
 * stuck; it costs nothing before.
 */
import { Session } from 'node:inspector';
import { fileURLToPath } from 'node:url';

interface Frame {
  readonly functionName: string;
  readonly location: { readonly scriptId: string; readonly lineNumber: number; readonly columnNumber?: number };
}

/** What the thread's own inspector says. */
interface FromInspector {
  readonly id?: number;
  readonly method?: string;
  readonly params?: { readonly scriptId?: string; readonly url?: string; readonly callFrames?: readonly Frame[] };
}

const ENABLE = 1;
const PAUSE = 2;
const DISABLE = 3;
/** A thread that was told to pause and is in JavaScript does so at once. */
const PAUSE_MS = 200;

/**
 * The thread's JavaScript stack, innermost first, one `at` line a frame; or in parentheses why it has none. Native code is not
 * interrupted: with it this takes `limitMs`.
 */
export function threadStack(threadId: number, limitMs: number): Promise<string> {
  return new Promise((resolve) => {
    const session = new Session();
    const scripts = new Map<string, string>();
    let stack = '(in native code, or in a call that blocks)';
    let sessionId: string | null = null;
    let disabling: NodeJS.Timeout | null = null;
    const post = (id: number, method: string): void => {
      if (sessionId === null) return;
      session.post('NodeWorker.sendMessageToWorker', { sessionId, message: JSON.stringify({ id, method }) });
    };
    // A thread that is paused, or is about to be, cannot be ended: so it is let go and has to confirm that.
    const disable = (): void => post(DISABLE, 'Debugger.disable');
    const done = (): void => {
      clearTimeout(limit);
      if (disabling !== null) clearTimeout(disabling);
      session.disconnect();
      resolve(stack);
    };
    const limit = setTimeout(() => {
      disable();
      done();
    }, limitMs);
    session.connect();
    session.on('NodeWorker.attachedToWorker', ({ params }) => {
      if (!params.workerInfo.title.startsWith(`[worker ${threadId}]`)) return;
      sessionId = params.sessionId;
      post(ENABLE, 'Debugger.enable');
      post(PAUSE, 'Debugger.pause');
    });
    session.on('NodeWorker.receivedMessageFromWorker', ({ params }) => {
      if (params.sessionId !== sessionId) return;
      const { id, method, params: said } = JSON.parse(params.message) as FromInspector;
      if (method === 'Debugger.scriptParsed') scripts.set(said?.scriptId ?? '', said?.url ?? '');
      else if (method === 'Debugger.paused') {
        stack = (said?.callFrames ?? []).map((frame) => lineOf(frame, scripts)).join('\n');
        disable();
      } else if (id === PAUSE) {
        stack = '(in no JavaScript: its event loop waits for something)';
        disabling = setTimeout(disable, PAUSE_MS);
      } else if (id === DISABLE) done();
    });
    session.post('NodeWorker.enable', { waitForDebuggerOnStart: false });
  });
}

function lineOf({ functionName, location }: Frame, scripts: ReadonlyMap<string, string>): string {
  const url = scripts.get(location.scriptId) ?? '';
  const path = url.startsWith('file:') ? fileURLToPath(url) : url;
  const place = `${path}:${location.lineNumber + 1}:${(location.columnNumber ?? 0) + 1}`;
  return functionName === '' ? `    at ${place}` : `    at ${functionName} (${place})`;
}
