/** Tells how far a sizing is: one line that changes in a terminal, plain lines elsewhere. */
import { nameOf } from './cell.ts';
import type { Phase, Progress } from './session.ts';
import { ms } from './terminal.ts';

const PHASES: Readonly<Record<Phase, string>> = {
  calibrate: 'calibrating',
  probe: 'looking at one worker with one thread',
  screen: 'measuring settings',
  search: "searching the finalists' rates",
  done: 'done',
};
const BAR = 20;
const CLEAR = '\r\x1b[K';
const PLAIN_EVERY_MS = 5000;

export interface ProgressLine {
  readonly tell: (progress: Progress) => void;
  /** Clears the line. */
  readonly end: () => void;
}

export function progressLine(
  stream: NodeJS.WriteStream,
  budgetMs: number,
  now: () => number = () => performance.now(),
): ProgressLine {
  return stream.isTTY ? new Line(stream, budgetMs, now) : new Plain(stream, budgetMs, now);
}

/** What both say. */
class State {
  phase: Phase = 'calibrate';
  doing = '';
  best = '';
  readonly #from: number;
  readonly #budgetMs: number;
  readonly #now: () => number;

  constructor(budgetMs: number, now: () => number) {
    this.#budgetMs = budgetMs;
    this.#now = now;
    this.#from = now();
  }

  take(progress: Progress): void {
    switch (progress.kind) {
      case 'phase':
        this.phase = progress.phase;
        this.doing = '';
        break;
      case 'cell':
        this.doing = `${nameOf(progress.cell)} ${progress.doing}`;
        break;
      case 'measured':
        if (progress.best !== undefined) this.best = progress.best;
        break;
      case 'costs':
      case 'failed':
        break;
    }
  }

  get share(): number {
    return Math.min(1, (this.#now() - this.#from) / this.#budgetMs);
  }

  get left(): string {
    const seconds = Math.max(0, Math.ceil((1 - this.share) * (this.#budgetMs / 1000)));
    return seconds < 90 ? `${seconds} s left` : `${Math.ceil(seconds / 60)} min left`;
  }
}

class Line implements ProgressLine {
  readonly #stream: NodeJS.WriteStream;
  readonly #state: State;
  readonly #timer: NodeJS.Timeout;

  constructor(stream: NodeJS.WriteStream, budgetMs: number, now: () => number) {
    this.#stream = stream;
    this.#state = new State(budgetMs, now);
    this.#timer = setInterval(() => this.#draw(), 500);
    this.#timer.unref();
  }

  readonly tell = (progress: Progress): void => {
    this.#state.take(progress);
    if (progress.kind === 'failed') {
      this.#stream.write(`${CLEAR}${nameOf(progress.cell)} failed: ${progress.because}\n`);
    }
    this.#draw();
  };

  readonly end = (): void => {
    clearInterval(this.#timer);
    this.#stream.write(CLEAR);
  };

  #draw(): void {
    const { share, left, phase, doing, best } = this.#state;
    if (phase === 'done') return;
    const full = Math.round(share * BAR);
    const parts = [doing === '' ? PHASES[phase] : doing, ...(best === '' ? [] : [`best so far ${best}`]), left];
    const text = `[${'#'.repeat(full)}${'-'.repeat(BAR - full)}] ${parts.join(' | ')}`;
    this.#stream.write(`${CLEAR}${text.slice(0, Math.max(20, (this.#stream.columns ?? 80) - 1))}`);
  }
}

class Plain implements ProgressLine {
  readonly #stream: NodeJS.WriteStream;
  readonly #state: State;
  readonly #now: () => number;
  #saidAt = Number.NEGATIVE_INFINITY;

  constructor(stream: NodeJS.WriteStream, budgetMs: number, now: () => number) {
    this.#stream = stream;
    this.#state = new State(budgetMs, now);
    this.#now = now;
  }

  readonly tell = (progress: Progress): void => {
    this.#state.take(progress);
    if (progress.kind === 'phase' && progress.phase !== 'done') this.#say(PHASES[progress.phase]);
    else if (progress.kind === 'failed') this.#say(`${nameOf(progress.cell)} failed: ${progress.because}`);
    else if (progress.kind === 'measured' && this.#now() - this.#saidAt >= PLAIN_EVERY_MS) {
      const p99 = progress.p99Ms === undefined ? '' : `, p99 ${ms(progress.p99Ms)}`;
      this.#say(
        `${this.#state.doing}: ${Math.round(progress.perSecond)}/s${p99}; best so far ${progress.best ?? 'none'}`,
      );
    }
  };

  readonly end = (): void => {};

  #say(text: string): void {
    this.#saidAt = this.#now();
    this.#stream.write(`nunicorn size: ${text} (${this.#state.left})\n`);
  }
}
