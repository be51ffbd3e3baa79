/** What `npm run bench:size` has found out so far: bench/results/size.json, written after each item. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const ROOT = join(import.meta.dirname, '..', '..', '..');
const FOLDER = join(ROOT, 'bench', 'results');

/** An application whose costs are known, in ms. */
export interface Known {
  readonly app: 'python' | 'node';
  readonly lockedMs: number;
  readonly freeMs: number;
  readonly waitMs: number;
  readonly cpus: number;
}

/** One sizing of such an application. */
export interface Run {
  readonly known: Known;
  /** What follows from the costs. */
  readonly expected: string;
  readonly got: string;
  readonly kind: string;
  /** Within one step of what is expected. */
  readonly right: boolean;
  readonly variation: number | null;
  readonly othersShare: number;
  readonly seconds: number;
}

/** Full speed of one setting before the knee, requests per second. */
export interface Prediction {
  readonly known: Known;
  readonly name: string;
  readonly predicted: number;
  readonly measured: number;
}

export interface Grid {
  readonly recommended: string;
  readonly best: string;
  /** What the recommended setting carries of the best one's rate, both measured again. */
  readonly share: number;
  readonly seconds: number;
  readonly gridSeconds: number;
  readonly cells: readonly Rate[];
  /** The leaders of the grid and the recommended setting, measured again. */
  readonly rematch: readonly Rate[];
}

export interface Rate {
  readonly name: string;
  readonly perSecond: number | undefined;
}

/** Of one part; `load` is the load average before it, where it was noted: what else ran. */
export interface Part<T> {
  readonly at: string;
  readonly load: number | null;
  readonly budgetS: number;
  readonly items: readonly T[];
}

export interface Results {
  machine?: string;
  synthetic?: Part<Run>;
  noise?: Part<Run>;
  prediction?: Part<readonly Prediction[]>;
  django?: Part<Grid>;
}

const FILE = join(FOLDER, 'size.json');

export function readResults(): Results {
  return existsSync(FILE) ? (JSON.parse(readFileSync(FILE, 'utf8')) as Results) : {};
}

export function writeResults(results: Results, page: string): void {
  mkdirSync(FOLDER, { recursive: true });
  writeFileSync(FILE, `${JSON.stringify(results, undefined, 1)}\n`);
  writeFileSync(join(FOLDER, 'size.md'), page);
}
